"""Gradient clipping for a loop of one's own, between loss.backward() and opt.step().

compile_step and Trainer do the same inside their step: clip_grad_norm=, clip_grad_value=.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastcnn import _core
from fastcnn.nn import check
from fastcnn.ops.activation import KINDS

CHUNK = 1 << 14  # floats whose squares are summed as one item: work for one thread


def clip_grad_norm_(
    parameters: Iterable[Any] | Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), norm being their common one; the norm that they had.

    norm_type: 2, another p >= 1, or infinity. A norm that is NaN makes every gradient NaN, an infinite one makes zeros
    (and NaN of infinities), as in PyTorch; with error_if_nonfinite, ValueError instead, before anything has changed.
    """
    max_norm = check.number("clip_grad_norm_", "max_norm", max_norm, 0)
    norm_type = check.number("clip_grad_norm_", "norm_type", norm_type, 1)
    strict = check.flag("clip_grad_norm_", "error_if_nonfinite", error_if_nonfinite)
    grads = [(grad, np.require(grad, np.float32, ("C", "W"))) for grad in _gradients(parameters)]
    tables = [chunk_table([(0, flat.size)]) for _, flat in grads]
    if norm_type == 2:
        sums = np.zeros(sum(len(table) for table in tables))
        first = 0
        for (_, flat), table in zip(grads, tables, strict=True):
            part = sums[first : first + len(table)]
            _core.run_kernel("sum_squares", x=flat, chunks=table, sums=part, count=len(table))
            first += len(table)
        total = math.sqrt(math.fsum(sums))
    else:
        total = _other_norm([flat for _, flat in grads], norm_type)
        sums = np.array([total * total])
    if strict and not math.isfinite(total):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {total}; nothing was clipped")
    for (grad, flat), table in zip(grads, tables, strict=True):
        counts = {"count": len(table), "total": len(sums)}
        _core.run_kernel("clip_norm", g=flat, chunks=table, sums=sums, max_norm=max_norm, **counts)
        _give_back(flat, grad)
    return total


def _other_norm(grads: list[np.ndarray], norm_type: float) -> float:
    sizes = [np.abs(grad, dtype=np.float64) for grad in grads]
    if math.isinf(norm_type):
        return float(np.max([size.max(initial=0) for size in sizes], initial=0))
    return float(sum(float((size**norm_type).sum()) for size in sizes) ** (1 / norm_type))


def clip_grad_value_(parameters: Iterable[Any] | Any, clip_value: float) -> None:
    """Move every element of every gradient into [-clip_value, clip_value]. NaN stays NaN."""
    clip_value = check.number("clip_grad_value_", "clip_value", clip_value, 0)
    for grad in _gradients(parameters):
        flat = np.require(grad, np.float32, ("C", "W"))
        kernel, fields = clamp_step(flat, clip_value)
        _core.run_kernel(kernel, **fields)
        _give_back(flat, grad)


def _gradients(parameters: Any) -> list[np.ndarray]:
    parameters = [parameters] if hasattr(parameters, "grad") else list(parameters)
    return [p.grad for p in parameters if p.grad is not None]


def _give_back(flat: np.ndarray, grad: np.ndarray) -> None:
    """What was done to a float32 copy of a gradient, in the gradient."""
    if not np.may_share_memory(flat, grad):
        grad[...] = flat


# ---- the kernel calls, here and in a plan ------------------------------------------------------------------
def chunk_table(pieces: Iterable[tuple[int, int]]) -> np.ndarray:
    """The pieces (start, size) of a flat block, cut: int64 [count, 2], the kernels' chunks."""
    cuts = [(at, min(at + CHUNK, start + size)) for start, size in pieces for at in range(start, start + size, CHUNK)]
    return np.array(cuts, np.int64).reshape(-1, 2)


def clamp_step(g: np.ndarray, limit: float) -> tuple[str, dict[str, Any]]:
    """The kernel call that moves a dense array into [-limit, limit], in place."""
    strides = dict.fromkeys(("x_n", "x_c", "x_h", "y_n", "y_c", "y_h"), 0)
    kind = KINDS.index("clamp")
    return "map", dict(x=g, y=g, n=1, c=1, h=1, len=g.size, **strides, kind=kind, alpha=-limit, beta=limit)
