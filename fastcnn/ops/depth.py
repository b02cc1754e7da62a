"""Slices of depth as channels, and back: what makes two-dimensional convolutions three-dimensional."""

from __future__ import annotations

from ..graph.lower import PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float
from .shape import emit_fill, emit_strided


def unfold_depth(x, kernel, stride, dilation):
    """x (N, C, D, H, W) as (N*DO, C*kernel, H, W): image n*DO + o has the slices o*stride + k*dilation of image n."""
    return add_node(OPS["unfold_depth"], [x], kernel=kernel, stride=stride, dilation=dilation)


def fold_depth(x, images, kernel, stride, dilation, depth):
    """The adjoint: x (images * DO, C * kernel, H, W) added up into (images, C, depth, H, W)."""
    c, (h, w) = x.shape[1] // kernel, x.shape[2:]
    attrs = dict(kernel=kernel, stride=stride, dilation=dilation)
    return add_node(OPS["fold_depth"], [x], shape=(images, c, depth, h, w), **attrs)


def _strides(shape, images, outs, attrs):
    """(sizes, strides in the volume, strides in the slices) over (image, slice, channel, pixel) of one tap, and how far
    the next tap is in both."""
    _, c, d, h, w = shape
    plane, kernel = h * w, attrs["kernel"]
    sizes = (images, outs, c, plane)
    volume = (c * d * plane, attrs["stride"] * plane, d * plane, 1)
    slices = (outs * c * kernel * plane, c * kernel * plane, kernel * plane, 1)
    return sizes, volume, slices, attrs["dilation"] * plane, plane


class UnfoldDepth(Op):
    name = "unfold_depth"

    def infer(self, inputs, attrs):
        check_float("conv3d", "input", inputs[0])
        n, c, d, h, w = inputs[0].shape
        outs = (d - attrs["dilation"] * (attrs["kernel"] - 1) - 1) // attrs["stride"] + 1
        return [((n * outs, c * attrs["kernel"], h, w), "float32")]

    def grad(self, node, douts, needs):
        return [add_node(OPS["fold_depth"], [douts[0]], shape=node.inputs[0].shape, **node.attrs)]

    def lower(self, node, b):
        x, y = b.get(node.inputs[0], PLAIN, dense=True), b.out(node.outputs[0], PLAIN)
        dense = y if y.dense else b.new(y.shape)
        images, attrs = x.shape[0], node.attrs
        sizes, volume, slices, deeper, next_tap = _strides(x.shape, images, y.shape[0] // images, attrs)
        for k in range(attrs["kernel"]):
            emit_strided(b, x.at(k * deeper), dense.at(k * next_tap), sizes, volume, slices)
        if dense is not y:
            b.copy(dense, y)

    def cases(self):
        return [
            ([(2, 3, 5, 2, 3)], {"kernel": 3, "stride": 1, "dilation": 1}),
            ([(1, 2, 7, 3, 1)], {"kernel": 2, "stride": 2, "dilation": 3}),
        ]


class FoldDepth(Op):
    name = "fold_depth"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def grad(self, node, douts, needs):
        attrs = {k: node.attrs[k] for k in ("kernel", "stride", "dilation")}
        return [add_node(OPS["unfold_depth"], [douts[0]], **attrs)]

    def lower(self, node, b):
        x, y = b.get(node.inputs[0], PLAIN, dense=True), b.out(node.outputs[0], PLAIN)
        dense = y if y.dense else b.new(y.shape)
        images, attrs = y.shape[0], node.attrs
        sizes, volume, slices, deeper, next_tap = _strides(y.shape, images, x.shape[0] // images, attrs)
        emit_fill(b, dense, 0.0)
        for k in range(attrs["kernel"]):
            emit_strided(b, x.at(k * next_tap), dense.at(k * deeper), sizes, slices, volume, accumulate=True)
        if dense is not y:
            b.copy(dense, y)
