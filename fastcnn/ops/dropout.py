"""Inverted dropout with counter-based random numbers."""

from __future__ import annotations

from ..graph.lower import LANES_C, LANES_N, PLAIN
from ..graph.trace import add_node
from .activation import existing
from .base import OPS, Op, check_float


class Dropout(Op):
    """attrs p and stream, which tells the dropouts of one program apart. Its gradient is itself on dy."""

    name = "dropout"

    def infer(self, inputs, attrs):
        check_float("dropout", "input", inputs[0])
        return [(inputs[0].shape, "float32")]

    def grad(self, node, douts, needs):
        stream = node.id if node.attrs["stream"] is None else node.attrs["stream"]
        node.attrs = {**node.attrs, "stream": stream}
        return [add_node(OPS["dropout"], [douts[0]], p=node.attrs["p"], stream=stream)]

    def lower(self, node, b):
        stream = node.id if node.attrs["stream"] is None else node.attrs["stream"]
        x = b.get(node.inputs[0], existing(b, node.inputs[0]))
        y = b.out(node.outputs[0], x.layout)
        b.emit(
            "dropout",
            x.floats * 8.0,
            x=x.at(),
            y=y.at(),
            seed=b.seed.at(),
            n=x.images,
            c=x.channels,
            h=x.h,
            w=x.w,
            **x.strides("x"),
            **y.strides("y"),
            layout=(PLAIN, LANES_C, LANES_N).index(x.layout),
            stream=b.stream(stream),
            p=node.attrs["p"],
        )
