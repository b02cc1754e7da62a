"""Ops that move values without changing them: reshape, transpose, pad."""

from __future__ import annotations

import numpy as np

from ..graph.lower import LANES_N, PLAIN, dims4
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
        same_images = len(x.shape) > 1 and len(y.shape) > 1 and dims4(x.shape)[0] == dims4(y.shape)[0]
        layout = LANES_N if LANES_N in b.layouts(x) and same_images else PLAIN
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
            b.emit(
                "fill",
                target.floats,
                y=target.at(),
                n=1,
                c=1,
                h=1,
                len=target.floats,
                y_n=0,
                y_c=0,
                y_h=0,
                value=a["value"],
            )
        lead = 6 - len(a["sizes"])
        table = np.array(
            [[1] * lead + list(a["sizes"]), [0] * lead + list(a["x_strides"]), [0] * lead + list(a["y_strides"])],
            np.int64,
        )
        b.emit(
            "strided_copy", target.floats, x=x.at(a["x_start"]), y=target.at(a["y_start"]), table=b.constant(table).at()
        )
        if target is not y:
            b.copy(target, y)


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
