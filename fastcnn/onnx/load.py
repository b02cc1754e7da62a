"""An ONNX file as a module. Needs the onnx package (extra "onnx")."""

from __future__ import annotations

import os
from typing import Any

from ..io.errors import FileFormatError
from .graph import read
from .model import OnnxModel
from .package import require_onnx


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """The model in the file, in evaluation mode: it runs, trains on (after train()), and saves with fc.save.

    Opset 6 or newer, float32 (other floats become float32). Raises FileFormatError for a file that is damaged, and for
    operators, types or forms that are not supported; it names the node and the opset.
    """
    onnx = require_onnx("onnx.load")
    try:
        proto = onnx.load(os.fspath(path))
    except OSError:
        raise
    except Exception as error:  # protobuf's own kinds of DecodeError, and onnx's of external data
        raise FileFormatError(f"{os.fspath(path)}: not an ONNX file: {error}") from None
    try:
        return from_proto(proto)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise FileFormatError(f"{os.fspath(path)}: {error}") from None


def from_proto(proto: Any) -> OnnxModel:
    """The model in an onnx.ModelProto, in evaluation mode."""
    graph, weights = read(require_onnx("onnx.load"), proto)
    if not graph["nodes"] and not graph["outputs"]:
        raise ValueError("the file has no graph")
    model = OnnxModel(graph)
    model.load_state_dict(weights)
    model.eval()
    return model
