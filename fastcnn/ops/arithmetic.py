"""Sums, products and reductions of arrays and numbers."""

from __future__ import annotations

import numbers

import numpy as np

from ..graph.lower import PLAIN
from ..graph.trace import Symbol, add_node, leaf
from .activation import emit_rows, existing
from .base import OPS, Op, check_float

KINDS = ("add", "sub", "mul", "div")  # in the order of fastcnn.h


def arithmetic(kind: str, a, b):
    """a op b for symbols (NumPy's broadcasting), or a symbol and a number, in either order."""
    if isinstance(a, Symbol) and isinstance(b, numbers.Real):
        value = float(b)
        if kind in ("add", "sub"):
            return add_node(OPS["map"], [a], kind="shift", alpha=value if kind == "add" else -value)
        if kind == "div" and value == 0:
            raise ZeroDivisionError("division of a traced value by 0")
        return add_node(OPS["map"], [a], kind="scale", alpha=value if kind == "mul" else 1 / value)
    if isinstance(b, Symbol) and isinstance(a, numbers.Real):
        if kind == "sub":
            return arithmetic("add", arithmetic("mul", b, -1.0), a)
        if kind != "div":
            return arithmetic(kind, b, a)
        a = np.full(b.shape, a, np.float32)
    symbols = [s if isinstance(s, Symbol) else leaf(s) for s in (a, b)]
    return add_node(OPS["zip"], broadcast(kind, *symbols), kind=kind)


def broadcast(op: str, *symbols: Symbol) -> list[Symbol]:
    """Symbols of one shape, by NumPy's rule."""
    if len({s.shape for s in symbols}) == 1:
        return list(symbols)
    try:
        shape = np.broadcast_shapes(*(s.shape for s in symbols))
    except ValueError:
        shapes = " and ".join(str(s.shape) for s in symbols)
        raise ValueError(f"{op}: shapes {shapes} cannot be broadcast together") from None
    return [s if s.shape == shape else add_node(OPS["expand"], [s], shape=shape) for s in symbols]


class Zip(Op):
    """a op b, attrs kind."""

    name = "zip"

    def infer(self, inputs, attrs):
        a, b = inputs
        for argument, symbol in zip(("first operand", "second operand"), inputs):
            check_float(attrs["kind"], argument, symbol)
        if a.shape != b.shape:
            raise ValueError(f"{attrs['kind']}: shapes {a.shape} and {b.shape} differ")
        return [(a.shape, "float32")]

    def grad(self, node, douts, needs):
        (a, b), dy = node.inputs, douts[0]
        kind = node.attrs["kind"]
        if kind == "add":
            return [dy, dy]
        if kind == "sub":
            return [dy, arithmetic("mul", dy, -1.0) if needs[1] else None]
        if kind == "mul":
            return [arithmetic("mul", dy, b) if needs[0] else None, arithmetic("mul", dy, a) if needs[1] else None]
        da = arithmetic("div", dy, b)
        return [da, arithmetic("mul", arithmetic("mul", da, node.outputs[0]), -1.0) if needs[1] else None]

    def lower(self, node, b):
        # a quotient is taken plain: padding lanes may hold 0 / 0
        layout = PLAIN if node.attrs["kind"] == "div" else existing(b, node.inputs[0])
        first, second = (b.get(s, layout) for s in node.inputs)
        emit_rows(
            b,
            "zip",
            {"a": first, "b": second, "y": b.out(node.outputs[0], layout)},
            kind=KINDS.index(node.attrs["kind"]),
        )

    def cases(self):
        return [([shape, shape], {"kind": kind}) for kind in KINDS for shape in [(1,), (5, 9), (2, 3, 5, 4)]]


class SumAll(Op):
    """alpha times the sum of all elements, a scalar."""

    name = "sum_all"

    def infer(self, inputs, attrs):
        check_float("sum", "input", inputs[0])
        return [((), "float32")]

    def grad(self, node, douts, needs):
        return [add_node(OPS["fill_like"], [douts[0]], shape=node.inputs[0].shape, alpha=node.attrs["alpha"])]

    def lower(self, node, b):
        x = b.get(node.inputs[0], PLAIN, dense=True)
        b.emit("sum_all", 1.0, x=x.at(), y=b.out(node.outputs[0], PLAIN).at(), size=x.floats, alpha=node.attrs["alpha"])

    def cases(self):
        return [([shape], {"alpha": alpha}) for shape in [(1,), (4097,), (3, 5, 7, 2)] for alpha in (1.0, 0.25)]


class FillLike(Op):
    """An array of `shape` filled with alpha times a scalar."""

    name = "fill_like"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def grad(self, node, douts, needs):
        return [add_node(OPS["sum_all"], [douts[0]], alpha=node.attrs["alpha"])]

    def lower(self, node, b):
        s = b.get(node.inputs[0], PLAIN)
        y = b.out(node.outputs[0], PLAIN)
        y_dense = y if y.dense else b.new(node.outputs[0].shape)
        b.emit("scale_by", y.floats, x=None, s=s.at(), y=y_dense.at(), size=y_dense.floats, alpha=node.attrs["alpha"])
        if y_dense is not y:
            b.copy(y_dense, y)


class ScaleBy(Op):
    """An array times a scalar symbol."""

    name = "scale_by"

    def infer(self, inputs, attrs):
        return [(inputs[0].shape, "float32")]

    def lower(self, node, b):
        layout = existing(b, node.inputs[0])
        x, s = b.get(node.inputs[0], layout, dense=True), b.get(node.inputs[1], PLAIN)
        y = b.out(node.outputs[0], layout)
        y_dense = y if y.dense else b.new(node.outputs[0].shape, layout)
        b.emit("scale_by", x.floats, x=x.at(), s=s.at(), y=y_dense.at(), size=x.floats, alpha=1.0)
        if y_dense is not y:
            b.copy(y_dense, y)
