"""Ops that move values without changing them: reshape, transpose, pad, slice, expand, cat."""

from __future__ import annotations

import numpy as np

from ..graph.lower import LANES_C, LANES_N, PLAIN, dims4
from ..graph.trace import add_node
from .base import OPS, Op, check_float


class Reshape(Op):
    """attrs shape. No bytes move where the layout allows it."""

    name = "reshape"

    def infer(self, inputs, attrs):
        if int(np.prod(attrs["shape"], dtype=object)) != inputs[0].size:
            raise ValueError(f"reshape: cannot make shape {attrs['shape']} of {inputs[0].shape}")
        return [(attrs["shape"], inputs[0].dtype)]

    def grad(self, node, douts, needs):
        return [add_node(OPS["reshape"], [douts[0]], shape=node.inputs[0].shape)]

    def lower(self, node, b):
        x, y = node.inputs[0], node.outputs[0]
        old, new = (dims4(s.shape) if len(s.shape) > 1 else (0, 0) for s in (x, y))
        layout = PLAIN
        if LANES_N in b.layouts(x) and old[0] == new[0] != 0:
            layout = LANES_N
        elif LANES_C in b.layouts(x) and old[:2] == new[:2] != (0, 0):
            layout = LANES_C
        b.alias(y, b.get(x, layout, dense=True))

    def cases(self):
        return [
            ([(2, 3, 4, 5)], {"shape": (2, 60)}),
            ([(17, 6, 2, 2)], {"shape": (17, 24)}),
            ([(4, 6)], {"shape": (3, 8)}),
        ]


class StridedCopy(Op):
    """attrs shape, and sizes, x_strides, y_strides, x_start, y_start in elements of the plain arrays; the rest of y is
    `value` (where `filled`). transpose, pad and slice are cases of it."""

    name = "strided_copy"

    def infer(self, inputs, attrs):
        check_float("strided_copy", "input", inputs[0])
        return [(attrs["shape"], "float32")]

    def grad(self, node, douts, needs):
        a = node.attrs
        return [
            add_node(
                OPS["strided_copy"],
                [douts[0]],
                shape=node.inputs[0].shape,
                sizes=a["sizes"],
                x_strides=a["y_strides"],
                y_strides=a["x_strides"],
                x_start=a["y_start"],
                y_start=a["x_start"],
                filled=int(np.prod(a["sizes"])) != node.inputs[0].size,
                value=0.0,
            )
        ]

    def lower(self, node, b):
        a = node.attrs
        x = b.get(node.inputs[0], PLAIN, dense=True)
        y = b.out(node.outputs[0], PLAIN)
        target = y if y.dense else b.new(node.outputs[0].shape)
        if a["filled"]:
            emit_fill(b, target, a["value"])
        emit_strided(b, x.at(a["x_start"]), target.at(a["y_start"]), a["sizes"], a["x_strides"], a["y_strides"])
        if target is not y:
            b.copy(target, y)


def emit_fill(b, target, value):
    """Fill a dense value."""
    size = target.floats
    b.emit("fill", size, y=target.at(), n=1, c=1, h=1, len=size, y_n=0, y_c=0, y_h=0, value=value)


def emit_strided(b, x, y, sizes, x_strides, y_strides, accumulate=False):
    lead = 6 - len(sizes)
    table = [[1] * lead + list(sizes), [0] * lead + list(x_strides), [0] * lead + list(y_strides)]
    constant = b.constant(np.array(table, np.int64))
    work = float(np.prod(sizes, dtype=object))
    b.emit("strided_copy", work, x=x, y=y, table=constant.at(), accumulate=int(accumulate))


