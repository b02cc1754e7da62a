"""Activations: functions of each element, and softmax."""

from __future__ import annotations

import math

from ..graph.trace import add_node
from ..ops import OPS
from ..ops.softmax import split
from .call import dimension, operation


def map_(x, kind, alpha=0.0, beta=0.0):
    return add_node(OPS["map"], [x], kind=kind, alpha=float(alpha), beta=float(beta))


@operation("x")
def relu(x):
    """max(x, 0); NaN stays NaN."""
    return map_(x, "relu")


@operation("x")
def leaky_relu(x, negative_slope=0.01):
    """x where positive, else negative_slope * x."""
    if negative_slope != negative_slope:
        raise ValueError("leaky_relu: negative_slope must be a number, got nan")
    return map_(x, "leaky_relu", negative_slope)


@operation("x")
def elu(x, alpha=1.0):
    """x where positive, else alpha * (exp(x) - 1)."""
    if alpha != alpha:
        raise ValueError("elu: alpha must be a number, got nan")
    if alpha < 0:  # the sign of the output does not tell that of x, which the gradient of "elu" relies on
        return map_(x, "relu") + map_(map_(x, "clamp", -math.inf, 0.0), "elu", 1.0) * alpha
    return map_(x, "elu", alpha)


@operation("x")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return map_(x, "sigmoid")


@operation("x")
def tanh(x):
    """Hyperbolic tangent."""
    return map_(x, "tanh")


def _softmax(x, dim, log):
    outer, size, inner = split(x.shape, dimension("log_softmax" if log else "softmax", dim, x.ndim))
    flat = add_node(OPS["reshape"], [x], shape=(outer, size, inner))
    return add_node(OPS["reshape"], [add_node(OPS["softmax"], [flat], log=log)], shape=x.shape)


@operation("x")
def softmax(x, dim):
    """exp(x) divided by its sum along dim."""
    return _softmax(x, dim, False)


@operation("x")
def log_softmax(x, dim):
    """Logarithm of softmax, without its overflow."""
    return _softmax(x, dim, True)


@operation("x")
def relu6(x):
    """min(max(x, 0), 6)."""
    return map_(x, "hardtanh", 0, 6)


@operation("x")
def hardtanh(x, min_val=-1.0, max_val=1.0):
    """x between min_val and max_val, else the nearer one (where the gradient is 0)."""
    if not min_val < max_val:
        raise ValueError(f"hardtanh: max_val ({max_val}) must be larger than min_val ({min_val})")
    return map_(x, "hardtanh", min_val, max_val)


@operation("x")
def clamp(x, min=None, max=None):
    """x between min and max (None: no bound), else the nearer one."""
    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    return map_(x, "clamp", -math.inf if min is None else min, math.inf if max is None else max)


@operation("x")
def hardsigmoid(x):
    """min(max(x + 3, 0), 6) / 6."""
    return map_(x, "hardsigmoid")


@operation("x")
def hardswish(x):
    """x * hardsigmoid(x) (Howard et al., 2019)."""
    return map_(x, "hardswish")


@operation("x")
def silu(x):
    """x * sigmoid(x)."""
    return map_(x, "silu")


@operation("x")
def gelu(x, approximate="none"):
    """x * Phi(x), Phi the normal distribution function, or their formula with tanh (Hendrycks and Gimpel, 2016)."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f'gelu: approximate must be "none" or "tanh", got {approximate!r}')
    return map_(x, "gelu" if approximate == "none" else "gelu_tanh")


@operation("x")
def mish(x):
    """x * tanh(softplus(x)) (Misra, 2019)."""
    return map_(x, "mish")


@operation("x")
def selu(x):
    """scale * elu(x, alpha) with the constants that keep mean 0 and variance 1 (Klambauer et al., 2017)."""
    return map_(map_(x, "elu", 1.6732632423543772), "scale", 1.0507009873554805)


@operation("x")
def softplus(x, beta=1.0, threshold=20.0):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""
    if not beta > 0:
        raise ValueError(f"softplus: beta must be > 0, got {beta}")
    return map_(x, "softplus", beta, threshold)


@operation("x")
def logsigmoid(x):
    """log(sigmoid(x))."""
    return -map_(-x, "softplus", 1, math.inf)


@operation("x")
def softsign(x):
    """x / (1 + |x|)."""
    return x / (map_(x, "abs") + 1.0)


@operation("x", "weight")
def prelu(x, weight):
    """x where positive, else weight * x; weight has one element, or one per channel (dimension 1)."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.ndim != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(f"prelu: weight must have shape (1,) or ({channels},), got {weight.shape} for input {x.shape}")
    shape = (1, -1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    slope = add_node(OPS["reshape"], [weight], shape=tuple(weight.shape[0] if d == -1 else d for d in shape))
    return map_(x, "relu") - slope * map_(-x, "relu")
