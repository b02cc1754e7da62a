"""Linear layers and matrix products."""

from __future__ import annotations

import math

from ..graph.trace import add_node
from ..ops import OPS
from .call import operation
from .shape import reshape


@operation("x", "weight", "bias")
def linear(x, weight, bias=None):
    """x (..., in) times weight (out, in) transposed, plus bias (out)."""
    if x.ndim == 1 or x.ndim > 2:
        flat = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        return reshape(linear(flat, weight, bias), (*x.shape[:-1], weight.shape[0]))
    return add_node(OPS["linear"], [x, weight] + ([bias] if bias is not None else []))


@operation("a", "b")
def matmul(a, b):
    """The matrix product of a (M, K) and b (K, N)."""
    return add_node(OPS["matmul"], [a, b])
