"""Operators over whole axes."""

from __future__ import annotations

import math
from typing import Any

from ... import functional as F
from ...graph.trace import Symbol
from ...ops.shape import reduce_sum
from .call import Call, operator


def maximum(x: Symbol, axes: list[int]) -> Symbol:
    """The maximum over these axes, which are kept with size 1: a pooling window as long as they are."""
    rest = [d for d in range(x.ndim) if d not in axes]
    count, others = math.prod(x.shape[a] for a in axes), math.prod(x.shape[d] for d in rest)
    columns = F.reshape(F.permute(x, [*axes, *rest]), (1, 1, count, others))
    pooled = F.max_pool2d(columns, (count, 1)) if count > 1 else columns
    return F.reshape(pooled, tuple(1 if d in axes else x.shape[d] for d in range(x.ndim)))


def _log_sum_exp(x: Symbol, axes: list[int]) -> Symbol:
    top = maximum(x, axes)
    return F.log(reduce_sum(F.exp(x - top), axes)) + top


_KINDS = {
    "ReduceL1": lambda x, axes: reduce_sum(F.abs(x), axes),
    "ReduceL2": lambda x, axes: F.sqrt(reduce_sum(F.square(x), axes)),
    "ReduceLogSum": lambda x, axes: F.log(reduce_sum(x, axes)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": maximum,
    "ReduceMean": lambda x, axes: reduce_sum(x, axes, 1.0 / math.prod(x.shape[a] for a in axes)),
    "ReduceMin": lambda x, axes: -maximum(-x, axes),
    "ReduceSum": reduce_sum,
    "ReduceSumSquare": lambda x, axes: reduce_sum(F.square(x), axes),
}


@operator(*_KINDS)
def _reduce(call: Call, x: Any, axes: Any = None) -> Any:
    over = call.axes(axes, x.ndim)
    if not over:
        over = [] if call.get("noop_with_empty_axes", 0) else list(range(x.ndim))
    y = _KINDS[call.kind](x, over)
    if call.get("keepdims", 1):
        return y
    return F.reshape(y, tuple(d for i, d in enumerate(x.shape) if i not in over))
