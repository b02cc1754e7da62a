"""Other shapes of the same values: reshape, flatten, transpose, pad."""

from __future__ import annotations

import math

from ..graph.trace import add_node
from ..ops import OPS
from ..ops import shape as _shape
from .call import dimension, operation


@operation("x")
def reshape(x, shape):
    """x in another shape; one dimension may be -1."""
    shape = tuple(int(d) for d in ((shape,) if isinstance(shape, int) else shape))
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape = tuple(x.size // rest if d == -1 and rest else d for d in shape)
    return add_node(OPS["reshape"], [x], shape=shape)


@operation("x")
def flatten(x, start_dim=0, end_dim=-1):
    """x with dimensions start_dim to end_dim joined."""
    if x.ndim == 0:
        return add_node(OPS["reshape"], [x], shape=(1,))
    start, end = dimension("flatten", start_dim, x.ndim), dimension("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return add_node(
        OPS["reshape"], [x], shape=(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
    )


@operation("x")
def transpose(x, dim0, dim1):
    """x with two dimensions exchanged."""
    axes = list(range(x.ndim))
    first, second = dimension("transpose", dim0, x.ndim), dimension("transpose", dim1, x.ndim)
    axes[first], axes[second] = axes[second], axes[first]
    return _shape.transpose(x, axes)


@operation("x")
def pad(x, pad, mode="constant", value=0.0):
    """Pad the last dimensions: pad = (left, right, top, bottom, ...), last dimension first; negative values crop."""
    if mode != "constant":
        raise ValueError(f'pad: mode must be "constant", got {mode!r}')
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: pad must be pairs for at most {x.ndim} dimensions, got {pad!r}")
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    return _shape.pad(x, [lo for lo, _ in pairs], [hi for _, hi in pairs], value)
