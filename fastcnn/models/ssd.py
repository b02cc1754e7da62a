"""SSD: a detector that classifies default boxes on maps of several sizes (Liu et al., 2016), torchvision's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn import config as _config
from fastcnn import nn
from fastcnn.functional.call import operation
from fastcnn.graph.autograd import gate, no_grad
from fastcnn.graph.trace import Symbol, tracing
from fastcnn.models.anchors import BoxCoder, DefaultBoxGenerator, hard_negatives, match
from fastcnn.models.features import SSDFeatureExtractorVGG, start_xavier
from fastcnn.models.vgg import vgg16
from fastcnn.nn import check
from fastcnn.nn.registry import build, describe, register


class SSDScoringHead(nn.Module):
    """A 3x3 convolution for each map: maps [N, in_channels[i], H, W] -> [N, all anchors, num_columns]."""

    def __init__(self, in_channels: Sequence[int], num_anchors: Sequence[int], num_columns: int) -> None:
        super().__init__()
        self.num_columns = num_columns
        pairs = zip(in_channels, num_anchors, strict=True)
        self.module_list = nn.ModuleList([nn.Conv2d(c, a * num_columns, 3, padding=1) for c, a in pairs])
        start_xavier(self)

    def forward(self, *maps: Any) -> Any:
        """maps: one for each convolution. The anchors come by map, row, column, anchor of the place."""
        if len(maps) != len(self.module_list):
            raise ValueError(f"SSDHead: {len(self.module_list)} maps expected, got {len(maps)}")
        parts = [F.permute(layer(x), (0, 2, 3, 1)) for layer, x in zip(self.module_list, maps)]
        return F.cat([F.reshape(p, (p.shape[0], -1, self.num_columns)) for p in parts], 1)


class SSDHead(nn.Module):
    """Maps -> (bbox_regression [N, anchors, 4], cls_logits [N, anchors, num_classes])."""

    def __init__(self, in_channels: Sequence[int], num_anchors: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.classification_head = SSDScoringHead(in_channels, num_anchors, num_classes)
        self.regression_head = SSDScoringHead(in_channels, num_anchors, 4)

    def forward(self, *maps: Any) -> Any:
        """maps: [N, in_channels[i], H, W] each."""
        return self.regression_head(*maps), self.classification_head(*maps)


@operation("boxes", "logits", "codes", "box_weights", "labels", "class_weights")
def _losses(boxes, logits, codes, box_weights, labels, class_weights):
    """The weighted sums of smooth L1 over anchors (N, A) and of cross-entropy."""
    n, anchors, classes = logits.shape
    distance = F.sum(F.smooth_l1_loss(boxes, codes, reduction="none"), 2)
    rows = F.reshape(logits, (n * anchors, classes)), F.reshape(labels, (n * anchors,))
    entropy = F.reshape(F.cross_entropy(*rows, reduction="none"), (n, anchors))
    return F.sum(distance * box_weights), F.sum(entropy * class_weights)


@register
class SSD(nn.Module):
    """A detector on any backbone; torchvision's arguments.

    backbone: a module that gives a map, or a tuple, list or dict of maps [N, C_i, H_i, W_i] (SSDFeatureExtractor makes
    one of a classification network). anchor_generator: a DefaultBoxGenerator, with aspect_ratios for as many maps.
    size: (width, height) of the images that forward() takes. num_classes: the background, class 0, included.
    image_mean, image_std: of the channels, taken away and divided by inside forward (None: ImageNet's). head: maps ->
    (bbox_regression, cls_logits); None: SSDHead. The numbers: see predict() (score_thresh, nms_thresh,
    detections_per_img, topk_candidates) and losses() (iou_thresh, positive_fraction).

    Training, either way:

        loss = model.loss(model(x), targets); loss.backward(); opt.step(); opt.zero_grad()

        step = fc.compile_step(model, model.loss, opt)
        step(x, model.encode_targets(targets, x))

    Which default boxes are hard negatives depends on the outputs, so the first finds them, in NumPy, between forward
    and backward; the second runs forward once more beforehand, and gives them to the step as an array.
    """

    def __init__(
        self,
        backbone: nn.Module,
        anchor_generator: DefaultBoxGenerator,
        size: Sequence[int],
        num_classes: int,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        head: nn.Module | None = None,
        score_thresh: float = 0.01,
        nms_thresh: float = 0.45,
        detections_per_img: int = 200,
        iou_thresh: float = 0.5,
        topk_candidates: int = 400,
        positive_fraction: float = 0.25,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"SSD: backbone must be a Module, got {type(backbone).__name__}")
        if not isinstance(anchor_generator, DefaultBoxGenerator):
            raise TypeError(
                f"SSD: anchor_generator must be a DefaultBoxGenerator, got {type(anchor_generator).__name__}"
            )
        self.size = check.integers("SSD", "size", list(size), 2, 1)
        self.num_classes = check.integer("SSD", "num_classes", num_classes, 2)
        self.image_mean = [float(v) for v in ((0.485, 0.456, 0.406) if image_mean is None else image_mean)]
        self.image_std = [float(v) for v in ((0.229, 0.224, 0.225) if image_std is None else image_std)]
        if len(self.image_mean) != len(self.image_std) or not all(v > 0 for v in self.image_std):
            raise ValueError(
                "SSD: image_mean and image_std must have a number for each channel, image_std positive ones, "
                f"got {image_mean!r} and {image_std!r}"
            )
        self.score_thresh = check.number("SSD", "score_thresh", score_thresh, 0, 1)
        self.nms_thresh = check.number("SSD", "nms_thresh", nms_thresh, 0, 1)
        self.detections_per_img = check.integer("SSD", "detections_per_img", detections_per_img, 1)
        self.iou_thresh = check.number("SSD", "iou_thresh", iou_thresh, 0, 1)
        self.topk_candidates = check.integer("SSD", "topk_candidates", topk_candidates, 1)
        self.positive_fraction = check.number("SSD", "positive_fraction", positive_fraction, 1e-6, 1)
        self.anchor_generator, self.box_coder = anchor_generator, BoxCoder()
        self._found: list[Any] = [None, None]  # the default boxes, and the structure they are of
        self._own_head = head is None
        self.backbone = backbone
        if head is None:
            channels = getattr(backbone, "out_channels", None) or [m.shape[1] for m in self._maps()]
            anchors = anchor_generator.num_anchors_per_location()
            if len(channels) != len(anchors):
                raise ValueError(
                    f"SSD: the backbone gives {len(channels)} maps, anchor_generator is for {len(anchors)}"
                )
            head = SSDHead(channels, anchors, self.num_classes)
        self.head = head

    # ---- forward -----------------------------------------------------------------------------------------------
    def _features(self, x: Any) -> list[Any]:
        maps = self.backbone(x)
        maps = [maps] if isinstance(maps, Symbol) else list(maps.values() if isinstance(maps, dict) else maps)
        if any(not isinstance(m, Symbol) or m.ndim != 4 for m in maps):
            raise ValueError(f"SSD: the backbone must give maps of shape (N, C, H, W), got {maps!r}")
        return maps

    def _maps(self) -> list[Any]:
        """The backbone's maps for two images, without values."""
        width, height = self.size
        with tracing():
            return self._features(Symbol((2, len(self.image_mean), height, width)))

    def forward(self, x: Any) -> Any:
        """x: [N, C, height, width] of `size` -> (bbox_regression [N, anchors, 4], cls_logits [N, anchors, classes])."""
        wanted = (len(self.image_mean), self.size[1], self.size[0])
        if tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"SSD: images must have shape (N, {', '.join(map(str, wanted))}), got {tuple(x.shape)}; "
                "transform() brings images of any size to this one"
            )
        mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (self.image_mean, self.image_std))
        out = self.head(*self._features((x - mean) * (1 / std)))
        return (out["bbox_regression"], out["cls_logits"]) if isinstance(out, dict) else out

    def default_boxes(self) -> np.ndarray:
        """The default boxes (anchors, 4), corners in pixels of an image of `size`."""
        if self._found[1] != _config.structure_version():
            grids = [m.shape[2:] for m in self._maps()]
            self._found[:] = (
                self.anchor_generator.boxes(grids, (self.size[1], self.size[0])),
                _config.structure_version(),
            )
        return self._found[0]

    # ---- training ----------------------------------------------------------------------------------------------
    def _targets(self, targets: Any, images: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(boxes, labels) of each image, checked."""
        if not isinstance(targets, (list, tuple)) or len(targets) != images:
            got = f"{len(targets)}" if isinstance(targets, (list, tuple)) else type(targets).__name__
            raise ValueError(f"SSD: targets must be a list of {images} dicts, one for each image, got {got}")
        found = []
        for i, target in enumerate(targets):
            if not isinstance(target, dict) or not {"boxes", "labels"} <= set(target):
                raise ValueError(f'SSD: targets[{i}] must be a dict with "boxes" and "labels", got {target!r}')
            boxes = np.asarray(target["boxes"], np.float32).reshape(-1, *np.shape(target["boxes"])[1:])
            boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
            labels = np.asarray(target["labels"])
            if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != (len(boxes),):
                raise ValueError(
                    f"SSD: targets[{i}] must have boxes (M, 4) and labels (M,), got {boxes.shape} and {labels.shape}"
                )
            wrong = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1))
            if wrong.any():
                raise ValueError(f"SSD: targets[{i}]: box {boxes[wrong][0].tolist()} must have x1 < x2 and y1 < y2")
            if len(boxes) and labels.dtype.kind not in "iu":
                raise TypeError(f"SSD: targets[{i}]: labels must be integers, got {labels.dtype}")
            if ((labels < 1) | (labels >= self.num_classes)).any():
                raise ValueError(
                    f"SSD: targets[{i}]: labels must be 1 to {self.num_classes - 1} (0 is the background), "
                    f"got {labels.tolist()}"
                )
            found.append((boxes, labels.astype(np.int64)))
        return found

    def encode_targets(self, targets: Any, images: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What loss() takes in a compiled step for `images` [N, C, height, width], whose hard negatives are found by
        running forward once, in the mode the model is in; running statistics stay as they are.

        (codes (N, A, 4), box_weights (N, A), labels int64 (N, A), class_weights (N, A)), A default boxes.
        """
        kept = [(buffer, buffer.numpy()) for buffer in self.buffers()]
        with no_grad():
            logits = self(images)[1]
        for buffer, value in kept:
            buffer[...] = value
        return self._encode(targets, np.asarray(logits))

    def _encode(self, targets: Any, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        n, count = logits.shape[:2]
        anchors = self.default_boxes()
        codes, labels = np.zeros((n, count, 4), np.float32), np.zeros((n, count), np.int64)
        entropy = np.empty((n, count), np.float32)
        for i, (boxes, classes) in enumerate(self._targets(targets, n)):
            matched = match(boxes, anchors, self.iou_thresh)
            own = np.flatnonzero(matched >= 0)
            codes[i, own] = self.box_coder.encode_single(boxes[matched[own]], anchors[own])
            labels[i, own] = classes[matched[own]]
            shifted = logits[i] - logits[i].max(1, keepdims=True)
            entropy[i] = np.log(np.exp(shifted).sum(1)) - np.take_along_axis(shifted, labels[i][:, None], 1)[:, 0]
        foreground = labels > 0
        ratio = (1 - self.positive_fraction) / self.positive_fraction
        scale = np.float32(1 / max(1, foreground.sum()))
        counted = foreground | hard_negatives(entropy, foreground, ratio)
        return codes, foreground * scale, labels, counted * scale

    def losses(self, outputs: Any, targets: Any) -> dict[str, Any]:
        """{"bbox_regression": smooth L1 of the codes of default boxes that have a box, "classification": cross-entropy
        of these and of the hard negatives}, each summed, over the number of default boxes that have a box (at least 1).

        outputs: what the model gave. targets: a dict for each image, "boxes" (M, 4), corners in pixels, and "labels"
        (M,), integers from 1 (both may be empty); or what encode_targets() gave. A default box has the box that it
        overlaps most, if by iou_thresh; and each box has the default box that overlaps it most. Hard negatives are
        those with the largest losses, (1 - positive_fraction) / positive_fraction for each that has a box, by image.
        """
        boxes, logits = outputs
        encoded = isinstance(targets, tuple) and len(targets) == 4 and not isinstance(targets[0], dict)
        if not encoded and isinstance(logits, Symbol):
            raise TypeError("SSD: in a compiled step targets must be what encode_targets() gave: they need numbers")
        arrays = targets if encoded else self._encode(targets, np.asarray(logits))
        return dict(zip(("bbox_regression", "classification"), _losses(boxes, logits, *arrays)))

    def loss(self, outputs: Any, targets: Any) -> Any:
        """The sum of losses(), a scalar."""
        parts = self.losses(outputs, targets)
        return parts["bbox_regression"] + parts["classification"]

    # ---- detection ---------------------------------------------------------------------------------------------
    def transform(self, images: Any, targets: Any = None) -> Any:
        """Images (C, H, W) of any size as one array [N, C, height, width] (bilinear); with targets, a pair of it and
        the targets, their boxes moved with the images."""
        width, height = self.size
        images = [gate(image, f"SSD: images[{i}]") for i, image in enumerate(images)]
        for i, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != len(self.image_mean) or image.dtype.kind != "f":
                raise ValueError(
                    f"SSD: images[{i}] must be floats of shape ({len(self.image_mean)}, H, W), "
                    f"got {image.dtype} {image.shape}"
                )
        if not images:
            raise ValueError("SSD: at least one image is needed, got none")
        x = np.concatenate([self._resized(image[None], (height, width)) for image in images])
        if targets is None:
            return x
        moved = []
        for image, (boxes, labels) in zip(images, self._targets(targets, len(images))):
            factors = np.array([width / image.shape[2], height / image.shape[1]] * 2, np.float32)
            moved.append({"boxes": boxes * factors, "labels": labels})
        return x, moved

    @staticmethod
    def _resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return x if x.shape[2:] == size else np.asarray(F.interpolate(x, size=size, mode="bilinear"))

    def predict(self, images: Any, batch_size: int = 16) -> list[dict[str, np.ndarray]]:
        """For each image, {"boxes" (M, 4), corners in its pixels, "scores" (M,), "labels" (M,) int64}, best first.

        images: a list of arrays (C, H, W) of any size, or one array [N, C, H, W]. The model runs in evaluation mode. Of
        each class the topk_candidates best with a score above score_thresh; of these, by class, non-maximum suppression
        at nms_thresh; of all, the detections_per_img best.
        """
        batch_size = check.integer("SSD", "batch_size", batch_size, 1)
        images = list(images)
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            found: list[dict[str, np.ndarray]] = []
            for start in range(0, len(images), batch_size):
                with no_grad():
                    outputs = self(self.transform(images[start : start + batch_size]))
                found += self.postprocess_detections(outputs)
        finally:
            for module in training:
                module.training = True
        for image, detections in zip(images, found):
            height, width = np.shape(image)[1:]
            detections["boxes"] *= np.array([width / self.size[0], height / self.size[1]] * 2, np.float32)
        return found

    def postprocess_detections(self, outputs: Any) -> list[dict[str, np.ndarray]]:
        """The detections in what forward() gave for some images, boxes in pixels of images of `size`; see predict()."""
        anchors, found = self.default_boxes(), []
        for codes, logits in zip(*(np.asarray(o) for o in outputs)):
            boxes = self.box_coder.decode_single(codes, anchors)
            boxes = F.clip_boxes_to_image(boxes, (self.size[1], self.size[0]))
            exponents = np.exp(logits - logits.max(1, keepdims=True))
            scores = exponents / exponents.sum(1, keepdims=True)
            places, labels = [], []
            for index in range(1, self.num_classes):
                above = np.flatnonzero(scores[:, index] > self.score_thresh)
                best = above[np.argsort(-scores[above, index], kind="stable")[: self.topk_candidates]]
                places.append(best)
                labels.append(np.full(len(best), index, np.int64))
            place, label = np.concatenate(places), np.concatenate(labels)
            keep = F.batched_nms(boxes[place], scores[place, label], label, self.nms_thresh)[: self.detections_per_img]
            place, label = place[keep], label[keep]
            found.append({"boxes": boxes[place], "scores": scores[place, label], "labels": label})
        return found

    # ---- files -------------------------------------------------------------------------------------------------
    _NUMBERS = (
        "num_classes", "image_mean", "image_std", "score_thresh", "nms_thresh", "detections_per_img", "iou_thresh",
        "topk_candidates", "positive_fraction",
    )  # fmt: skip

    def config(self) -> dict[str, Any]:
        """The arguments; backbone, anchor generator and a head of one's own described."""
        parts = dict(backbone=describe(self.backbone), anchor_generator=self.anchor_generator.config())
        head = None if self._own_head else describe(self.head)
        return {**parts, "size": list(self.size), "head": head, **{name: getattr(self, name) for name in self._NUMBERS}}

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> SSD:
        """The detector that config() described; ValueError when malformed."""
        generator, head = config.get("anchor_generator"), config.get("head")
        if not isinstance(generator, dict):
            raise ValueError("architecture: SSD needs the arguments of its anchor_generator")
        parts = dict(backbone=build(config.get("backbone"), depth + 1), head=head and build(head, depth + 1))
        return cls(**{**config, **parts, "anchor_generator": DefaultBoxGenerator(**generator)})

    def _replace_head(self, num_classes: int) -> None:
        """For models.replace_head: classify into others; where boxes lie was learned and stays."""
        if not self._own_head:
            raise ValueError("replace_head: this SSD was given a head; assign another to .head")
        if num_classes < 2:
            raise ValueError(f"replace_head: an SSD has at least 2 classes, the background included, got {num_classes}")
        layers = self.head.classification_head.module_list
        anchors = self.anchor_generator.num_anchors_per_location()
        self.head.classification_head = SSDScoringHead([layer.in_channels for layer in layers], anchors, num_classes)
        self.num_classes = num_classes


def ssd300_vgg16(num_classes: int = 91, **kwargs: Any) -> SSD:
    """SSD300 on VGG-16: 35,641,826 parameters for 91 classes (the background included)."""
    generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    scale = dict(image_mean=[0.48235, 0.45882, 0.40784], image_std=[1 / 255] * 3)  # of colours from 0 to 1 to 0 to 255
    return SSD(SSDFeatureExtractorVGG(vgg16()), generator, (300, 300), num_classes, **{**scale, **kwargs})
