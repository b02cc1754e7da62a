"""Other shapes of the same values: reshape, transpose, pad, slice, cat and their like."""

from __future__ import annotations

import math

from ..graph.trace import add_node
from ..ops import OPS, gather, windows
from ..ops import shape as _shape
from .call import dimension, list_operation, operation


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
    """Pad the last dimensions: pad = (left, right, top, bottom, ...), last dimension first; negative values crop.

    mode: "constant" (with `value`), or for all spatial dimensions of (N, C, ...) "reflect", "replicate", "circular".
    """
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ValueError(f'pad: mode must be "constant", "reflect", "replicate" or "circular", got {mode!r}')
    if not isinstance(pad, (tuple, list)):
        raise TypeError(f"pad: pad must be a sequence of ints (left, right, top, bottom, ...), got {pad!r}")
    pad = tuple(int(p.__index__()) if hasattr(p, "__index__") else _not_an_int(p) for p in pad)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: pad must be pairs for at most {x.ndim} dimensions, got {pad!r}")
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    if mode != "constant":
        return _pad_mirrored(x, pairs, mode)
    return _shape.pad(x, [lo for lo, _ in pairs], [hi for _, hi in pairs], value)


def _not_an_int(value):
    raise TypeError(f"pad: pad must be ints, got {value!r}")


def _pad_mirrored(x, pairs, mode):
    if x.ndim < 3 or any(p != (0, 0) for p in pairs[:2]):
        raise ValueError(f"pad: mode {mode!r} pads the spatial dimensions of (N, C, ...) only, got shape {x.shape}")
    axes = []
    for size, (before, after) in zip(x.shape[2:], pairs[2:]):
        kept = windows.left(size, before, after)
        largest = {"reflect": size - 1, "circular": kept}.get(mode, math.inf)
        if max(before, after) > largest or size + before + after < 1:
            raise ValueError(f"pad: mode {mode!r} cannot pad a dimension of size {size} by {before} and {after}")
        axes.append(windows.padding(size, before, after, mode))
    return add_node(OPS["gather_sum"], [x], table=gather.separable(tuple(x.shape[2:]), tuple(axes)))


@operation("x")
def permute(x, dims):
    """x with its dimensions in the order `dims`."""
    return _shape.transpose(x, [dimension("permute", d, x.ndim) for d in dims])


@operation("x")
def unsqueeze(x, dim):
    """x with a new dimension of size 1 before dimension `dim`."""
    at = dimension("unsqueeze", dim, x.ndim + 1)
    return add_node(OPS["reshape"], [x], shape=(*x.shape[:at], 1, *x.shape[at:]))


@operation("x")
def squeeze(x, dim=None):
    """x without dimension(s) `dim` where their size is 1; None: without any of size 1."""
    dims = range(x.ndim) if dim is None else [dimension("squeeze", d, x.ndim) for d in _several(dim)]
    shape = tuple(size for i, size in enumerate(x.shape) if not (i in dims and size == 1))
    return add_node(OPS["reshape"], [x], shape=shape)


def _several(dim):
    return dim if isinstance(dim, (tuple, list)) else (dim,)


@operation("x")
def expand(x, shape):
    """x repeated along its dimensions of size 1 to `shape` (-1: as it is); new dimensions come first."""
    lead = len(shape) - x.ndim
    shape = tuple(x.shape[i - lead] if d == -1 and i >= lead else int(d) for i, d in enumerate(shape))
    return add_node(OPS["expand"], [x], shape=shape)


@operation("x")
def narrow(x, dim, start, length):
    """`length` elements of x along `dim`, from `start`."""
    dim = dimension("narrow", dim, x.ndim)
    return _shape.narrow(x, dim, start + x.shape[dim] if start < 0 else start, length)


def getitem(x, index):
    """x[index] for ints, slices with positive steps, ... and None (what x[index] on a traced value does)."""
    items = index if isinstance(index, tuple) else (index,)
    return _getitem(x, tuple(("slice", i.start, i.stop, i.step) if isinstance(i, slice) else i for i in items))


@operation("x")
def _getitem(x, items):
    """A slice is not hashable, and so cannot be in the key of a plan."""
    return _shape.getitem(x, tuple(slice(*i[1:]) if isinstance(i, tuple) else i for i in items))


@list_operation
def cat(tensors, dim=0):
    """Arrays one after the other along `dim`; all else of their shapes must agree."""
    dim = dimension("cat", dim, tensors[0].ndim)
    return tensors[0] if len(tensors) == 1 else add_node(OPS["cat"], tensors, dim=dim)


@list_operation
def stack(tensors, dim=0):
    """Arrays of one shape along a new dimension `dim`."""
    return cat([unsqueeze(x, dim) for x in tensors], dimension("stack", dim, tensors[0].ndim + 1))


@operation("x")
def split(x, split_size_or_sections, dim=0):
    """A tuple of pieces of x along `dim`: of this size (the last may be smaller), or of these sizes."""
    dim, sizes = dimension("split", dim, x.ndim), split_size_or_sections
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"split: the size of a piece must be at least 1, got {sizes}")
        sizes = [min(sizes, x.shape[dim] - at) for at in range(0, x.shape[dim], sizes)]
    if sum(sizes) != x.shape[dim]:
        raise ValueError(f"split: sizes {tuple(sizes)} do not add up to {x.shape[dim]}, dimension {dim} of {x.shape}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(_shape.narrow(x, dim, start, size) for start, size in zip(starts, sizes))


@operation("x")
def chunk(x, chunks, dim=0):
    """A tuple of at most `chunks` pieces of nearly equal size along `dim`."""
    if not isinstance(chunks, int) or chunks < 1:
        raise ValueError(f"chunk: chunks must be an int >= 1, got {chunks!r}")
    size = x.shape[dimension("chunk", dim, x.ndim)]
    return split(x, -(-size // chunks), dim)
