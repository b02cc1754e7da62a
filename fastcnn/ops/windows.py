"""One-dimensional tables of windows (ops/gather.py): pooling, adaptive pooling, interpolation, padding.

An axis is, for every output position, a tuple of (input position, weight).
"""

from __future__ import annotations

import functools
import math

import numpy as np

from .pool import output_size

Axis = tuple[tuple[tuple[int, float], ...], ...]


@functools.lru_cache(maxsize=256)
def pooling(size, kernel, stride, padding, dilation, ceil_mode, average, count_include_pad) -> Axis:
    """Windows clipped to the input; for averages the weight is one over what PyTorch divides by."""
    axis = []
    for o in range(output_size(size, kernel, stride, padding, dilation, ceil_mode)):
        first = o * stride - padding
        taps = [first + k * dilation for k in range(kernel) if 0 <= first + k * dilation < size]
        divisor = min(first + kernel, size + padding) - first if count_include_pad else len(taps)
        axis.append(tuple((i, 1.0 / divisor if average else 1.0) for i in taps))
    return tuple(axis)


@functools.lru_cache(maxsize=256)
def adaptive(size: int, out: int, average: bool) -> Axis:
    """`out` windows of nearly equal size that cover the input, PyTorch's rule."""
    axis = []
    for o in range(out):
        first, stop = o * size // out, -(-(o + 1) * size // out)
        axis.append(tuple((i, 1.0 / (stop - first) if average else 1.0) for i in range(first, stop)))
    return tuple(axis)


@functools.lru_cache(maxsize=256)
def interpolation(size: int, out: int, factor: float | None, mode: str, align_corners: bool) -> Axis:
    """Nearest or linear interpolation; factor is the scale_factor that was given, which PyTorch then uses as it is."""
    scale = np.float32(1 / factor if factor else size / out)
    axis: list[tuple[tuple[int, float], ...]] = []
    for o in range(out):
        if mode == "nearest":
            axis.append(((min(int(np.float32(o) * scale), size - 1), 1.0),))
            continue
        if align_corners:
            at = o * (size - 1) / (out - 1) if out > 1 else 0.0
        else:
            at = max(0.0, float((np.float32(o) + np.float32(0.5)) * scale - np.float32(0.5)))
        low = min(math.floor(at), size - 1)
        high, part = min(low + 1, size - 1), at - low
        axis.append(((low, 1.0 - part), (high, part)) if part and high > low else ((low, 1.0),))
    return tuple(axis)


def left(size: int, before: int, after: int) -> int:
    """How much of a dimension a padding's negative sides leave."""
    return size + min(0, before) + min(0, after)


@functools.lru_cache(maxsize=256)
def padding(size: int, before: int, after: int, mode: str) -> Axis:
    """Padding (negative: cropping) by reflection, by the edge's value, or around."""
    axis = []
    start, kept = max(0, -before), left(size, before, after)
    for o in range(-before, size + after):
        if mode == "replicate":
            i = min(max(o, 0), size - 1)
        elif mode == "circular":  # what is cropped does not come around
            i = start + (o - start) % kept
        else:
            i = abs(o)
            i = 2 * (size - 1) - i if i >= size else i
        axis.append(((i, 1.0),))
    return tuple(axis)