class Expand(Op):
    """x repeated along its dimensions of size 1 (and new leading ones) to attrs shape, NumPy's broadcasting."""

    name = "expand"

    def infer(self, inputs, attrs):
        check_float("expand", "input", inputs[0])
        x, shape = inputs[0].shape, attrs["shape"]
        if len(x) > len(shape) or any(d not in (1, s) for d, s in zip(x[::-1], shape[::-1])):
            raise ValueError(f"expand: shape {x} cannot be broadcast to {shape}")
        if len(shape) > 6:
            raise ValueError(f"expand: at most 6 dimensions, got {shape}")
        return [(shape, "float32")]

    def grad(self, node, douts, needs):
        x, shape = node.inputs[0].shape, node.attrs["shape"]
        lead = len(shape) - len(x)
        axes = tuple(range(lead)) + tuple(lead + i for i, d in enumerate(x) if d != shape[lead + i])
        return [add_node(OPS["reshape"], [reduce_sum(douts[0], axes)], shape=x)]

    def lower(self, node, b):
        x, y = node.inputs[0], node.outputs[0]
        lead = len(y.shape) - len(x.shape)
        blocked = [k for k in b.layouts(x) if k in (LANES_C, LANES_N)]
        if blocked and lead == 0 and x.ndim == 4 and x.shape[:2] == y.shape[:2] and x.shape[2:] == (1, 1):
            source, target = b.get(x, blocked[0], dense=True), b.out(y, blocked[0])  # a channel's number to its pixels
            sizes = (source.n, source.c, target.h, target.w, source.lanes)
            steps = (source.sn, source.sc, 0, 0, 1), (target.sn, target.sc, target.sh, target.lanes, 1)
            return emit_strided(b, source.at(), target.at(), sizes, *steps)
        source, target = b.get(x, PLAIN, dense=True), b.out(y, PLAIN)
        dense = target if target.dense else b.new(y.shape)
        step = [0] * lead + [0 if d == 1 else s for d, s in zip(x.shape, strides(x.shape))]
        emit_strided(b, source.at(), dense.at(), y.shape, step, strides(y.shape))
        if dense is not target:
            b.copy(dense, target)

    def cases(self):
        return [
            ([(3, 1)], {"shape": (2, 3, 4)}),
            ([(2, 17, 1, 1)], {"shape": (2, 17, 3, 5)}),
            ([(17, 3, 1, 2)], {"shape": (17, 3, 4, 2)}),
        ]


class ReduceSum(Op):
    """alpha times the sum over one dimension of x[outer][count][inner]: (outer, inner)."""

    name = "reduce_sum"

    def infer(self, inputs, attrs):
        check_float("sum", "input", inputs[0])
        outer, _, inner = inputs[0].shape
        return [((outer, inner), "float32")]

    def grad(self, node, douts, needs):
        outer, count, inner = node.inputs[0].shape
        dy = add_node(OPS["map"], [douts[0]], kind="scale", alpha=node.attrs["alpha"])
        dy = add_node(OPS["reshape"], [dy], shape=(outer, 1, inner))
        return [add_node(OPS["expand"], [dy], shape=(outer, count, inner))]

    def lower(self, node, b):
        outer, count, inner = node.inputs[0].shape
        x, y = b.get(node.inputs[0], PLAIN, dense=True), b.out(node.outputs[0], PLAIN)
        b.emit(
            "reduce_sum",
            x.floats,
            x=x.at(),
            y=y.at(),
            outer=outer,
            count=count,
            inner=inner,
            alpha=node.attrs["alpha"],
        )

    def cases(self):
        return [([s], {"alpha": a}) for s in [(1, 1, 1), (3, 300, 1), (2, 5, 17), (1, 1000, 9)] for a in (1.0, 0.3)]


def reduce_sum(x, axes, alpha=1.0):
    """alpha times the sum over these dimensions, which are kept with size 1."""
    shape = list(x.shape)
    runs: list[list[int]] = []
    for axis in sorted(axes):  # neighbours are summed at once
        if runs and runs[-1][-1] == axis - 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    if not runs:
        return add_node(OPS["map"], [x], kind="scale", alpha=alpha) if alpha != 1 else x
    for run in runs:
        outer, count = int(np.prod(shape[: run[0]])), int(np.prod(shape[run[0] : run[-1] + 1]))
        x = add_node(OPS["reshape"], [x], shape=(outer, count, int(np.prod(shape[run[-1] + 1 :]))))
        x = add_node(OPS["reduce_sum"], [x], alpha=alpha)
        alpha = 1.0
        for axis in run:
            shape[axis] = 1
    return add_node(OPS["reshape"], [x], shape=tuple(shape))


