"""ONNX operators in terms of fastcnn's functions, by the room that a function lives in.

Each takes a Call and the node's inputs and returns its output, or a tuple of them. What only shapes and constants go
into is computed with NumPy while the graph is built (constants.py).
"""

from . import elementwise, loss, normalization, product, reduction, resize, shape, window
from .call import ON_ARRAYS, OPERATORS, Call
from .constants import known, on_constants

__all__ = [
    "ON_ARRAYS",
    "OPERATORS",
    "Call",
    "elementwise",
    "known",
    "loss",
    "normalization",
    "on_constants",
    "product",
    "reduction",
    "resize",
    "shape",
    "window",
]
