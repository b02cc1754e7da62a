"""Sums, products and reductions."""

from __future__ import annotations

import math

import numpy as np

from ..graph.autograd import Tensor
from ..graph.trace import Symbol, add_node
from ..ops import OPS
from ..ops import arithmetic as _arithmetic
from ..ops import shape as _shape
from .activation import map_
from .call import dimension, operation


def _dims(op, dim, ndim):
    dims = [dimension(op, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]
    if len(set(dims)) != len(dims):
        raise ValueError(f"{op}: a dimension is named twice in dim={dim!r}")
    return dims


def _reduce(x, dims, keepdim, alpha):
    y = _shape.reduce_sum(x, dims, alpha)
    if keepdim:
        return y
    return add_node(OPS["reshape"], [y], shape=tuple(d for i, d in enumerate(x.shape) if i not in dims))


@operation("x")
def sum(x, dim=None, keepdim=False):
    """The sum of all elements, or over dimension(s) `dim`."""
    if dim is None and not keepdim:
        return add_node(OPS["sum_all"], [x], alpha=1.0)
    return _reduce(x, list(range(x.ndim)) if dim is None else _dims("sum", dim, x.ndim), keepdim, 1.0)


@operation("x")
def mean(x, dim=None, keepdim=False):
    """The mean of all elements, or over dimension(s) `dim`."""
    if dim is None and not keepdim:
        return add_node(OPS["sum_all"], [x], alpha=1.0 / x.size)
    dims = list(range(x.ndim)) if dim is None else _dims("mean", dim, x.ndim)
    return _reduce(x, dims, keepdim, 1.0 / math.prod(x.shape[d] for d in dims))


@operation("x")
def var(x, dim=None, correction=1, keepdim=False):
    """The variance over dimension(s) `dim` (None: all): the sum of (x - mean)^2 over count - correction."""
    dims = list(range(x.ndim)) if dim is None else _dims("var", dim, x.ndim)
    count = math.prod(x.shape[d] for d in dims)
    if count <= correction:
        raise ValueError(f"var: {count} values over dim={dim} have no variance with correction={correction}")
    centred = x - _reduce(x, dims, True, 1.0 / count)
    return _reduce(centred * centred, dims, keepdim, 1.0 / (count - correction))


def arithmetic(a, b, kind):
    """a op b for arrays of one shape or an array and a number (what + - * / on a Tensor do)."""
    numbers = (int, float, np.number)
    if isinstance(b, numbers) or np.ndim(b) == 0 and not isinstance(b, (Symbol, Tensor)):
        return _with_number(a, float(b), kind, False)
    if isinstance(a, numbers) or np.ndim(a) == 0 and not isinstance(a, (Symbol, Tensor)):
        return _with_number(b, float(a), kind, True)
    return _arithmetic_arrays(a, b, kind)


@operation("x")
def _with_number(x, number, kind, swapped):
    return _arithmetic.arithmetic(kind, number, x) if swapped else _arithmetic.arithmetic(kind, x, number)


@operation("a", "b")
def _arithmetic_arrays(a, b, kind):
    return _arithmetic.arithmetic(kind, a, b)


@operation("x")
def exp(x):
    """e to the power of x."""
    return map_(x, "exp")


@operation("x")
def log(x):
    """Natural logarithm."""
    return map_(x, "log")


@operation("x")
def sqrt(x):
    """Square root."""
    return map_(x, "sqrt")


@operation("x")
def abs(x):
    """Absolute value."""
    return map_(x, "abs")


@operation("x")
def square(x):
    """x * x."""
    return map_(x, "square")


@operation("x")
def pow(x, exponent):
    """x to the power of a number: whole ones from -16 to 16, 0.5 and -0.5 for any x; others, for x > 0 only (else NaN),
    as exp(exponent * log(x))."""
    exact = {
        1: lambda: x,
        2: lambda: map_(x, "square"),
        0.5: lambda: map_(x, "sqrt"),
        -0.5: lambda: 1.0 / map_(x, "sqrt"),
        -1: lambda: 1.0 / x,
    }.get(exponent)
    if exact is None and exponent == int(exponent) and 0 < math.fabs(exponent) <= 16:
        power = _whole_power(x, int(math.fabs(exponent)))
        return power if exponent > 0 else 1.0 / power
    return exact() if exact else map_(map_(map_(x, "log"), "scale", exponent), "exp")


def _whole_power(x, n):
    """By squaring."""
    if n == 1:
        return x
    half = map_(_whole_power(x, n // 2), "square")
    return half * x if n % 2 else half


@operation("x")
def erf(x):
    """The error function, 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to x."""
    return map_(x, "erf")
