"""Elementwise functions of one array: the map kernel and its gradient from the output."""

from __future__ import annotations

from ..graph.trace import add_node
from .base import OPS, Op, check_float

KINDS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "exp", "scale", "shift")  # in the order of fastcnn.h


def existing(b, symbol) -> str:
    """The layout of an elementwise op: where its input lies already."""
    have = [k for k in b.layouts(symbol) if " " not in k]
    return b.layout if b.layout in have else have[0]


class Map(Op):
    """attrs kind (of KINDS), alpha."""

    name = "map"

    def infer(self, inputs, attrs):
        check_float(attrs["kind"], "input", inputs[0])
        return [(inputs[0].shape, "float32")]

    def grad(self, node, douts, needs):
        kind, alpha = node.attrs["kind"], node.attrs["alpha"]
        if kind == "shift":
            return [douts[0]]
        if kind == "scale":
            return [add_node(OPS["map"], [douts[0]], kind="scale", alpha=alpha)]
        return [add_node(OPS["map_bwd"], [node.outputs[0], douts[0]], kind=kind, alpha=alpha)]

    def lower(self, node, b):
        x = b.get(node.inputs[0], existing(b, node.inputs[0]))
        y = b.out(node.outputs[0], x.layout)
        emit_rows(b, "map", {"x": x, "y": y}, kind=KINDS.index(node.attrs["kind"]), alpha=node.attrs["alpha"])

    def cases(self):
        alphas = {"leaky_relu": 0.01, "elu": 1.3, "scale": -2.5, "shift": 0.75}
        return [
            ([shape], {"kind": kind, "alpha": alphas.get(kind, 0.0)})
            for kind in KINDS
            for shape in [(1,), (3, 17), (2, 5, 3, 7)]
        ]


class MapBwd(Op):
    """dx from the output y and dy."""

    name = "map_bwd"

    def infer(self, inputs, attrs):
        return [(inputs[1].shape, "float32")]

    def lower(self, node, b):
        dy = b.get(node.inputs[1], existing(b, node.inputs[1]))
        saved = b.get(node.inputs[0], dy.layout)
        dx = b.out(node.outputs[0], dy.layout)
        emit_rows(
            b,
            "map_bwd",
            {"s": saved, "y": dy, "x": dx},
            names={"s": "s", "y": "dy", "x": "dx"},
            kind=KINDS.index(node.attrs["kind"]),
            alpha=node.attrs["alpha"],
        )

    def grad(self, node, douts, needs):
        if needs[0] and node.attrs["kind"] not in ("relu", "leaky_relu"):
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
