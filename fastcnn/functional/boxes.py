"""Boxes of detectors, torchvision.ops' names: plain NumPy on arrays, outside the graph (no gradients).

A box is (x1, y1, x2, y2), left, top, right, bottom, in pixels, unless a function says otherwise. Floats keep their
type; integers become float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FORMATS = ("xyxy", "xywh", "cxcywh")  # corners; corner and size; centre and size


def _boxes(op: str, name: str, value: Any, ndim: int | None = 2) -> np.ndarray:
    array = np.asarray(value)
    if array.size == 0 and array.shape[-1:] in ((0,), ()):  # [] is no boxes
        array = array.reshape(0, 4)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{op}: {name} must be an array of numbers, got {array.dtype}")
    if array.shape[-1:] != (4,) or ndim is not None and array.ndim != ndim:
        wanted = "(N, 4)" if ndim == 2 else "(..., 4)"
        raise ValueError(f"{op}: {name} must have shape {wanted}, got {array.shape}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _line(op: str, name: str, value: Any, count: int) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != (count,):
        raise ValueError(f"{op}: {name} must have shape ({count},), one for each box, got {array.shape}")
    return array


def _format(op: str, name: str, value: str) -> str:
    if value not in FORMATS:
        raise ValueError(f"{op}: {name} must be one of {', '.join(map(repr, FORMATS))}, got {value!r}")
    return value


def box_convert(boxes: Any, in_fmt: str, out_fmt: str) -> np.ndarray:
    """boxes (..., 4) in another format: "xyxy" corners, "xywh" left, top and size, "cxcywh" centre and size."""
    boxes = _boxes("box_convert", "boxes", boxes, None)
    in_fmt, out_fmt = _format("box_convert", "in_fmt", in_fmt), _format("box_convert", "out_fmt", out_fmt)
    if in_fmt == out_fmt:
        return boxes.copy()
    first, second = boxes[..., :2], boxes[..., 2:]
    if in_fmt == "xywh":
        first, second = first, first + second
    elif in_fmt == "cxcywh":
        first, second = first - second * 0.5, first + second * 0.5
    if out_fmt == "xywh":
        second = second - first
    elif out_fmt == "cxcywh":
        first, second = (first + second) * 0.5, second - first
    return np.concatenate([first, second], -1)


def box_area(boxes: Any) -> np.ndarray:
    """Width times height of boxes (..., 4)."""
    boxes = _boxes("box_area", "boxes", boxes, None)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def box_iou(boxes1: Any, boxes2: Any) -> np.ndarray:
    """The intersection over the union of every box of boxes1 (N, 4) with every one of boxes2 (M, 4): (N, M).

    NaN for two boxes without an area.
    """
    boxes1, boxes2 = _boxes("box_iou", "boxes1", boxes1), _boxes("box_iou", "boxes2", boxes2)
    low = np.maximum(boxes1[:, None, :2], boxes2[:, :2])
    high = np.minimum(boxes1[:, None, 2:], boxes2[:, 2:])
    common = np.maximum(high - low, 0).prod(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return common / (box_area(boxes1)[:, None] + box_area(boxes2) - common)


def nms(boxes: Any, scores: Any, iou_threshold: float) -> np.ndarray:
    """Non-maximum suppression: the indices (int64, best score first) of the boxes that are kept.

    boxes: (N, 4); scores: (N,). From the best score down, a box goes if its intersection over union with a kept one is
    larger than iou_threshold. Of equal scores the earlier box comes first.
    """
    boxes = _boxes("nms", "boxes", boxes)
    scores = _line("nms", "scores", scores, len(boxes)).astype(np.float64)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"nms: iou_threshold must be between 0 and 1, got {iou_threshold!r}")
    order, keep = np.argsort(-scores, kind="stable"), []
    boxes = boxes[order]
    while len(order):
        keep.append(order[0])
        stay = ~(box_iou(boxes[:1], boxes[1:])[0] > iou_threshold)
        order, boxes = order[1:][stay], boxes[1:][stay]
    return np.array(keep, np.int64)


def batched_nms(boxes: Any, scores: Any, idxs: Any, iou_threshold: float) -> np.ndarray:
    """As `nms`, but only boxes of the same class, idxs (N,), suppress each other."""
    boxes = _boxes("batched_nms", "boxes", boxes)
    scores = _line("batched_nms", "scores", scores, len(boxes)).astype(np.float64)
    idxs = _line("batched_nms", "idxs", idxs, len(boxes))
    keep = np.zeros(len(boxes), bool)
    for label in np.unique(idxs):
        members = np.flatnonzero(idxs == label)
        keep[members[nms(boxes[members], scores[members], iou_threshold)]] = True
    found = np.flatnonzero(keep)
    return found[np.argsort(-scores[found], kind="stable")]


def clip_boxes_to_image(boxes: Any, size: tuple[int, int]) -> np.ndarray:
    """boxes (..., 4) cut off at the borders of an image of size (height, width)."""
    boxes = _boxes("clip_boxes_to_image", "boxes", boxes, None)
    if len(size) != 2:
        raise ValueError(f"clip_boxes_to_image: size must be (height, width), got {size!r}")
    height, width = size
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))
