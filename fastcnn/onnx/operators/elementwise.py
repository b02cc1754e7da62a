"""Operators that compute each element by itself."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ... import functional as F
from ...graph.trace import Symbol, leaf
from ...ops.arithmetic import broadcast
from .call import OPERATORS, Call, operator
from .shape import reshaped

_PLAIN = {
    "Abs": F.abs, "Erf": F.erf, "Exp": F.exp, "HardSwish": F.hardswish, "Log": F.log, "Mish": F.mish,
    "Neg": lambda x: -x, "Reciprocal": lambda x: 1.0 / x, "Relu": F.relu, "Sigmoid": F.sigmoid,
    "Softplus": lambda x: F.softplus(x, 1.0, 88.0), "Softsign": F.softsign, "Sqrt": F.sqrt, "Tanh": F.tanh,
}  # fmt: skip


def _of_one(function: Any) -> Any:
    return lambda call, x: function(x)


OPERATORS.update({name: _of_one(function) for name, function in _PLAIN.items()})


@operator("Add", "Sub", "Mul", "Div")
def _arithmetic(call: Call, a: Any, b: Any) -> Any:
    a, b = (float(v) if isinstance(v, np.ndarray) and v.shape == () else v for v in (a, b))
    if call.opset < 7 and call.get("broadcast", 0) and call.get("axis") is not None:
        b = reshaped(b, (*b.shape, *[1] * (a.ndim - call.axis(call.get("axis"), a.ndim) - b.ndim)))
    if call.kind == "Add":
        return a + b
    if call.kind == "Sub":
        return a - b
    return a * b if call.kind == "Mul" else a / (leaf(b) if isinstance(b, np.ndarray) else b)


@operator("Sum", "Mean")
def _sum(call: Call, *xs: Any) -> Any:
    total = functools.reduce(lambda a, b: a + b, xs)
    return total / len(xs) if call.kind == "Mean" else total


@operator("Max", "Min")
def _extreme(call: Call, *xs: Any) -> Any:
    """As a maximum over a window of len(xs), which is exact."""
    if len(xs) == 1:
        return xs[0]
    symbols = broadcast(call.kind, *(x if isinstance(x, Symbol) else leaf(x) for x in xs))
    sign = 1.0 if call.kind == "Max" else -1.0
    rows = F.cat([F.reshape(s * sign, (1, 1, 1, s.size)) for s in symbols], 2)
    return F.reshape(F.max_pool2d(rows, (len(xs), 1)), symbols[0].shape) * sign


@operator("Pow")
def _pow(call: Call, x: Any, exponent: Any) -> Any:
    values = np.unique(call.constant(exponent, "the exponent"))
    if len(values) != 1:
        raise ValueError(f"{call.place}: exponents that differ from element to element are not supported")
    return F.pow(x, float(values[0]))


@operator("Clip")
def _clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    bounds = [call.get("min", -math.inf), call.get("max", math.inf)]
    for i, bound in enumerate((low, high)):
        if bound is not None:
            bounds[i] = float(call.constant(bound, "a bound").reshape(()))
    if bounds[0] > bounds[1]:  # everything becomes the upper one
        bounds[0] = bounds[1]
    return x if bounds == [-math.inf, math.inf] else F.clamp(x, *bounds)


@operator("LeakyRelu")
def _leaky_relu(call: Call, x: Any) -> Any:
    return F.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def _prelu(call: Call, x: Any, slope: Any) -> Any:
    if call.opset < 7 and x.ndim > 1 and slope.shape == (x.shape[1],):
        slope = F.reshape(slope, (slope.size, *[1] * (x.ndim - 2)))
    if x.ndim > 1 and slope.size in (1, x.shape[1]) and slope.shape[len(slope.shape) - x.ndim + 2 :] in (
        (1,) * (x.ndim - 2), slope.shape[:0],
    ) and len(slope.shape) == x.ndim - 1:  # fmt: skip
        return F.prelu(x, F.reshape(slope, (slope.size,)))
    positive = F.relu(x)
    return positive + slope * (x - positive)


@operator("Elu")
def _elu(call: Call, x: Any) -> Any:
    return F.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def _celu(call: Call, x: Any) -> Any:
    alpha = call.get("alpha", 1.0)
    return F.elu(x / alpha, 1.0) * alpha


@operator("Selu")
def _selu(call: Call, x: Any) -> Any:
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return F.elu(x, alpha) * gamma


@operator("HardSigmoid")
def _hard_sigmoid(call: Call, x: Any) -> Any:
    return F.clamp(x * call.get("alpha", 0.2) + call.get("beta", 0.5), 0.0, 1.0)


@operator("Gelu")
def _gelu(call: Call, x: Any) -> Any:
    return F.gelu(x, call.get("approximate", "none"))


@operator("Swish")
def _swish(call: Call, x: Any) -> Any:
    return x * F.sigmoid(x * call.get("alpha", 1.0))


@operator("Softmax", "LogSoftmax")
def _softmax(call: Call, x: Any) -> Any:
    function = F.softmax if call.kind == "Softmax" else F.log_softmax
    axis = call.axis(call.get("axis", -1 if call.opset >= 13 else 1), x.ndim)
    if call.opset >= 13:
        return function(x, axis)
    flat = F.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))  # over all that follows the axis
    return F.reshape(function(flat, 1), x.shape)


@operator("Dropout")
def _dropout(call: Call, x: Any, ratio: Any = None, training: Any = None) -> Any:
    p = call.get("ratio", 0.5) if ratio is None else float(call.constant(ratio, "ratio").reshape(()))
    if training is not None and bool(call.constant(training, "training_mode").reshape(())) and p and not call.training:
        raise ValueError(f"{call.place}: training_mode in the file is not supported; use model.train()")
    if call.wanted[1:] == [True] and call.training and p:
        raise ValueError(f"{call.place}: the mask as an output is not supported in training")
    y = F.dropout(x, p, call.training) if call.training and p else x
    return y, np.ones(x.shape, np.bool_)
