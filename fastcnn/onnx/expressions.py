"""What each fastcnn op is in ONNX: a function (writer, node, names of its inputs) -> name of its (first) output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.trace import Node, Symbol
from ..ops.shape import strides
from .writer import Writer

EXPRESSIONS: dict[str, Callable[..., str]] = {}


def expresses(op: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    def keep(function: Callable[..., str]) -> Callable[..., str]:
        EXPRESSIONS[op] = function
        return function

    return keep


_DIRECT = {
    "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "sqrt": "Sqrt", "log": "Log", "abs": "Abs",
}  # fmt: skip


@expresses("map")
def _map(w: Writer, node: Node, x: str) -> str:
    kind, alpha, beta = node.attrs["kind"], node.attrs["alpha"], node.attrs.get("beta", 0.0)
    if kind in _DIRECT:
        return w.node(_DIRECT[kind], x)
    if kind == "leaky_relu":
        return w.node("LeakyRelu", x, alpha=alpha)
    if kind == "elu":
        return w.node("Elu", x, alpha=alpha)
    if kind == "scale":
        return w.scaled(x, alpha)
    if kind == "shift":
        return w.node("Add", x, w.constant(alpha))
    if kind in ("clamp", "hardtanh"):
        return w.clip(x, alpha, beta)
    if kind == "square":
        return w.node("Mul", x, x)
    if kind == "silu":
        return w.node("Mul", x, w.node("Sigmoid", x))
    if kind in ("hardsigmoid", "hardswish"):
        if kind == "hardswish" and w.opset >= 14:
            return w.node("HardSwish", x)
        gate = w.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        return gate if kind == "hardsigmoid" else w.node("Mul", x, gate)
    if kind in ("gelu", "gelu_tanh"):
        return _gelu(w, x, kind == "gelu_tanh")
    if kind == "mish":
        return w.node("Mul", x, w.node("Tanh", w.node("Softplus", x)))
    if kind == "softplus":
        scaled = w.scaled(x, alpha)
        y = w.scaled(w.node("Softplus", scaled), 1 / alpha)
        if beta >= 15:  # from there on the two differ by less than a rounding
            return y
        return w.node("Where", w.node("Greater", scaled, w.constant(beta)), x, y)
    raise ValueError(f"onnx.export: activation {kind} of layer {node.label()} has no expression in ONNX")


def _gelu(w: Writer, x: str, tanh: bool) -> str:
    if w.opset >= 20:
        return w.node("Gelu", x, approximate="tanh" if tanh else "none")
    half = w.scaled(x, 0.5)
    if tanh:  # Hendrycks and Gimpel (2016)
        cube = w.scaled(w.node("Mul", x, w.node("Mul", x, x)), 0.044715)
        inner = w.node("Tanh", w.scaled(w.node("Add", x, cube), float(np.sqrt(2 / np.pi))))
    else:
        inner = w.node("Erf", w.scaled(x, float(np.sqrt(0.5))))
    return w.node("Mul", half, w.node("Add", inner, w.constant(1.0)))


@expresses("zip")
def _zip(w: Writer, node: Node, a: str, b: str) -> str:
    return w.node({"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}[node.attrs["kind"]], a, b)


@expresses("sum_all")
def _sum_all(w: Writer, node: Node, x: str) -> str:
    return w.scaled(w.node("ReduceSum", x, keepdims=0), node.attrs["alpha"])


@expresses("reduce_sum")
def _reduce_sum(w: Writer, node: Node, x: str) -> str:
    return w.scaled(w.reduce("ReduceSum", x, 1, keep=False), node.attrs["alpha"])


@expresses("reshape")
def _reshape(w: Writer, node: Node, x: str) -> str:
    return x if node.inputs[0].shape == node.outputs[0].shape else w.reshape(x, node.attrs["shape"])


@expresses("expand")
def _expand(w: Writer, node: Node, x: str) -> str:
    shape, have = node.attrs["shape"], node.inputs[0].shape
    if node.outputs[0].id in w.spread:
        return x  # Add, Sub, Mul and Div broadcast
    have = (1,) * (len(shape) - len(have)) + have
    return w.node("Expand", x, w.ints(*(1 if d == h else d for d, h in zip(shape, have))))


@expresses("cat")
def _cat(w: Writer, node: Node, *xs: str) -> str:
    return w.node("Concat", *xs, axis=node.attrs["dim"])


@expresses("narrow")
def _narrow(w: Writer, node: Node, x: str) -> str:
    start = node.attrs["start"]
    return w.slice(x, node.attrs["dim"], start, start + node.attrs["size"])


@expresses("strided_copy")
def _strided_copy(w: Writer, node: Node, x: str) -> str:
    """A transpose, a slice with steps, or padding and cropping: told apart by the strides."""
    a, shape = node.attrs, node.inputs[0].shape
    here, there = strides(shape), strides(a["shape"])
    whole = math.prod(a["sizes"]) == math.prod(shape)  # of (1, C, 1, 1), say, a transpose has these strides too
    if (
        list(a["x_strides"]) == here
        and list(a["y_strides"]) == there
        and (not whole or tuple(a["sizes"]) == tuple(shape))
    ):
        return _pad(w, x, shape, a, here, there)
    axes: list[int] = []
    for size, step in zip(a["sizes"], a["x_strides"]):
        fits = (k for k in range(len(shape)) if k not in axes and shape[k] == size and (size == 1 or here[k] == step))
        axes.append(next(fits, -1))
    if -1 not in axes:
        return w.node("Transpose", x, perm=axes)
    for axis, (step, size) in enumerate(zip(a["x_strides"], a["sizes"])):
        if step != here[axis]:
            start, every = a["x_start"] // here[axis], step // here[axis]
            return w.slice(x, axis, start, start + (size - 1) * every + 1, every)
    raise ValueError(f"onnx.export: a copy in layer {node.label()} has no expression in ONNX")


def _pad(w: Writer, x: str, shape: Any, a: dict, here: list[int], there: list[int]) -> str:
    first, at = a["x_start"], a["y_start"]
    before, after = [], []
    for axis, size in enumerate(a["sizes"]):
        (cut, first), (add, at) = divmod(first, here[axis]), divmod(at, there[axis])
        if size != shape[axis]:
            x = w.slice(x, axis, cut, cut + size)
        before.append(add)
        after.append(a["shape"][axis] - size - add)
    if not any(before + after):
        return x
    return w.node("Pad", x, w.ints(*before, *after), w.constant(a["value"]), mode="constant")


@expresses("conv2d")
def _conv2d(w: Writer, node: Node, *inputs: str) -> str:
    return w.node("Conv", *inputs, **_window(node.attrs), kernel_shape=list(node.inputs[1].shape[2:]))


@expresses("conv2d_data")
def _conv2d_data(w: Writer, node: Node, *inputs: str) -> str:
    a, x, weight = node.attrs, node.inputs[0], node.inputs[1]
    (top, bottom, left, right), more = a["pads"], []
    for i, pad in enumerate((top + bottom, left + right)):
        plain = (x.shape[2 + i] - 1) * a["stride"][i] - pad + a["dilation"][i] * (weight.shape[2 + i] - 1) + 1
        more.append(a["shape"][2 + i] - plain)
    return w.node(
        "ConvTranspose", *inputs, **_window(a), kernel_shape=list(weight.shape[2:]), output_padding=more
    )  # fmt: skip


def _window(a: dict) -> dict[str, Any]:
    top, bottom, left, right = a["pads"]
    return {
        "strides": list(a["stride"]),
        "pads": [top, left, bottom, right],
        "dilations": list(a["dilation"]),
        "group": a["groups"],
    }


@expresses("linear")
def _linear(w: Writer, node: Node, *inputs: str) -> str:
    return w.node("Gemm", *inputs, transB=1)


@expresses("matmul")
def _matmul(w: Writer, node: Node, a: str, b: str) -> str:
    return w.node("MatMul", a, b)


@expresses("softmax")
def _softmax(w: Writer, node: Node, x: str) -> str:
    return w.node("LogSoftmax" if node.attrs["log"] else "Softmax", x, axis=1)


@expresses("batch_norm")
def _batch_norm(w: Writer, node: Node, x: str, mean: str, var: str, *affine: str) -> str:
    channels = node.inputs[0].shape[1]
    weight, bias = affine or (w.constant(np.ones(channels)), w.constant(np.zeros(channels)))
    return w.node("BatchNormalization", x, weight, bias, mean, var, epsilon=node.attrs["eps"])


def _pool(w: Writer, kind: str, node: Any, x: str, **more: Any) -> str:
    """The windows that hang over the end (ceil_mode) as padding: rules for them differ from one runtime to another."""
    a, ends = node.attrs, []
    for i in (0, 1):
        span = (node.outputs[0].shape[2 + i] - 1) * a["stride"][i]
        reach = span + a.get("dilation", (1, 1))[i] * (a["kernel"][i] - 1) + 1
        ends.append(max(a["padding"][i], reach - a["padding"][i] - node.inputs[0].shape[2 + i]))
    pads = [*a["padding"], *ends]
    return w.node(kind, x, kernel_shape=list(a["kernel"]), strides=list(a["stride"]), pads=pads, **more)


@expresses("max_pool2d")
def _max_pool(w: Writer, node: Node, x: str) -> str:
    return _pool(w, "MaxPool", node, x, dilations=list(node.attrs["dilation"]))


@expresses("avg_pool2d")
def _avg_pool(w: Writer, node: Node, x: str) -> str:
    a = node.attrs
    if a["divisor"]:
        total = _pool(w, "AveragePool", node, x, count_include_pad=1)
        return w.scaled(total, float(np.prod(a["kernel"])) / a["divisor"])
    if a["count_include_pad"] and a["ceil_mode"]:  # what hangs over the end is not counted: two sums, one of ones
        ones = w.constant(np.ones((1, 1, *node.inputs[0].shape[2:])))
        ones = w.node("Pad", ones, w.ints(0, 0, *a["padding"], 0, 0, *a["padding"]), w.constant(1.0), mode="constant")
        bare = {**a, "padding": (0, 0)}
        padded = Symbol((1, 1, *(n + 2 * p for n, p in zip(node.inputs[0].shape[2:], a["padding"]))))
        count = _pool(w, "AveragePool", _Like(node, [padded], bare), ones, count_include_pad=1)
        return w.node("Div", _pool(w, "AveragePool", node, x, count_include_pad=1), count)
    return _pool(w, "AveragePool", node, x, count_include_pad=int(a["count_include_pad"]))


class _Like:
    """A node with other inputs and attributes."""

    def __init__(self, node: Node, inputs: list[Symbol], attrs: dict):
        self.inputs, self.outputs, self.attrs = inputs, node.outputs, attrs


@expresses("batch_moments")
def _batch_moments(w: Writer, node: Node, x: str) -> str:
    raise ValueError(
        f"onnx.export: layer {node.label()} normalises by the batch's own statistics (track_running_stats=False), "
        "which ONNX has only for training"
    )


@expresses("unfold_depth")
def _unfold_depth(w: Writer, node: Node, x: str) -> str:
    a, taps = node.attrs, []
    outs = node.outputs[0].shape[0] // node.inputs[0].shape[0]
    for k in range(a["kernel"]):
        start = k * a["dilation"]
        plane = w.slice(x, 2, start, start + (outs - 1) * a["stride"] + 1, a["stride"])
        taps.append(w.node("Unsqueeze", plane, w.ints(2)))
    stacked = w.node("Concat", *taps, axis=2) if len(taps) > 1 else taps[0]
    return w.reshape(w.node("Transpose", stacked, perm=[0, 3, 1, 2, 4, 5]), node.outputs[0].shape)


@expresses("fold_depth")
def _fold_depth(w: Writer, node: Node, x: str) -> str:
    """A transposed convolution over depth alone that puts every tap in its place."""
    a, (images, c, depth, h, width) = node.attrs, node.outputs[0].shape
    kernel, outs = a["kernel"], node.inputs[0].shape[0] // images
    taps = w.node("Transpose", w.reshape(x, (images, outs, c, kernel, h * width)), perm=[0, 2, 3, 1, 4])
    taps = w.reshape(taps, (images * c, kernel, outs, h * width))
    more = depth - ((outs - 1) * a["stride"] + a["dilation"] * (kernel - 1) + 1)
    y = w.node(
        "ConvTranspose",
        taps,
        w.constant(np.eye(kernel).reshape(kernel, 1, kernel, 1)),
        kernel_shape=[kernel, 1],
        strides=[a["stride"], 1],
        dilations=[a["dilation"], 1],
        output_padding=[more, 0],
    )
    return w.reshape(y, (images, c, depth, h, width))


@expresses("gather_sum")
def _gather_sum(w: Writer, node: Node, x: str) -> str:
    """Interpolation by Resize; any other separable table as a product with one matrix per axis."""
    table, shape = node.attrs["table"], node.inputs[0].shape
    resize = node.attrs.get("resize")
    if resize is not None and (name := _resize(w, x, shape[2:], table.shape, *resize)):
        return name
    rank = len(table.axes)
    for i, axis in enumerate(table.axes):
        matrix = np.zeros((len(axis), shape[2 + i]), np.float32)
        for row, taps in enumerate(axis):
            for column, weight in taps:
                matrix[row, column] += weight
        if matrix.shape[0] == matrix.shape[1] and (matrix == np.eye(len(matrix))).all():
            continue
        order = list(range(2 + rank))
        order[2 + i], order[-1] = order[-1], order[2 + i]
        turned = w.node("Transpose", x, perm=order) if i != rank - 1 else x
        turned = w.node("MatMul", turned, w.constant(matrix.T))
        x = w.node("Transpose", turned, perm=order) if i != rank - 1 else turned
    return x


def _resize(w: Writer, x: str, sizes: Any, outs: Any, mode: str, align_corners: bool, factors: Any) -> str | None:
    given = [None if align_corners else f for f in factors]  # corners are aligned whatever the factors are
    scales = np.array([f or out / size for f, out, size in zip(given, outs, sizes)], np.float32)
    for size, scale, out in zip(sizes, scales, outs):
        if {math.floor(np.float32(size) * scale), math.floor(size * float(scale))} != {out}:
            return None  # a float32 scale that loses a pixel, be it where products are float32 or float64
    where = "asymmetric" if mode == "nearest" else "align_corners" if align_corners else "half_pixel"
    how: dict[str, Any] = {"mode": "nearest", "nearest_mode": "floor"} if mode == "nearest" else {"mode": "linear"}
    return w.node("Resize", x, "", w.constant([1.0, 1.0, *scales]), coordinate_transformation_mode=where, **how)


@expresses("gather_max")
def _gather_max(w: Writer, node: Node, x: str) -> str:
    """Along each axis, the maximum of every window."""
    table, shape = node.attrs["table"], node.inputs[0].shape
    for i, axis in enumerate(table.axes):
        if [taps[0][0] for taps in axis if len(taps) == 1] == list(range(shape[2 + i])) == list(range(len(axis))):
            continue
        windows = []
        for taps in axis:
            if not taps:
                raise ValueError(f"onnx.export: a window of layer {node.label()} sees only padding")
            places = [index for index, _ in taps]
            step = places[1] - places[0] if len(places) > 1 else 1
            window = w.slice(x, 2 + i, places[0], places[-1] + 1, step)
            windows.append(w.reduce("ReduceMax", window, 2 + i))
        x = w.node("Concat", *windows, axis=2 + i)
    return x
