"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ...graph.trace import Symbol, leaf
from .call import Call, operator


@operator("Gemm")
def _gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    a = F.transpose(a, 0, 1) if call.get("transA", 0) else a
    transposed = bool(call.get("transB", 0))
    if transposed and alpha == beta == 1 and c is not None and tuple(c.shape) == (b.shape[0],):
        return F.linear(a, b, c)
    y = F.linear(a, b) if transposed else F.matmul(a, b)
    y = y * alpha if alpha != 1 else y
    if c is None or beta == 0:
        return y
    c = leaf(c) if isinstance(c, np.ndarray) else c
    return y + (c * beta if beta != 1 else c)


@operator("MatMul")
def _matmul(call: Call, a: Any, b: Any) -> Any:
    a, b = (v if isinstance(v, Symbol) else leaf(v) for v in (a, b))
    left, right = a.ndim == 1, b.ndim == 1
    a = F.reshape(a, (1, a.shape[0])) if left else a
    b = F.reshape(b, (b.shape[0], 1)) if right else b
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not fit")
    if b.ndim == 2:
        y = F.reshape(F.matmul(F.reshape(a, (-1, a.shape[-1])), b), (*a.shape[:-1], b.shape[1]))
    else:
        y = _stacked(a, b)
    shape = y.shape
    if left:
        shape = (*shape[:-2], shape[-1])
    if right:
        shape = shape[:-1]
    return F.reshape(y, shape) if shape != y.shape else y


def _stacked(a: Symbol, b: Symbol) -> Symbol:
    """Products of stacks of matrices, one after the other."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    count = math.prod(lead)
    a = F.reshape(F.expand(a, (*lead, *a.shape[-2:])), (count, *a.shape[-2:]))
    b = F.reshape(F.expand(b, (*lead, *b.shape[-2:])), (count, *b.shape[-2:]))
    return F.reshape(F.stack([F.matmul(a[i], b[i]) for i in range(count)]), (*lead, a.shape[1], b.shape[2]))
