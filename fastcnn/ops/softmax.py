"""Softmax and its logarithm along one dimension."""

from __future__ import annotations

import numpy as np

from ..graph.lower import LANES_N
from ..graph.trace import add_node
from .base import OPS, Op, check_float


class Softmax(Op):
    """Over dimension 1 of a 3-d value (outer, c, inner); attrs log. functional.softmax brings any array there."""

    name = "softmax"

    def infer(self, inputs, attrs):
        check_float("softmax", "input", inputs[0])
        return [(inputs[0].shape, "float32")]

    def grad(self, node, douts, needs):
        return [add_node(OPS["softmax_bwd"], [node.outputs[0], douts[0]], log=node.attrs["log"])]

    def lower(self, node, b):
        x = b.get(node.inputs[0], LANES_N, dense=True)
        y = b.out(node.outputs[0], LANES_N)
        b.emit(
            "softmax", x.floats * 8.0, x=x.at(), y=y.at(), n=x.n, c=x.c, inner=x.sc // b.vw, log=int(node.attrs["log"])
        )

    def cases(self):
        return [
            ([shape], {"log": log})
            for log in (False, True)
            for shape in [(1, 1, 1), (3, 10, 1), (17, 5, 3), (64, 10, 1), (2, 33, 7)]
        ]


class SoftmaxBwd(Op):
    name = "softmax_bwd"

    def infer(self, inputs, attrs):
        return [(inputs[0].shape, "float32")]

    def lower(self, node, b):
        y, dy = (b.get(s, LANES_N, dense=True) for s in node.inputs)
        dx = b.out(node.outputs[0], LANES_N)
        b.emit(
            "softmax_bwd",
            y.floats * 8.0,
            y=y.at(),
            dy=dy.at(),
            dx=dx.at(),
            n=y.n,
            c=y.c,
            inner=y.sc // b.vw,
            log=int(node.attrs["log"]),
        )


def split(shape, dim) -> tuple[int, int, int]:
    """(outer, size, inner) around a dimension."""
    return (int(np.prod(shape[:dim])), shape[dim], int(np.prod(shape[dim + 1 :])))
