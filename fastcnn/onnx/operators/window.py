"""Convolutions and poolings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ...graph.trace import Symbol, add_node, leaf
from ...ops import OPS, gather
from ...ops import shape as moves
from ...ops.pool import output_size
from ...ops.windows import Axis
from .call import Call, check_length, operator
from .reduction import maximum

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Window:
    """kernel, stride, dilation, and padding at both ends of each spatial dimension, auto_pad and ceil_mode resolved."""

    def __init__(self, call: Call, sizes: tuple[int, ...], kernel: tuple[int, ...]):
        count = len(sizes)
        self.kernel, self.sizes = tuple(kernel), tuple(sizes)
        if len(kernel) != count or min(kernel, default=1) < 1:
            raise ValueError(f"kernel_shape {self.kernel} for {count} spatial dimensions")
        self.stride = call.numbers("strides", count, 1, 1)
        self.dilation = call.numbers("dilations", count, 1, 1)
        self.reach = tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, kernel))
        pads = call.numbers("pads", 2 * count, 0)
        self.before, self.after = tuple(pads[:count]), tuple(pads[count:])
        self.auto = call.get("auto_pad", "NOTSET")
        if self.auto in ("SAME_UPPER", "SAME_LOWER"):
            totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, s, r in zip(sizes, self.stride, self.reach)]
            small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
            self.before, self.after = (small, large) if self.auto == "SAME_UPPER" else (large, small)
        elif self.auto == "VALID":
            self.before = self.after = (0,) * count
        elif self.auto != "NOTSET":
            raise ValueError(f"auto_pad={self.auto!r} is none of NOTSET, SAME_UPPER, SAME_LOWER and VALID")
        self.ceil = bool(call.get("ceil_mode", 0))

    @property
    def symmetric(self) -> bool:
        return self.before == self.after

    def outs(self) -> tuple[int, ...]:
        out = []
        for n, lo, hi, r, s in zip(self.sizes, self.before, self.after, self.reach, self.stride):
            span = n + lo + hi - r
            count = (-(-span // s) if self.ceil else span // s) + 1
            if self.ceil and (count - 1) * s >= n + lo:
                count -= 1  # a last window must not start in the padding behind the end
            out.append(count)
        return tuple(out)

    def axes(self, average: bool, include_padding: bool) -> tuple[Axis, ...]:
        """Tables of ops/windows.py: the weights are 1, or one over what an average divides by."""
        found = []
        for i, count in enumerate(self.outs()):
            check_length(count * self.kernel[i], 1 << 24)
            axis = []
            for o in range(count):
                first = o * self.stride[i] - self.before[i]
                places = [first + k * self.dilation[i] for k in range(self.kernel[i])]
                inside = [p for p in places if 0 <= p < self.sizes[i]]
                counted = [p for p in places if p < self.sizes[i] + self.after[i]] if include_padding else inside
                axis.append(tuple((p, 1.0 / len(counted) if average else 1.0) for p in inside))
            found.append(tuple(axis))
        return tuple(found)


def _kernel(call: Call, weight: Any) -> tuple[int, ...]:
    kernel = tuple(weight.shape[2:])
    if tuple(call.get("kernel_shape") or kernel) != kernel:
        raise ValueError(f"kernel_shape {call.get('kernel_shape')} for a weight of shape {tuple(weight.shape)}")
    return kernel


@operator("Conv")
def _conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    count = x.ndim - 2
    if count not in _CONV:
        raise ValueError(f"input of shape {x.shape}: 1 to 3 spatial dimensions are supported")
    window = Window(call, x.shape[2:], _kernel(call, weight))
    pads = window.before
    if not window.symmetric:
        x, pads = moves.pad(x, (0, 0, *window.before), (0, 0, *window.after), 0.0), (0,) * count
    return _CONV[count](x, weight, bias, window.stride, pads, window.dilation, call.get("group", 1))


@operator("ConvTranspose")
def _conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    count = x.ndim - 2
    if count not in _TRANSPOSED:
        raise ValueError(f"input of shape {x.shape}: 1 to 3 spatial dimensions are supported")
    window = Window(call, x.shape[2:], _kernel(call, weight))
    more = call.numbers("output_padding", count, 0)
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], window.stride, window.reach)]
    shape = call.get("output_shape")
    if shape is None and window.auto in ("SAME_UPPER", "SAME_LOWER"):
        shape = [n * s for n, s in zip(x.shape[2:], window.stride)]
    before, after = list(window.before), list(window.after)
    if shape is not None:
        if len(shape) < count:
            raise ValueError(f"output_shape {shape} for {count} spatial dimensions")
        for i in range(count):
            total = full[i] + more[i] - shape[-count:][i]
            small, large = total // 2, total - total // 2
            before[i], after[i] = (small, large) if window.auto == "SAME_UPPER" else (large, small)
    steps = (window.stride, 0, 0, call.get("group", 1), window.dilation)
    late = bias is not None and any(m > a for m, a in zip(more, after))  # what is padded gets the bias too
    y = _TRANSPOSED[count](x, weight, None if late else bias, *steps)
    y = moves.pad(y, (0, 0, *(-b for b in before)), (0, 0, *(m - a for m, a in zip(more, after))), 0.0)
    return y + F.reshape(bias, (1, bias.shape[0], *[1] * count)) if late else y


@operator("MaxPool")
def _max_pool(call: Call, x: Any) -> Any:
    if any(call.wanted[1:]):
        raise ValueError("the output Indices is not supported")
    window = Window(call, x.shape[2:], tuple(call.need("kernel_shape")))
    if min(window.outs()) < 1:
        raise ValueError(f"input {window.sizes} is smaller than the window {window.kernel}")
    if len(window.sizes) != 2:
        return add_node(OPS["gather_max"], [x], table=gather.separable(window.sizes, window.axes(False, False)))[0]
    steps = (window.stride, window.before, window.dilation)
    plain = all(2 * b <= k for b, k in zip(window.before, window.kernel))
    if plain and tuple(map(output_size, window.sizes, window.kernel, *steps, (False, False))) == window.outs():
        return F.max_pool2d(x, window.kernel, *steps)
    ends = [  # what the last window reaches, be it padding or beyond
        max(0, (out - 1) * s + r - n - b)
        for out, s, r, n, b in zip(window.outs(), window.stride, window.reach, window.sizes, window.before)
    ]
    x = moves.pad(x, (0, 0, *window.before), (0, 0, *ends), -math.inf)
    return F.max_pool2d(x, window.kernel, window.stride, 0, window.dilation)


@operator("AveragePool", "LpPool")
def _average_pool(call: Call, x: Any) -> Any:
    window = Window(call, x.shape[2:], tuple(call.need("kernel_shape")))
    if call.kind == "LpPool":
        p = float(call.get("p", 2))
        return F.pow(_summed(F.pow(F.abs(x), p), window, False, False), 1 / p)
    counted = bool(call.get("count_include_pad", 0))
    fits = len(window.sizes) == 2 and window.symmetric and not window.ceil and set(window.dilation) == {1}
    if fits and all(2 * b <= k for b, k in zip(window.before, window.kernel)):
        return F.avg_pool2d(x, window.kernel, window.stride, window.before, False, counted)
    return _summed(x, window, True, counted)


def _summed(x: Symbol, window: Window, average: bool, counted: bool) -> Symbol:
    if min(window.outs()) < 1:
        raise ValueError(f"input {window.sizes} is smaller than the window {window.kernel}")
    return add_node(OPS["gather_sum"], [x], table=gather.separable(window.sizes, window.axes(average, counted)))


@operator("GlobalAveragePool")
def _global_average(call: Call, x: Any) -> Any:
    return F.adaptive_avg_pool2d(x, 1) if x.ndim == 4 else F.mean(x, tuple(range(2, x.ndim)), True)


@operator("GlobalMaxPool")
def _global_max(call: Call, x: Any) -> Any:
    return maximum(x, list(range(2, x.ndim)))


@operator("GlobalLpPool")
def _global_lp(call: Call, x: Any) -> Any:
    p = float(call.get("p", 2))
    return F.pow(moves.reduce_sum(F.pow(F.abs(x), p), range(2, x.ndim)), 1 / p)


@operator("MaxUnpool")
def _max_unpool(call: Call, x: Any, indices: Any, shape: Any = None) -> Any:
    """ONNX counts positions over the whole output; those of one plane are that less where the plane begins."""
    window = Window(call, x.shape[2:], tuple(call.need("kernel_shape")))
    flat = call.constant(indices, "the indices")
    usual = [
        (n - 1) * s + k - lo - hi
        for n, s, k, lo, hi in zip(window.sizes, window.stride, window.kernel, window.before, window.after)
    ]
    plane = math.prod(usual)
    places = flat % plane
    if (flat // plane != np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * len(usual))).any():
        raise ValueError("an index lies in another plane than its value")
    y = add_node(OPS["scatter"], [x, leaf(places)], spatial=tuple(usual))
    if shape is None:
        return y
    target = call.ints(shape, "output_shape")[2:]  # the positions keep their meaning in the usual shape
    return moves.pad(y, [0] * y.ndim, [0, 0, *(t - u for t, u in zip(target, usual))], 0.0)
