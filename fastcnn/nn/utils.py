"""Gradient clipping for a loop of one's own, between loss.backward() and opt.step()."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastcnn.nn import check


def _gradients(parameters: Any) -> list[np.ndarray]:
    parameters = [parameters] if hasattr(parameters, "grad") else list(parameters)
    return [p.grad for p in parameters if p.grad is not None]


def clip_grad_norm_(parameters: Iterable[Any] | Any, max_norm: float, norm_type: float = 2.0) -> float:
    """Scale all gradients by one factor so that their common norm is at most max_norm; the norm that they had.

    norm_type: 2, another p >= 1, or infinity.
    """
    max_norm = check.number("clip_grad_norm_", "max_norm", max_norm, 0)
    norm_type = check.number("clip_grad_norm_", "norm_type", norm_type, 1)
    grads = _gradients(parameters)
    if math.isinf(norm_type):
        total = max((float(np.abs(g).max()) for g in grads), default=0.0)
    else:
        total = sum(float((np.abs(g, dtype=np.float64) ** norm_type).sum()) for g in grads) ** (1 / norm_type)
    factor = max_norm / (total + 1e-6)
    if factor < 1:
        for grad in grads:
            grad *= np.float32(factor)
    return total


def clip_grad_value_(parameters: Iterable[Any] | Any, clip_value: float) -> None:
    """Move every element of every gradient into [-clip_value, clip_value]."""
    clip_value = check.number("clip_grad_value_", "clip_value", clip_value, 0)
    for grad in _gradients(parameters):
        np.clip(grad, -clip_value, clip_value, out=grad)
