"""Sums, products and reductions."""

from __future__ import annotations

import numpy as np

from ..graph.autograd import Tensor
from ..graph.trace import Symbol, add_node
from ..ops import OPS
from ..ops import arithmetic as _arithmetic
from .call import operation


@operation("x")
def sum(x):
    """The sum of all elements."""
    return add_node(OPS["sum_all"], [x], alpha=1.0)


@operation("x")
def mean(x):
    """The mean of all elements."""
    return add_node(OPS["sum_all"], [x], alpha=1.0 / x.size)


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
