"""Operators that move values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ...graph.trace import Symbol, add_node, leaf
from ...ops import OPS, gather, windows
from ...ops import shape as moves
from .call import Call, check_length, operator
from .constants import on_constants


def reshaped(x: Any, shape: Any) -> Any:
    shape = tuple(int(d) for d in shape)
    return x.reshape(shape) if isinstance(x, np.ndarray) else F.reshape(x, shape)


def picked(x: Symbol, axis: int, places: list[int]) -> Symbol:
    """These places along an axis, in this order."""
    if places == list(range(places[0], places[0] + len(places))):
        return moves.narrow(x, axis, places[0], len(places)) if len(places) != x.shape[axis] else x
    order = [*(d for d in range(x.ndim) if d != axis), axis]
    turned = F.permute(x, order)
    rest = turned.shape[:-1]
    table = gather.separable((x.shape[axis],), (tuple(((p, 1.0),) for p in places),))
    flat = add_node(OPS["gather_sum"], [F.reshape(turned, (1, math.prod(rest), x.shape[axis]))], table=table)
    return F.permute(F.reshape(flat, (*rest, len(places))), [order.index(d) for d in range(x.ndim)])


@operator("Reshape")
def _reshape(call: Call, x: Any, shape: Any = None) -> Any:
    shape = call.get("shape") if shape is None else call.ints(shape, "shape")
    if not call.get("allowzero", 0):
        shape = [x.shape[i] if d == 0 and i < len(x.shape) else d for i, d in enumerate(shape)]
    if min(shape, default=0) < -1 or shape.count(-1) > 1:
        raise ValueError(f"{call.place}: {list(shape)} is no shape")
    if -1 in shape:
        rest = -math.prod(shape)
        shape = [x.size // max(rest, 1) if d == -1 else d for d in shape]
    return reshaped(x, shape)


@operator("Flatten")
def _flatten(call: Call, x: Any) -> Any:
    axis = call.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"{call.place}: axis {axis} for a value of {x.ndim} dimensions")
    axis = axis + x.ndim if axis < 0 else axis
    return reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Squeeze")
def _squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    over = call.axes(axes, x.ndim)
    over = [i for i, d in enumerate(x.shape) if d == 1] if over is None else over
    if any(x.shape[a] != 1 for a in over):
        raise ValueError(f"axes {over} of shape {x.shape} are not all of size 1")
    return reshaped(x, [d for i, d in enumerate(x.shape) if i not in over])


@operator("Unsqueeze")
def _unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    count = len(call.get("axes") if axes is None else call.ints(axes, "axes"))
    over = call.axes(axes, x.ndim + count) or []
    if len(set(over)) != count:
        raise ValueError(f"{call.place}: axes {over} are not all different")
    rest = iter(x.shape)
    return reshaped(x, [1 if i in over else next(rest) for i in range(x.ndim + count)])


@operator("Transpose")
def _transpose(call: Call, x: Any) -> Any:
    return F.permute(x, tuple(call.get("perm") or range(x.ndim)[::-1]))


@operator("Identity")
def _identity(call: Call, x: Any) -> Any:
    return x


@operator("Cast", "CastLike")
def _cast(call: Call, x: Any, like: Any = None) -> Any:
    kind = call.get("to", 1) if like is None else 1 if like.dtype == "float32" else 0
    if kind not in (1, 10, 11) or getattr(x, "dtype", None) != "float32":
        raise ValueError(f"a cast of {x.dtype} (to={kind}); only floats to floats and constants are supported")
    return x


@operator("Shape", "Size")
def _shape(call: Call, x: Any) -> Any:
    call.raw = [np.broadcast_to(np.float32(0), x.shape)]
    return on_constants(call)


@operator("Concat")
def _concat(call: Call, *xs: Any) -> Any:
    return F.cat([x if isinstance(x, Symbol) else leaf(x) for x in xs], call.axis(call.get("axis"), xs[0].ndim))


@operator("Split")
def _split(call: Call, x: Any, sizes: Any = None) -> Any:
    axis = call.axis(call.get("axis", 0), len(x.shape))
    parts = call.get("split") if sizes is None else call.ints(sizes, "split")
    if parts is None:
        count = len(call.wanted)
        size = -(-x.shape[axis] // count)
        parts = [min(size, x.shape[axis] - i * size) for i in range(count)]
    if sum(parts) != x.shape[axis]:
        raise ValueError(f"parts {parts} of an axis of {x.shape[axis]}")
    starts = np.concatenate([[0], np.cumsum(parts)[:-1]])
    if isinstance(x, np.ndarray):
        return tuple(np.split(x, starts[1:], axis))
    return tuple(moves.narrow(x, axis, int(start), size) if size else None for start, size in zip(starts, parts))


def slices(call: Call, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> tuple:
    """One slice per dimension of x."""
    if starts is None:  # attributes until opset 9
        first, stop, over = call.get("starts"), call.get("ends"), call.get("axes")
        every = None
    else:
        first, stop = call.ints(starts, "starts"), call.ints(ends, "ends")
        over = None if axes is None else call.ints(axes, "axes")
        every = None if steps is None else call.ints(steps, "steps")
    over = list(range(len(first))) if over is None else over
    found = [slice(None)] * x.ndim
    for axis, begin, end, step in zip(over, first, stop, every or [1] * len(first)):
        size = x.shape[call.axis(axis, x.ndim)]
        if step > 0:
            begin, end = slice(begin, end, step).indices(size)[:2]
            found[axis] = slice(begin, end, step)
        else:
            begin = min(max(begin + size if begin < 0 else begin, 0), size - 1)
            end = min(max(end + size if end < 0 else end, -1), size - 1)
            found[axis] = slice(begin, end if end >= 0 else None, step)
    return tuple(found)


@operator("Slice")
def _slice(call: Call, x: Any, *parts: Any) -> Any:
    for axis, cut in enumerate(slices(call, x, *parts)):
        places = list(range(x.shape[axis]))[cut]
        if not places:
            raise ValueError(f"nothing is left of axis {axis} of shape {x.shape}")
        if len(places) != x.shape[axis] or places[0] != 0:
            x = x[(slice(None),) * axis + (cut,)] if cut.step in (None, 1) else picked(x, axis, places)
    return x


@operator("Gather")
def _gather(call: Call, x: Any, index: Any) -> Any:
    axis = call.axis(call.get("axis", 0), x.ndim)
    index = call.constant(index, "indices")
    check_length(index.size)
    if index.size and not (-x.shape[axis] <= index.min() and index.max() < x.shape[axis]):
        raise ValueError(f"an index is outside axis {axis} of shape {x.shape}")
    places = [int(i) % x.shape[axis] for i in index.reshape(-1)]
    return reshaped(picked(x, axis, places), (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@operator("Expand")
def _expand(call: Call, x: Any, shape: Any) -> Any:
    return F.expand(x, np.broadcast_shapes(x.shape, tuple(call.ints(shape, "shape"))))


@operator("Tile")
def _tile(call: Call, x: Any, repeats: Any) -> Any:
    for axis, count in enumerate(call.ints(repeats, "repeats")):
        check_length(count)
        x = F.cat([x] * count, axis) if count > 1 else x
    return x


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad")
def _pad(call: Call, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    given = call.get("pads") if pads is None else call.ints(pads, "pads")
    number = call.get("value", 0.0) if value is None else float(call.constant(value, "the value").reshape(()))
    over = range(x.ndim) if axes is None else [call.axis(a, x.ndim) for a in call.ints(axes, "axes")]
    before, after = [0] * x.ndim, [0] * x.ndim
    if len(given) != 2 * len(over):
        raise ValueError(f"{call.place}: {len(given)} pads for {len(over)} dimensions")
    for i, axis in enumerate(over):
        before[axis], after[axis] = given[i], given[i + len(given) // 2]
    mode = call.get("mode", "constant")
    if mode == "constant":
        return moves.pad(x, before, after, number)
    if mode not in _MODES:
        raise ValueError(f"mode={mode!r} is not supported, only constant, reflect, edge and wrap")
    for d, lo, hi in zip(x.shape, before, after):
        check_length(d + lo + hi)
    tables = tuple(windows.padding(d, lo, hi, _MODES[mode]) for d, lo, hi in zip(x.shape, before, after))
    return resampled(x, tables)


def resampled(x: Symbol, tables: tuple) -> Symbol:
    """x through one table (ops/windows.py) per dimension; leading dimensions that stay as they are cost nothing."""
    same = 0
    while same < x.ndim and tables[same] == tuple(((i, 1.0),) for i in range(x.shape[same])):
        same += 1
    if same == x.ndim:
        return x
    kept, rest = x.shape[:same], x.shape[same:]
    front = kept if len(kept) == 2 else (1, math.prod(kept))
    table = gather.separable(tuple(rest), tuple(tables[same:]))
    y = add_node(OPS["gather_sum"], [F.reshape(x, (*front, *rest))], table=table)
    return F.reshape(y, (*kept, *table.shape))


@operator("DepthToSpace")
def _depth_to_space(call: Call, x: Any) -> Any:
    (n, c, h, w), b = x.shape, call.need("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    y = F.permute(F.reshape(x, (n, b, b, c // (b * b), h, w)), (0, 3, 4, 1, 5, 2))
    return F.reshape(y, (n, c // (b * b), h * b, w * b))


@operator("SpaceToDepth")
def _space_to_depth(call: Call, x: Any) -> Any:
    (n, c, h, w), b = x.shape, call.need("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, b)
    y = F.permute(F.reshape(x, (n, c, h // b, b, w // b, b)), (0, 3, 5, 1, 2, 4))
    return F.reshape(y, (n, c * b * b, h // b, w // b))


@operator("CenterCropPad")
def _center_crop_pad(call: Call, x: Any, shape: Any) -> Any:
    sizes = call.ints(shape, "shape")
    before, after = [0] * x.ndim, [0] * x.ndim
    for axis, size in zip(call.axes(None, x.ndim) or range(x.ndim), sizes):
        more = size - x.shape[axis]
        before[axis] = more // 2 if more > 0 else -(-more // 2)
        after[axis] = more - before[axis]
    return moves.pad(x, before, after, 0.0)
