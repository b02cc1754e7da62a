"""ONNX files in and out: `export(model, path, input_shape)` and `load(path)`. Needs the onnx package (extra "onnx")."""

from .export import export
from .load import load
from .model import OnnxModel

__all__ = ["OnnxModel", "export", "load"]
