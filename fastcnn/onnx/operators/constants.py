"""Operators on arrays that are known when the graph is built: what shapes are computed with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph import check_size, filled
from .call import OPERATORS, Call

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Abs": np.abs, "Add": np.add, "And": np.logical_and, "Ceil": np.ceil, "Equal": np.equal, "Floor": np.floor,
    "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Identity": lambda x: x, "Less": np.less,
    "LessOrEqual": np.less_equal, "Mul": np.multiply, "Neg": np.negative, "Not": np.logical_not, "Or": np.logical_or,
    "Sqrt": np.sqrt, "Sub": np.subtract, "Where": np.where,
    "Max": lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "Min": lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
}  # fmt: skip
_KINDS = {1: np.float32, 6: np.int64, 7: np.int64, 9: np.bool_, 10: np.float32, 11: np.float32}  # of TensorProto


def on_constants(call: Call) -> Any:
    """The operator's value, or None if it is not one for constants."""
    if call.kind in _ARITHMETIC:
        check_size(np.broadcast_shapes(*(x.shape for x in call.raw if x is not None)))
        return np.asarray(_ARITHMETIC[call.kind](*call.raw))
    function = _STRUCTURE.get(call.kind)
    return None if function is None else function(call, *call.raw)


def _div(call: Call, a: Any, b: Any) -> Any:
    if a.dtype.kind != "i":
        return np.divide(a, b)
    if (b == 0).any():
        raise ValueError("division by 0")
    quotient = np.abs(a) // np.abs(b)  # towards 0
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(call: Call, x: Any, axes: Any = None) -> Any:
        over = call.axes(axes, x.ndim)
        if not over and call.get("noop_with_empty_axes", 0):
            return x
        keep = bool(call.get("keepdims", 1))
        return np.asarray(function(x, axis=tuple(over) if over else None, keepdims=keep))

    return reduce


def _cast(call: Call, x: Any) -> Any:
    if call.get("to") not in _KINDS:
        raise ValueError(f"{call.place}: to={call.get('to')} is not supported, only floats, integers and bool")
    return x.astype(_KINDS[call.get("to")])


def _slice(call: Call, x: Any, *parts: Any) -> Any:
    from .shape import slices

    return x[slices(call, x, *parts)]


def _range(call: Call, start: Any, limit: Any, step: Any) -> Any:
    if step == 0:
        raise ValueError("a range in steps of 0")
    check_size([max(0, math.ceil((limit.item() - start.item()) / step.item()))])
    return np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _tile(call: Call, x: Any, repeats: Any) -> Any:
    check_size([a * int(b) for a, b in zip(x.shape, repeats, strict=True)])
    return np.tile(x, tuple(repeats))


_STRUCTURE: dict[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": lambda call, *xs: np.concatenate([np.atleast_1d(x) for x in xs], call.axis(call.get("axis"), xs[0].ndim)),
    "ConstantOfShape": lambda call, shape: filled(call.get("value"), shape),
    "Div": _div,
    "Expand": lambda call, x, shape: np.broadcast_to(x, check_size(np.broadcast_shapes(x.shape, tuple(shape)))).copy(),
    "Gather": lambda call, x, index: np.asarray(np.take(x, index, call.axis(call.get("axis", 0), x.ndim))),
    "Range": _range,
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Shape": lambda call, x: np.array(x.shape[call.get("start", 0) : call.get("end")], np.int64),
    "Size": lambda call, x: np.array(x.size, np.int64),
    "Slice": _slice,
    "Tile": _tile,
    "Transpose": lambda call, x: np.transpose(x, call.get("perm")),
}


def known(kind: str) -> bool:
    """Whether fastcnn has the operator, be it for constants only."""
    return kind in OPERATORS or kind in _ARITHMETIC or kind in _STRUCTURE
