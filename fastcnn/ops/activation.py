"""Elementwise functions of one array: the map kernel and its gradient from the output."""

from __future__ import annotations

from ..graph.lower import PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float

# In the order of fastcnn.h: the gradient of the first ones is computed from the output, of the others from the input.
FROM_OUTPUT = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "exp", "scale", "shift", "sqrt")
FROM_INPUT = (
    "clamp", "hardtanh", "hardsigmoid", "hardswish", "silu", "gelu", "gelu_tanh", "softplus", "mish", "log", "abs",
    "square", "erf",
)  # fmt: skip
KINDS = FROM_OUTPUT + FROM_INPUT


def existing(b, symbol) -> str:
    """The layout of an elementwise op: where its input lies already."""
    have = [k for k in b.layouts(symbol) if " " not in k]
    return b.layout if b.layout in have else have[0]


def _layout(b, symbol, kind) -> str:
    """As `existing`, but where a 0 in a padding lane would give an infinity or NaN there, plain."""
    return PLAIN if kind in ("log", "sqrt") else existing(b, symbol)


def _numbers(attrs):
    return dict(kind=KINDS.index(attrs["kind"]), alpha=attrs["alpha"], beta=attrs.get("beta", 0.0))


class Map(Op):
    """attrs kind (of KINDS), alpha, and for some kinds beta; straight: the gradient passes unchanged."""

    name = "map"

    def infer(self, inputs, attrs):
        check_float(attrs["kind"], "input", inputs[0])
        return [(inputs[0].shape, "float32")]

    def grad(self, node, douts, needs):
        kind, alpha = node.attrs["kind"], node.attrs["alpha"]
        if kind == "shift" or node.attrs.get("straight"):
            return [douts[0]]
        if kind == "scale":
            return [add_node(OPS["map"], [douts[0]], kind="scale", alpha=alpha)]
        turned = kind == "leaky_relu" and alpha < 0  # the signs of input and output differ; the formula is the same
        saved = node.outputs[0] if kind in FROM_OUTPUT and not turned else node.inputs[0]
        return [add_node(OPS["map_bwd"], [saved, douts[0]], **node.attrs)]

    def lower(self, node, b):
        x = b.get(node.inputs[0], _layout(b, node.inputs[0], node.attrs["kind"]))
        y = b.out(node.outputs[0], x.layout)
        emit_rows(b, "map", {"x": x, "y": y}, **_numbers(node.attrs))

    def cases(self):
        alphas = {"leaky_relu": 0.01, "elu": 1.3, "scale": -2.5, "shift": 0.75, "clamp": -0.5, "hardtanh": -1.0}
        betas = {"clamp": 0.8, "hardtanh": 1.5, "softplus": 3.0}
        alphas["softplus"] = 2.0
        return [
            ([shape], {"kind": kind, "alpha": alphas.get(kind, 0.0), "beta": betas.get(kind, 0.0)})
            for kind in KINDS
            for shape in [(1,), (3, 17), (2, 5, 3, 7)]
        ]


class MapBwd(Op):
    """dx from dy and the output y or, for the kinds of FROM_INPUT, the input x."""

    name = "map_bwd"

    def infer(self, inputs, attrs):
        return [(inputs[1].shape, "float32")]

    def lower(self, node, b):
        dy = b.get(node.inputs[1], _layout(b, node.inputs[1], node.attrs["kind"]))
        saved = b.get(node.inputs[0], dy.layout)
        dx = b.out(node.outputs[0], dy.layout)
        emit_rows(
            b,
            "map_bwd",
            {"s": saved, "y": dy, "x": dx},
            names={"s": "s", "y": "dy", "x": "dx"},
            **_numbers(node.attrs),
        )

    def grad(self, node, douts, needs):
        flat = ("relu", "leaky_relu", "clamp", "hardtanh", "hardsigmoid", "abs")  # f'' is 0
        if needs[0] and node.attrs["kind"] not in flat:
            raise NotImplementedError(f"{node.attrs['kind']}: no second derivative")
        return [None, add_node(OPS["map_bwd"], [node.inputs[0], douts[0]], **node.attrs) if needs[1] else None]


def emit_rows(b, kernel, storages, names=None, **fields):
    """Emit an elementwise kernel over the rows that all storages share; strides are named by the keys."""
    values = list(storages.values())
    if all(s.dense for s in values):
        n, c, h, length = values[0].rows()
    else:
        first = values[0]
        n, c, h, length = first.n, first.c, first.h, first.w * first.lanes
    for key, storage in storages.items():
        fields[(names or {}).get(key, key)] = storage.at()
        fields.update(storage.strides(key))
    b.emit(kernel, values[0].floats * 2.0, n=n, c=c, h=h, len=length, **fields)