class Cat(Op):
    """The inputs one after the other along attrs dim."""

    name = "cat"

    def infer(self, inputs, attrs):
        dim, first = attrs["dim"], inputs[0]
        for i, x in enumerate(inputs):
            check_float("cat", f"tensor {i}", x)
            rest = [s.shape[:dim] + s.shape[dim + 1 :] for s in (first, x)]
            if x.ndim != first.ndim or rest[0] != rest[1]:
                raise ValueError(f"cat: tensors 0 {first.shape} and {i} {x.shape} differ in more than dimension {dim}")
        size = sum(x.shape[dim] for x in inputs)
        return [((*first.shape[:dim], size, *first.shape[dim + 1 :]), "float32")]

    def grad(self, node, douts, needs):
        dim, at, grads = node.attrs["dim"], 0, []
        for x, need in zip(node.inputs, needs):
            grads.append(narrow(douts[0], dim, at, x.shape[dim]) if need else None)
            at += x.shape[dim]
        return grads

    def lower(self, node, b):
        dim, y = node.attrs["dim"], node.outputs[0]
        sizes = [x.shape[dim] for x in node.inputs]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        layout = LANES_C if y.id in b.wholes else channel_layout(b, node.inputs[0], dim, starts)
        if layout == LANES_C:  # the inputs that do not lie there yet go there
            target = b.stored.setdefault(y.id, {})[layout] = b.whole(y)
            for x, start in zip(node.inputs, starts):
                source, place = b.get(x, layout), target.cut(x.shape, start // b.vw)
                if not source.same_place(place):
                    copy_rows(b, source, place, 0, 0)
            return
        target = b.out(y, layout)
        if layout == LANES_N:
            for x, start in zip(node.inputs, starts):
                copy_rows(b, b.get(x, layout), target, 0, start)
            return
        dense = target if target.dense else b.new(y.shape)
        outer, inner = int(np.prod(y.shape[:dim])), int(np.prod(y.shape[dim + 1 :]))
        sources = [b.get(x, PLAIN, dense=True) for x in node.inputs]  # first, so that only copies write the whole
        for source, start, size in zip(sources, starts, sizes):
            steps = (size * inner, 1), (y.shape[dim] * inner, 1)
            emit_strided(b, source.at(), dense.at(start * inner), (outer, size * inner), *steps)
        if dense is not target:
            b.copy(dense, target)

    def cases(self):
        return [
            ([(2, 16, 3, 4), (2, 32, 3, 4), (2, 5, 3, 4)], {"dim": 1}),
            ([(17, 3, 2, 2), (17, 4, 2, 2)], {"dim": 1}),
            ([(2, 3, 5), (2, 4, 5)], {"dim": 1}),
            ([(2, 3, 4, 2), (2, 3, 4, 5)], {"dim": 3}),
            ([(4,), (1,)], {"dim": 0}),
        ]


class Narrow(Op):
    """attrs size elements along attrs dim, from attrs start."""

    name = "narrow"

    def infer(self, inputs, attrs):
        dim, start, size = attrs["dim"], attrs["start"], attrs["size"]
        check_float("narrow", "input", inputs[0])
        shape = inputs[0].shape
        if not 0 <= start < start + size <= shape[dim]:
            raise ValueError(f"narrow: [{start}, {start + size}) is empty or outside dimension {dim} of shape {shape}")
        return [((*shape[:dim], size, *shape[dim + 1 :]), "float32")]

    def grad(self, node, douts, needs):
        dim, x = node.attrs["dim"], node.inputs[0]
        before, after = [0] * x.ndim, [0] * x.ndim
        before[dim] = node.attrs["start"]
        after[dim] = x.shape[dim] - node.attrs["start"] - node.attrs["size"]
        return [pad(douts[0], before, after, 0.0)]

    def lower(self, node, b):
        (dim, start, size), x, y = (node.attrs[k] for k in ("dim", "start", "size")), node.inputs[0], node.outputs[0]
        ends = [start] if start + size == x.shape[dim] else [start, start + size]
        layout = channel_layout(b, x, dim, ends)
        if layout == LANES_C:  # read where it lies
            b.stored[y.id] = {layout: b.get(x, layout).cut(y.shape, start // b.vw)}
            return None
        if layout == LANES_N:
            return copy_rows(b, b.get(x, layout), b.out(y, layout), start, 0)
        source, target = b.get(x, PLAIN, dense=True), b.out(y, PLAIN)
        dense = target if target.dense else b.new(y.shape)
        outer, inner = int(np.prod(y.shape[:dim])), int(np.prod(y.shape[dim + 1 :]))
        steps = (x.shape[dim] * inner, 1), (size * inner, 1)
        emit_strided(b, source.at(start * inner), dense.at(), (outer, size * inner), *steps)
        if dense is not target:
            b.copy(dense, target)

    def cases(self):
        return [
            ([(2, 48, 3, 4)], {"dim": 1, "start": 16, "size": 16}),
            ([(2, 21, 3, 4)], {"dim": 1, "start": 16, "size": 5}),
            ([(2, 21, 3, 4)], {"dim": 1, "start": 3, "size": 7}),
            ([(17, 5, 2, 2)], {"dim": 1, "start": 1, "size": 3}),
            ([(3, 4, 5)], {"dim": 2, "start": 4, "size": 1}),
        ]


def narrow(x, dim, start, size):
    return add_node(OPS["narrow"], [x], dim=dim, start=start, size=size)


def channel_layout(b, symbol, dim, starts):
    """The blocked layout in which channels can be cut at `starts`, where the symbol is in one; else plain."""
    if dim != 1 or symbol.ndim < 3:
        return PLAIN
    have = b.layouts(symbol)
    if LANES_N in have:
        return LANES_N
    return LANES_C if LANES_C in have and all(s % b.vw == 0 for s in starts) else PLAIN


def copy_rows(b, source, target, from_channel, to_channel):
    """As many channels (or blocks) as both have left, from and to these."""
    channels = min(source.c - from_channel, target.c - to_channel)
    b.emit(
        "copy",
        float(source.n * channels * source.h * source.w * source.lanes),
        x=source.at(from_channel * source.sc),
        y=target.at(to_channel * target.sc),
        n=source.n,
        c=channels,
        h=source.h,
        len=source.w * source.lanes,
        **source.strides("x"),
        **target.strides("y"),
    )


def strides(shape) -> list[int]:
    """C-order strides in elements."""
    out, step = [], 1
    for d in reversed(shape):
        out.append(step)
        step *= d
    return out[::-1]


def transpose(x, axes):
    """x with its dimensions in the order `axes`."""
    if sorted(axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {tuple(axes)} are not a permutation of {x.ndim} dimensions")
    if x.ndim > 6:
        raise ValueError(f"transpose: at most 6 dimensions, got shape {x.shape}")
    shape = tuple(x.shape[a] for a in axes)
    step = strides(x.shape)
    return add_node(
        OPS["strided_copy"],
        [x],
        shape=shape,
        sizes=shape,
        x_strides=tuple(step[a] for a in axes),
        y_strides=tuple(strides(shape)),
        x_start=0,
        y_start=0,
        filled=False,
        value=0.0,
    )


def pad(x, before, after, value):
    """x with `before`/`after` elements of `value` around each dimension (negative: cropped)."""
    if x.ndim > 6:
        raise ValueError(f"pad: at most 6 dimensions, got shape {x.shape}")
    shape = tuple(d + lo + hi for d, lo, hi in zip(x.shape, before, after))
    sizes = tuple(d + min(lo, 0) + min(hi, 0) for d, lo, hi in zip(x.shape, before, after))
    if min(sizes, default=1) < 1:
        raise ValueError(f"pad: nothing is left of shape {x.shape} after padding {tuple(zip(before, after))}")
    xs, ys = strides(x.shape), strides(shape)
    return add_node(
        OPS["strided_copy"],
        [x],
        shape=shape,
        sizes=sizes,
        x_strides=tuple(xs),
        y_strides=tuple(ys),
        x_start=sum(-min(lo, 0) * s for lo, s in zip(before, xs)),
        y_start=sum(max(lo, 0) * s for lo, s in zip(before, ys)),
        filled=shape != sizes,
        value=float(value),
    )


def getitem(x, index):
    """x[index] for ints, slices with positive steps, Ellipsis and None."""
    items = list(index) if isinstance(index, tuple) else [index]
    given = sum(1 for item in items if item is not None and item is not Ellipsis)
    if items.count(Ellipsis) > 1 or given > x.ndim:
        raise IndexError(f"index {index!r} is for more than the {x.ndim} dimensions of shape {x.shape}")
    if Ellipsis not in items:
        items.append(Ellipsis)
    at = items.index(Ellipsis)
    items[at : at + 1] = [slice(None)] * (x.ndim - given)
    shape, dim = [], 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        size = x.shape[dim]
        if isinstance(item, slice):
            start, stop, step = item.indices(size)
            if step < 1:
                raise ValueError(f"index {index!r}: steps must be positive")
            count = max(0, -(-(stop - start) // step))
            shape.append(count)
        elif hasattr(item, "__index__") and not isinstance(item, bool):
            start, step, count = item.__index__(), 1, 1
            if not -size <= start < size:
                raise IndexError(f"index {start} is out of range for dimension {dim} of size {size}")
            start %= size
        else:
            raise TypeError(f"a traced value is indexed with ints, slices, ... and None, not {type(item).__name__}")
        if count == 0:
            raise ValueError(f"index {index!r} leaves nothing of shape {x.shape}")
        if step == 1 and count != size:
            x = narrow(x, dim, start, count)
        elif step > 1:
            x = _every(x, dim, start, count, step)
        dim += 1
    return add_node(OPS["reshape"], [x], shape=tuple(shape))


def _every(x, dim, start, count, step):
    shape = (*x.shape[:dim], count, *x.shape[dim + 1 :])
    x_strides = strides(x.shape)
    return add_node(
        OPS["strided_copy"],
        [x],
        shape=shape,
        sizes=shape,
        x_strides=tuple(s * step if i == dim else s for i, s in enumerate(x_strides)),
        y_strides=tuple(strides(shape)),
        x_start=start * x_strides[dim],
        y_start=0,
        filled=False,
        value=0.0,
    )
