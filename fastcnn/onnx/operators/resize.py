"""Resize and Upsample: every mode is a table per axis (the operator's specification in the ONNX documentation)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...graph.trace import leaf
from .call import Call, check_length, operator
from .shape import resampled


def _position(o: np.ndarray, size: int, out: int, scale: float, mode: str, roi: tuple[float, float]) -> np.ndarray:
    """Where in the input the output positions o lie."""
    length = scale * size
    if mode == "align_corners":
        return o * (size - 1) / (length - 1) if length != 1 else np.zeros_like(o)
    if mode == "asymmetric":
        return o / scale
    if mode == "pytorch_half_pixel":
        return (o + 0.5) / scale - 0.5 if length > 1 else np.zeros_like(o) - 0.5
    if mode == "half_pixel":
        return (o + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = out / length
        centre = size / 2
        return centre * (1 - adjustment) + (o + 0.5) / scale - 0.5
    if mode == "tf_half_pixel_for_nn":
        return (o + 0.5) / scale
    if mode == "tf_crop_and_resize":
        start, end = roi
        if out > 1:
            return start * (size - 1) + o * (end - start) * (size - 1) / (length - 1)
        return np.full_like(o, 0.5 * (start + end) * (size - 1))
    raise ValueError(f"coordinate_transformation_mode={mode!r} is not supported")


_NEAREST = {
    "round_prefer_floor": lambda x: math.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: math.floor(x + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def _linear(distance: float) -> float:
    return max(0.0, 1.0 - abs(distance))


def _cubic(a: float) -> Any:
    """Keys (1981), with the free coefficient a."""

    def weight(distance: float) -> float:
        t = abs(distance)
        if t <= 1:
            return ((a + 2) * t - (a + 3)) * t * t + 1
        return (((t - 5) * t + 8) * t - 4) * a if t < 2 else 0.0

    return weight


def _taps(at: float, size: int, kernel: Any, reach: int, stretch: float, exclude_outside: bool) -> tuple:
    """Weights around a position; those outside go to the edge, or are left out. stretch > 1: antialiasing."""
    first, last = math.floor(at - reach * stretch) + 1, math.ceil(at + reach * stretch) - 1
    if stretch == 1 and at == math.floor(at):
        first, last = int(at), int(at)
    weights: dict[int, float] = {}
    for place in range(first, last + 1):
        value = kernel((place - at) / stretch)
        if exclude_outside and not 0 <= place < size:
            continue
        edge = min(max(place, 0), size - 1)
        weights[edge] = weights.get(edge, 0.0) + value
    total = sum(weights.values())
    return tuple((place, value / total) for place, value in sorted(weights.items()) if value)


def _axis(call: Call, size: int, out: int, scale: float, roi: tuple[float, float]) -> tuple[tuple, np.ndarray]:
    """(the table, which outputs lie outside of the input)."""
    default = "half_pixel" if call.kind == "Resize" and call.opset >= 11 else "asymmetric"
    transform = call.get("coordinate_transformation_mode", default)
    at = _position(np.arange(out, dtype=np.float64), size, out, scale, transform, roi)
    outside = (at < 0) | (at > size - 1) if transform == "tf_crop_and_resize" else np.zeros(out, bool)
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        rule = call.get("nearest_mode", "round_prefer_floor" if default == "half_pixel" else "floor")
        places = (min(max(_NEAREST[rule](x), 0), size - 1) for x in at)
        return tuple(((p, 1.0),) for p in places), outside
    kernel = _linear if mode == "linear" else _cubic(call.get("cubic_coeff_a", -0.75))
    reach = 1 if mode == "linear" else 2
    stretch = max(1.0, 1.0 / scale) if call.get("antialias", 0) else 1.0
    excluded = bool(call.get("exclude_outside", 0))
    if mode == "linear" and stretch == 1:
        at = np.clip(at, 0, size - 1)
    return tuple(_taps(float(x), size, kernel, reach, stretch, excluded) for x in at), outside


@operator("Resize", "Upsample")
def _resize(call: Call, x: Any, *rest: Any) -> Any:
    if call.get("mode", "nearest") not in ("nearest", "linear", "cubic"):
        raise ValueError(f"mode={call.get('mode')!r} is not supported, only nearest, linear and cubic")
    roi = scales = sizes = None
    if call.kind == "Resize" and call.opset >= 11:
        roi, scales, sizes = (*rest, None, None, None)[:3]
    else:
        scales = np.array(call.get("scales"), np.float32) if not rest else rest[0]
    axes = call.axes(None, x.ndim) or list(range(x.ndim))
    outs, factors = list(x.shape), [1.0] * x.ndim
    if sizes is not None and call.constant(sizes, "sizes").size:
        wanted = dict(zip(axes, call.ints(sizes, "sizes")))
        ratios = {a: wanted[a] / x.shape[a] for a in wanted}
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios.values()) if policy == "not_larger" else max(ratios.values())
            wanted = {a: math.floor(ratio * x.shape[a] + 0.5) for a in wanted}
            ratios = dict.fromkeys(wanted, ratio)
        for a in wanted:
            outs[a], factors[a] = wanted[a], ratios[a]
    else:
        for a, factor in zip(axes, call.constant(scales, "scales").reshape(-1)):
            outs[a], factors[a] = math.floor(float(x.shape[a]) * float(factor)), float(factor)
    for size in outs:
        check_length(size)
    region = [(0.0, 1.0)] * x.ndim
    if roi is not None and call.constant(roi, "roi").size:
        numbers = call.constant(roi, "roi").reshape(2, -1)
        for i, a in enumerate(axes):
            region[a] = (float(numbers[0, i]), float(numbers[1, i]))
    tables, beyond = [], np.zeros(outs, bool)
    for a in range(x.ndim):
        table, outside = _axis(call, x.shape[a], outs[a], factors[a], region[a])
        tables.append(table)
        beyond |= outside.reshape([-1 if i == a else 1 for i in range(x.ndim)])
    y = resampled(x, tuple(tables))
    if not beyond.any():
        return y
    fill = np.where(beyond, call.get("extrapolation_value", 0.0), 0.0)
    return y * leaf(np.where(beyond, 0.0, 1.0)) + leaf(fill)
