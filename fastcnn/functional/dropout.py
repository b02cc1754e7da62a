"""Dropout."""

from __future__ import annotations

import numpy as np

from ..graph.trace import add_node, leaf
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


def _mask(x, shape, p):
    """1 / (1 - p) with probability 1 - p, else 0, of this shape, broadcast to x."""
    ones = leaf(np.ones(shape, np.float32))
    return x * dropout(ones, p, True)


@operation("x")
def dropout2d(x, p=0.5, training=True):
    """In training, each channel of x (N, C, ...) is 0 with probability p, else divided by 1 - p."""
    if x.ndim < 3:
        raise ValueError(f"dropout2d: input must have at least 3 dimensions (N, C, ...), got shape {x.shape}")
    if not training or not 0 < p < 1:
        return dropout(x, p, training)
    return _mask(x, (*x.shape[:2], *[1] * (x.ndim - 2)), p)


@operation("x")
def stochastic_depth(x, p, mode, training=True):
    """In training, x is 0 with probability p, else divided by 1 - p: as a whole (mode "batch") or each of its items
    (mode "row") (Huang et al., 2016)."""
    if mode not in ("batch", "row"):
        raise ValueError(f'stochastic_depth: mode must be "batch" or "row", got {mode!r}')
    if not training or not 0 < p < 1:
        return dropout(x, p, training)
    return _mask(x, (x.shape[0] if mode == "row" else 1, *[1] * (x.ndim - 1)), p)
