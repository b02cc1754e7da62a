"""Dropout."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from .activation import map_
from .call import operation


@operation("x")
def dropout(x, p=0.5, training=True):
    """In training, each element is 0 with probability p, else divided by 1 - p."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    if not training or p == 0:
        return add_node(OPS["reshape"], [x], shape=x.shape)
    if p == 1:
        return map_(x, "scale", 0.0)
    return add_node(OPS["dropout"], [x], p=float(p), stream=None)
