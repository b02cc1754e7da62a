"""Two-dimensional convolution and its gradients."""

from __future__ import annotations

from .. import _core
from ..graph.lower import LANES_C, LANES_N, NO_HALO, PLAIN
from ..graph.trace import add_node
from . import conv_lanes_c, conv_lanes_n, conv_pixels, winograd, winograd_n, winograd_planar
from .base import OPS, Op, check_float, check_rank
from .geometry import alone, frame, geometry, planar


def _lowering(b):
    return conv_lanes_n if b.layout == LANES_N else conv_lanes_c


def _frame(layout, g, halo, planar=False, direct=False):
    """What Op.halo says of the first input: Winograd's kernels of lanes_n want no frame."""
    if layout == LANES_N and winograd_n.choose_side(g) and not direct:
        return {}
    return {0: frame(layout, planar, halo)}


def _x_halo(layout, g, weight=False):
    if layout == LANES_C:
        vw = _core.isa()["vw"]
        return NO_HALO if winograd_planar.choose(vw, g, weight) else winograd.x_halo(alone(vw, g) or g)
    return g.x_halo()


class Conv2d(Op):
    """inputs x[n][c][h][w], weight[o][c/groups][kh][kw], optionally bias[o].

    The passes may add attrs act (1: ReLU), add (True: a last input, added before act), pool (True: a 2x2 max pooling
    too; outputs are max_pool2d's) and kept (True: the weights are those of many runs).
    """

    name = "conv2d"

    def infer(self, inputs, attrs):
        x, w = inputs[:2]
        for argument, symbol in zip(("input", "weight", "bias"), inputs):
            check_float("conv2d", argument, symbol)
        check_rank("conv2d", "input", x, 4, "(N, C, H, W)")
        check_rank("conv2d", "weight", w, 4, "(out, in/groups, kh, kw)")
        groups = attrs["groups"]
        if groups < 1 or w.shape[0] % groups:
            raise ValueError(f"conv2d: groups={groups} must divide the {w.shape[0]} output channels")
        if x.shape[1] != w.shape[1] * groups:
            raise ValueError(
                f"conv2d: input has {x.shape[1]} channels (shape {x.shape}), expected "
                f"{w.shape[1] * groups} (weight {w.shape}, groups={groups})"
            )
        if len(inputs) > 2 and inputs[2].shape != (w.shape[0],):
            raise ValueError(f"conv2d: bias must have shape ({w.shape[0]},), got {inputs[2].shape}")
        if min(w.shape) < 1:
            raise ValueError(f"conv2d: weight has an empty dimension: {w.shape}")
        g = geometry(x.shape, w.shape, attrs)
        if g.oh < 1 or g.ow < 1:
            raise ValueError(
                f"conv2d: input {x.shape[2]}x{x.shape[3]} with padding {attrs['pads']} is smaller than "
                f"the kernel {w.shape[2]}x{w.shape[3]} with dilation {attrs['dilation']}"
            )
        return [((g.n, g.o, g.oh, g.ow), "float32")]

    def grad(self, node, douts, needs):
        x, w = node.inputs[:2]
        attrs, dy = node.attrs, douts[0]
        base = {k: attrs[k] for k in ("stride", "pads", "dilation", "groups")}
        return [
            add_node(OPS["conv2d_data"], [dy, w], shape=x.shape, **base) if needs[0] else None,
            add_node(OPS["conv2d_weight"], [x, dy], shape=w.shape, **base) if needs[1] else None,
            add_node(OPS["channel_sum"], [dy]) if needs[2:3] == [True] else None,
        ]

    def halo(self, node, layout):
        g = geometry(node.inputs[0].shape, node.inputs[1].shape, node.attrs)
        return _frame(layout, g, _x_halo(layout, g), planar(g))

    def pools(self, node, layout, vw, places) -> bool:
        """Whether the kernel can take 2x2 maxima of the result in the same pass. places: with where they are."""
        g = geometry(node.inputs[0].shape, node.inputs[1].shape, node.attrs)
        if layout == LANES_N:
            return winograd_n.pools(g)
        alone = not places and not node.attrs.get("add")
        return winograd.pools(vw, g, node.attrs.get("kept", False)) or (alone and conv_pixels.fits(vw, g, pool=True))

    def lower(self, node, b):
        g = geometry(node.inputs[0].shape, node.inputs[1].shape, node.attrs)
        x = b.get(node.inputs[0], PLAIN if b.layout == LANES_C and planar(g) else b.layout)
        w = b.get(node.inputs[1], PLAIN, dense=True)
        rest = node.inputs[2:]
        add = b.get(rest.pop(), LANES_C) if node.attrs.get("add") else None
        bias = b.get(rest[0], PLAIN, dense=True) if rest else None
        y, act, pool = b.out(node.outputs[0], b.layout), node.attrs.get("act", 0), None
        if node.attrs.get("pool"):
            pool = (b.out(node.outputs[1], b.layout) if node.outputs[1].id in b.used else None,)
        if b.layout == LANES_N:
            conv_lanes_n.lower_forward(b, g, x, w, bias, y, act, pool)
        else:
            conv_lanes_c.lower_forward(b, g, x, w, bias, add, y, act, pool, node.attrs.get("kept", False))

    def cases(self):
        base = dict(stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1)
        out = []
        for n, c, h, w, o, k, change in [
            (1, 1, 7, 8, 1, 3, {}),
            (2, 3, 9, 7, 17, 3, {"pads": (1, 1, 1, 1)}),
            (5, 16, 6, 6, 33, 1, {}),
            (3, 15, 8, 9, 8, 5, {"pads": (2, 2, 2, 2)}),
            (17, 2, 8, 8, 7, 3, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
            (2, 9, 11, 12, 6, 3, {"dilation": (2, 3), "pads": (2, 1, 0, 3)}),
            (2, 12, 7, 7, 18, 3, {"groups": 3, "pads": (1, 1, 1, 1)}),
            (3, 20, 6, 5, 20, 3, {"groups": 20, "pads": (1, 1, 1, 1)}),
            (2, 17, 9, 23, 17, 3, {"groups": 17, "stride": (2, 2), "pads": (1, 1, 1, 1)}),
            (2, 16, 11, 12, 16, 5, {"groups": 16, "dilation": (2, 1), "pads": (2, 4, 2, 3)}),
            (3, 9, 8, 19, 9, 4, {"groups": 9, "stride": (1, 3)}),
            (2, 20, 9, 17, 1, 3, {}),
            (2, 17, 6, 13, 2, 5, {"pads": (2, 2, 2, 2)}),
            (3, 9, 7, 10, 3, 3, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
            (2, 33, 5, 9, 4, 1, {}),
            (2, 32, 6, 6, 64, 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
            (1, 3, 23, 23, 10, 7, {"stride": (2, 2), "pads": (3, 3, 3, 3)}),
            (2, 8, 10, 9, 16, 2, {"stride": (3, 3)}),
            (2, 5, 12, 13, 4, 3, {"stride": (3, 2), "dilation": (2, 2), "pads": (0, 3, 2, 1)}),
            (33, 4, 5, 5, 6, 3, {}),
            (2, 4, 5, 6, 3, 1, {"stride": (2, 2)}),
            (2, 6, 9, 17, 18, 5, {"pads": (1, 1, 0, 2)}),
            (1, 3, 25, 41, 10, 7, {"stride": (4, 4), "pads": (1, 1, 1, 1)}),
            (2, 1, 27, 42, 9, 11, {"stride": (8, 8)}),
            (1, 2, 35, 70, 6, 5, {"stride": (16, 16)}),
            (2, 3, 9, 11, 50, 3, {"pads": (1, 1, 1, 1)}),
            (2, 6, 9, 30, 6, 5, {"groups": 6, "stride": (1, 2), "pads": (2, 2, 2, 2)}),
            (2, 9, 8, 14, 9, 2, {"groups": 9, "stride": (2, 1)}),
            (1, 5, 9, 15, 5, 7, {"groups": 5, "pads": (3, 3, 3, 3)}),
            (5, 72, 22, 22, 56, 1, {}),
        ]:
            for bias in ((o,), None):
                shapes = [(n, c, h, w), (o, c // change.get("groups", 1), k, k)] + ([bias] if bias else [])
                out.append((shapes, {**base, **change}))
        return out


class Conv2dData(Op):
    """dx from dy and weight; attrs shape is x's: also the transposed convolution.

    With attrs bias, a third input that is added to each channel of dx; with attrs add, one that is added to dx itself;
    with attrs mask, a last one: dx is kept where it is > 0.
    """

    name = "conv2d_data"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def halo(self, node, layout):
        g = geometry(node.attrs["shape"], node.inputs[1].shape, node.attrs)
        return _frame(layout, g, g.dy_halo(), direct=bool(node.attrs.get("bias")))

    def lower(self, node, b):
        g = geometry(node.attrs["shape"], node.inputs[1].shape, node.attrs)
        a = node.attrs
        dy = b.get(node.inputs[0], b.layout)
        w = b.get(node.inputs[1], PLAIN, dense=True)
        bias = b.get(node.inputs[2], PLAIN, dense=True) if a.get("bias") else None
        mask = b.get(node.inputs[-1], b.layout) if a.get("mask") else None
        dx = b.out(node.outputs[0], b.layout)
        if b.layout == LANES_N:
            return conv_lanes_n.lower_data(b, g, dy, w, bias, mask, dx)
        add = b.get(node.inputs[3 if a.get("bias") else 2], LANES_C) if a.get("add") else None
        conv_lanes_c.lower_data(b, g, dy, w, bias, add, mask, dx)

    def grad(self, node, douts, needs):
        base = {k: node.attrs[k] for k in ("stride", "pads", "dilation", "groups")}
        g, w = douts[0], node.inputs[1]
        return [
            add_node(OPS["conv2d"], [g, w], **base) if needs[0] else None,
            add_node(OPS["conv2d_weight"], [g, node.inputs[0]], shape=w.shape, **base) if needs[1] else None,
            add_node(OPS["channel_sum"], [g]) if needs[2:3] == [True] else None,
        ]


class Conv2dWeight(Op):
    """dweight from x and dy; attrs shape is weight's.

    With attrs pooled, dy is that of the result's 2x2 maxima and a third input has their places (lanes_n only).
    """

    name = "conv2d_weight"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def halo(self, node, layout):
        g = geometry(node.inputs[0].shape, node.attrs["shape"], node.attrs)
        return _frame(layout, g, _x_halo(layout, g, weight=True), planar(g))

    def lower(self, node, b):
        g = geometry(node.inputs[0].shape, node.attrs["shape"], node.attrs)
        x = b.get(node.inputs[0], PLAIN if b.layout == LANES_C and planar(g) else b.layout)
        dy, dw = b.get(node.inputs[1], b.layout), b.out(node.outputs[0], PLAIN)
        if node.attrs.get("pooled"):
            return conv_lanes_n.lower_weight(b, g, x, dy, dw, b.get(node.inputs[2], LANES_N))
        _lowering(b).lower_weight(b, g, x, dy, dw)

    def takes_pooled(self, node) -> bool:
        """Whether the lanes_n kernel can do with the gradient of 2x2 maxima and their places."""
        return conv_lanes_n.takes_pooled(geometry(node.inputs[0].shape, node.attrs["shape"], node.attrs))


class ChannelSum(Op):
    """Sum over everything but the channels (dimension 1): the bias gradient."""

    name = "channel_sum"

    def infer(self, inputs, attrs):
        return [((inputs[0].shape[1],), "float32")]

    def lower(self, node, b):
        layout = next((k for k in b.layouts(node.inputs[0]) if k in (LANES_C, LANES_N)), b.layout)
        dy = b.get(node.inputs[0], layout)
        db = b.out(node.outputs[0], PLAIN)
        b.emit(
            f"sum_{layout}",
            dy.floats,
            dy=dy.at(),
            db=db.at(),
            channels=dy.channels,
            n=dy.n,
            h=dy.h,
            w=dy.w,
            **dy.strides("y"),
        )
