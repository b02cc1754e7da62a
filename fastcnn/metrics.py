"""Metrics: functions (output [N, C], target [N]) -> how many of the N samples are right. Averages are the caller's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

IGNORED = -100  # the target of a pixel that has no class; Trainer leaves out samples without any
Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(output: np.ndarray, target: np.ndarray) -> float:
    """Samples whose largest output (logits or probabilities) is at the target's class.

    Where pixels have classes, a sample counts as its share of right ones among those that have one (not -100).
    ValueError for other targets.
    """
    target = np.asarray(target)
    if output.ndim < 2 or target.dtype.kind not in "iu" or target.shape != (output.shape[0], *output.shape[2:]):
        raise ValueError(
            f"accuracy: targets must be class indices of shape {(*output.shape[:1], *output.shape[2:])} for outputs "
            f"{output.shape}, got {target.dtype} {target.shape}; give Trainer other metrics=, or metrics=()"
        )
    right = output.argmax(axis=1) == target
    if target.ndim == 1:
        return int(np.count_nonzero(right))
    pixels = tuple(range(1, target.ndim))
    counted = np.count_nonzero(target != IGNORED, axis=pixels)
    return float((np.count_nonzero(right, axis=pixels) / np.maximum(counted, 1)).sum())


def top_k(k: int) -> Metric:
    """The metric that counts samples whose target is among the k largest outputs. ValueError if k < 1."""
    if k < 1:
        raise ValueError(f"top_k: k must be at least 1, got {k}")

    def metric(output: np.ndarray, target: np.ndarray) -> int:
        of_target = np.take_along_axis(output, target[:, None], axis=1)
        right = np.isfinite(of_target[:, 0]) & (np.count_nonzero(output > of_target, axis=1) < k)
        return int(np.count_nonzero(right))

    metric.__name__ = f"top{k}"
    return metric


METRICS: dict[str, Metric] = {"accuracy": accuracy}


def resolve(metrics: str | Metric | Iterable[str | Metric]) -> dict[str, Metric]:
    """{name: function} for names ("accuracy", "top5", "top3", ...) and functions, which go by their __name__.

    ValueError for a name that is not known, TypeError for anything else.
    """
    found: dict[str, Metric] = {}
    items: Iterable[Any] = [metrics] if isinstance(metrics, str) or callable(metrics) else metrics
    for item in items:
        if callable(item):
            found[getattr(item, "__name__", type(item).__name__)] = item
        elif isinstance(item, str):
            top = re.fullmatch(r"top[-_]?([1-9]\d*)", item)
            if top:
                found[item] = top_k(int(top[1]))
            elif item in METRICS:
                found[item] = METRICS[item]
            else:
                raise ValueError(f"metrics: unknown metric {item!r}; known are {', '.join(METRICS)}, top<k> (top5)")
        else:
            raise TypeError(f"metrics: expected a name or a function, got {type(item).__name__}")
    return found
