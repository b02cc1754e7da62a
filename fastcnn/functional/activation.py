"""Activations: functions of each element, and softmax."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from ..ops.softmax import split
from .call import dimension, operation


def map_(x, kind, alpha=0.0):
    return add_node(OPS["map"], [x], kind=kind, alpha=float(alpha))


@operation("x")
def relu(x):
    """max(x, 0); NaN stays NaN."""
    return map_(x, "relu")


@operation("x")
def leaky_relu(x, negative_slope=0.01):
    """x where positive, else negative_slope * x (negative_slope >= 0)."""
    if not negative_slope >= 0:
        raise ValueError(f"leaky_relu: negative_slope must be >= 0, got {negative_slope}")
    return map_(x, "leaky_relu", negative_slope)


@operation("x")
def elu(x, alpha=1.0):
    """x where positive, else alpha * (exp(x) - 1) (alpha >= 0)."""
    if not alpha >= 0:
        raise ValueError(f"elu: alpha must be >= 0, got {alpha}")
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
