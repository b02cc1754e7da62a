"""What a detector does with boxes outside the graph, in NumPy: default boxes, coding, matching, hard negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check


class DefaultBoxGenerator:
    """The default boxes of SSD (Liu et al., 2016, section 2.2): torchvision's arguments.

    aspect_ratios: for each feature map, its ratios r besides 1; each place of map k gets 2 + 2 * len(aspect_ratios[k])
    boxes: squares of side s_k and sqrt(s_k * s_(k+1)), and sides s_k * sqrt(r), s_k / sqrt(r) both ways round.
    scales: s_0 ... s_maps as shares of the image's side; None: evenly from min_ratio to max_ratio, and then 1.
    steps: pixels between the boxes of each map; None: the image's size over the map's. clip: no side above 1.
    """

    def __init__(
        self,
        aspect_ratios: Sequence[Sequence[float]],
        min_ratio: float = 0.15,
        max_ratio: float = 0.9,
        scales: Sequence[float] | None = None,
        steps: Sequence[int] | None = None,
        clip: bool = True,
    ) -> None:
        name = type(self).__name__
        if not all(isinstance(ratios, (list, tuple)) for ratios in aspect_ratios) or not len(aspect_ratios):
            raise TypeError(f"{name}: aspect_ratios must be a list of numbers for each map, got {aspect_ratios!r}")
        self.aspect_ratios = [[float(r) for r in ratios] for ratios in aspect_ratios]
        if any(not r > 0 for ratios in self.aspect_ratios for r in ratios):
            raise ValueError(f"{name}: aspect_ratios must be positive, got {aspect_ratios!r}")
        maps = len(self.aspect_ratios)
        self.min_ratio, self.max_ratio, self.clip = float(min_ratio), float(max_ratio), check.flag(name, "clip", clip)
        if steps is not None and len(steps) != maps:
            raise ValueError(f"{name}: steps must have {maps} numbers, one for each map, got {len(steps)}")
        self.steps = None if steps is None else [check.number(name, "steps", s, 1e-9) for s in steps]
        if scales is not None and len(scales) < maps + 1:
            raise ValueError(f"{name}: scales must have {maps + 1} numbers, one more than maps, got {len(scales)}")
        self.scales = (
            self._even_scales(maps) if scales is None else [check.number(name, "scales", s, 0) for s in scales]
        )

    def _even_scales(self, maps: int) -> list[float]:
        if maps == 1:
            return [self.min_ratio, self.max_ratio]
        width = self.max_ratio - self.min_ratio
        return [self.min_ratio + width * k / (maps - 1.0) for k in range(maps)] + [1.0]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able."""
        return dict(aspect_ratios=self.aspect_ratios, scales=self.scales, steps=self.steps, clip=self.clip)

    def num_anchors_per_location(self) -> list[int]:
        """How many boxes each place of each map has."""
        return [2 + 2 * len(ratios) for ratios in self.aspect_ratios]

    def _sides(self, k: int) -> np.ndarray:
        """(boxes of a place, 2): width and height, as shares of the image's."""
        scale = self.scales[k]
        sides = [[scale] * 2, [math.sqrt(scale * self.scales[k + 1])] * 2]
        for ratio in self.aspect_ratios[k]:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sides += [[long, short], [short, long]]
        return np.clip(np.array(sides, np.float32), 0, 1 if self.clip else None)

    def boxes(self, grid_sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> np.ndarray:
        """The corners of all boxes, (boxes, 4) float32, in pixels: by map, row, column, box of the place.

        grid_sizes: (height, width) of each map; image_size: (height, width).
        """
        if len(grid_sizes) != len(self.aspect_ratios):
            raise ValueError(
                f"DefaultBoxGenerator: aspect_ratios are for {len(self.aspect_ratios)} maps, got {len(grid_sizes)} maps"
            )
        height, width = image_size
        parts = []
        for k, (rows, columns) in enumerate(grid_sizes):
            down, across = (rows, columns) if self.steps is None else (height / self.steps[k], width / self.steps[k])
            y, x = ((np.arange(count) + 0.5) / unit for count, unit in ((rows, down), (columns, across)))
            sides = self._sides(k)
            centres = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), -1).astype(np.float32)
            centres, sides = np.broadcast_arrays(centres, sides)
            parts.append(np.concatenate([centres, sides], -1).reshape(-1, 4))
        size = np.array([width, height, width, height], np.float32)
        return F.box_convert(np.concatenate(parts), "cxcywh", "xyxy") * size

    def __repr__(self) -> str:
        return (
            f"DefaultBoxGenerator(aspect_ratios={self.aspect_ratios}, clip={self.clip}, scales={self.scales}, "
            f"steps={self.steps})"
        )


