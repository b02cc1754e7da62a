"""The onnx package, which only export and load need."""

from __future__ import annotations

from typing import Any


def require_onnx(what: str) -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError(
            f"{what}: reading and writing ONNX needs the onnx package: pip install 'fastcnn[onnx]'"
        ) from None
    return onnx