class BoxCoder:
    """Boxes as differences to reference boxes: of the centres, over the reference's size, and of the sizes' logarithms,
    each times its weight (Girshick et al., 2014). bbox_xform_clip: the largest logarithm that decode takes."""

    def __init__(
        self, weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0), bbox_xform_clip: float = math.log(1000.0 / 16)
    ) -> None:
        if len(weights) != 4 or not all(w > 0 for w in weights):
            raise ValueError(f"BoxCoder: weights must be 4 positive numbers (x, y, width, height), got {weights!r}")
        self.weights, self.bbox_xform_clip = tuple(float(w) for w in weights), float(bbox_xform_clip)

    def encode_single(self, reference_boxes: Any, proposals: Any) -> np.ndarray:
        """The codes (N, 4) of the boxes reference_boxes (N, 4) seen from the default boxes proposals (N, 4)."""
        wanted, seen = (F.box_convert(boxes, "xyxy", "cxcywh") for boxes in (reference_boxes, proposals))
        if wanted.shape != seen.shape:
            raise ValueError(f"BoxCoder: reference_boxes {wanted.shape} and proposals {seen.shape} must have one shape")
        moved = (wanted[:, :2] - seen[:, :2]) / seen[:, 2:]
        return np.concatenate([moved, np.log(wanted[:, 2:] / seen[:, 2:])], 1) * np.array(self.weights, wanted.dtype)

    def decode_single(self, rel_codes: Any, boxes: Any) -> np.ndarray:
        """The boxes (N, 4) that the codes rel_codes (N, 4) mean, seen from boxes (N, 4)."""
        codes, seen = np.asarray(rel_codes), F.box_convert(boxes, "xyxy", "cxcywh")
        if codes.shape != seen.shape:
            raise ValueError(f"BoxCoder: rel_codes {codes.shape} and boxes {seen.shape} must have one shape")
        codes = codes / np.array(self.weights, codes.dtype)
        sizes = np.exp(np.minimum(codes[:, 2:], self.bbox_xform_clip)) * seen[:, 2:]
        centres = codes[:, :2] * seen[:, 2:] + seen[:, :2]
        return F.box_convert(np.concatenate([centres, sizes], 1), "cxcywh", "xyxy")


def match(boxes: np.ndarray, anchors: np.ndarray, iou_thresh: float) -> np.ndarray:
    """For each of the anchors (A, 4) the index of its box among boxes (M, 4), or -1.

    An anchor's box is the one that it overlaps most, if by iou_thresh or more; and each box gets the anchor that
    overlaps it most, however little (of boxes that want the same anchor, the last).
    """
    if not len(boxes):
        return np.full(len(anchors), -1, np.int64)
    overlap = F.box_iou(boxes, anchors)
    matched = np.where(overlap.max(0) >= iou_thresh, overlap.argmax(0), -1)
    for index, best in enumerate(overlap.argmax(1)):
        matched[best] = index
    return matched


def hard_negatives(losses: np.ndarray, foreground: np.ndarray, ratio: float) -> np.ndarray:
    """Which anchors without a box count in the classification loss: in each image those with the largest losses,
    `ratio` times as many as its foreground. losses, foreground (bool) and the result (bool): (N, A).

    (torchvision counts foreground anchors twice where an image has too few others; here they stay out.)
    """
    ranked = np.argsort(np.where(foreground, np.inf, -losses), axis=1, kind="stable")
    rank = np.empty_like(ranked)
    np.put_along_axis(rank, ranked, np.arange(losses.shape[1])[None], 1)
    return (rank < ratio * foreground.sum(1, keepdims=True)) & ~foreground
