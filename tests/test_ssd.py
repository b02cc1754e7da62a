"""Boxes and the SSD detector: float64 references, torchvision's pieces, a training that finds squares, errors."""

import copy
import json

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim
from fastcnn.models.anchors import BoxCoder, DefaultBoxGenerator, hard_negatives, match
from fastcnn.models.ssd import SSDHead
from fastcnn.nn.registry import build, describe


def random_boxes(rng, count, size=100.0):
    corner = rng.random((count, 2)) * size * 0.8
    return np.concatenate([corner, corner + 1 + rng.random((count, 2)) * size * 0.4], 1).astype(np.float32)


def plain_iou(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def plain_nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(plain_iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.fixture
def detection(torchvision):
    """torchvision's detection models."""
    import torchvision.models.detection as theirs

    return theirs


# ---- boxes ---------------------------------------------------------------------------------------------------------
def test_iou_and_nms():
    rng = np.random.default_rng(0)
    for count in (1, 2, 60):
        boxes, scores = random_boxes(rng, count), rng.random(count)
        want = [[plain_iou(a, b) for b in boxes] for a in boxes]
        np.testing.assert_allclose(F.box_iou(boxes, boxes), want, rtol=1e-5, atol=1e-6)
        for threshold in (0.0, 0.3, 0.7):
            kept = F.nms(boxes, scores, threshold)
            assert kept.dtype == np.int64 and kept.tolist() == plain_nms(boxes, scores, threshold)
        labels = rng.integers(0, 3, count)
        by_class = [
            np.flatnonzero(labels == c)[plain_nms(boxes[labels == c], scores[labels == c], 0.3)] for c in range(3)
        ]
        want = sorted(np.concatenate(by_class).astype(int).tolist(), key=lambda i: -scores[i])
        assert F.batched_nms(boxes, scores, labels, 0.3).tolist() == want
    same = np.tile(random_boxes(rng, 1), (3, 1))
    assert F.nms(same, [1, 1, 1], 0.5).tolist() == [0]  # of equal scores the first
    assert F.nms([], [], 0.5).shape == (0,) and F.batched_nms([], [], [], 0.5).shape == (0,)
    assert F.box_iou(np.zeros((0, 4)), same).shape == (0, 3)


def test_conversion_and_clipping(detection):
    import torch
    from torchvision.ops import boxes as theirs

    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 7)
    for first in ("xyxy", "xywh", "cxcywh"):
        for second in ("xyxy", "xywh", "cxcywh"):
            want = theirs.box_convert(torch.tensor(boxes), first, second).numpy()
            np.testing.assert_allclose(F.box_convert(boxes, first, second), want, rtol=1e-6, atol=1e-5)
    moved = boxes - 30
    want = theirs.clip_boxes_to_image(torch.tensor(moved), (40, 50)).numpy()
    np.testing.assert_array_equal(F.clip_boxes_to_image(moved, (40, 50)), want)
    np.testing.assert_allclose(
        F.box_iou(boxes, boxes[:3]), theirs.box_iou(torch.tensor(boxes), torch.tensor(boxes[:3])).numpy(), rtol=1e-5
    )
    assert F.box_convert([[1, 2, 3, 4]], "xywh", "xyxy").tolist() == [[1, 2, 4, 6]]


@pytest.mark.parametrize(
    "options",
    [
        dict(aspect_ratios=[[2], [2, 3]]),
        dict(aspect_ratios=[[2]], min_ratio=0.2, max_ratio=0.7),
        dict(aspect_ratios=[[2], [2, 3]], scales=[0.5, 0.9, 1.05], steps=[8, 20], clip=False),
        dict(aspect_ratios=[[2], [2, 3]], scales=[0.5, 0.9, 1.05]),
    ],
)
def test_default_boxes_as_torchvision(options, detection):
    import torch
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as Theirs
    from torchvision.models.detection.image_list import ImageList

    theirs, ours = Theirs(**options), DefaultBoxGenerator(**options)
    grids = [(7, 9), (3, 2)][: len(options["aspect_ratios"])]
    images = ImageList(torch.zeros(1, 3, 60, 80), [(60, 80)])
    want = theirs(images, [torch.zeros(1, 4, *grid) for grid in grids])[0].numpy()
    np.testing.assert_allclose(ours.boxes(grids, (60, 80)), want, rtol=1e-5, atol=1e-4)
    assert ours.num_anchors_per_location() == theirs.num_anchors_per_location()
    again = DefaultBoxGenerator(**json.loads(json.dumps(ours.config())))
    np.testing.assert_array_equal(again.boxes(grids, (60, 80)), ours.boxes(grids, (60, 80)))


def test_coding_as_torchvision(detection):
    import torch
    from torchvision.models.detection._utils import BoxCoder as Theirs

    rng = np.random.default_rng(2)
    boxes, anchors = random_boxes(rng, 20), random_boxes(rng, 20)
    theirs, ours = Theirs((10.0, 10.0, 5.0, 5.0)), BoxCoder()
    codes = ours.encode_single(boxes, anchors)
    want = theirs.encode_single(torch.tensor(boxes), torch.tensor(anchors)).numpy()
    np.testing.assert_allclose(codes, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.decode_single(codes, anchors), boxes, rtol=1e-4, atol=1e-4)
    wild = (rng.standard_normal((20, 4)) * 20).astype(np.float32)  # beyond what decode takes
    want = theirs.decode_single(torch.tensor(wild), torch.tensor(anchors)).numpy()
    np.testing.assert_allclose(ours.decode_single(wild, anchors), want, rtol=1e-4, atol=1e-2)


def test_matching_as_torchvision(detection):
    import torch
    from torchvision.models.detection._utils import SSDMatcher

    rng = np.random.default_rng(3)
    for count in (1, 5):
        boxes, anchors = random_boxes(rng, count), random_boxes(rng, 50)
        want = SSDMatcher(0.5)(torch.tensor(F.box_iou(boxes, anchors))).numpy()
        matched = match(boxes, anchors, 0.5)
        np.testing.assert_array_equal(matched, want)
        assert set(range(count)) <= set(matched.tolist())
    assert (match(np.zeros((0, 4), np.float32), anchors, 0.5) == -1).all()


def test_hard_negatives():
    losses = np.array([[9, 1, 5, 3, 2], [4, 3, 2, 1, 0]], np.float32)
    foreground = np.array([[True, False, False, False, False], [True, True, False, False, False]])
    want = [[False, False, True, True, False], [False, False, True, True, True]]
    np.testing.assert_array_equal(hard_negatives(losses, foreground, 2.0), want)
    assert not hard_negatives(losses, np.zeros((2, 5), bool), 3.0).any()


# ---- the network ---------------------------------------------------------------------------------------------------
SIZE, CLASSES = 64, 4
OPTIONS = dict(size=(SIZE, SIZE), num_classes=CLASSES)


class TwoMaps(nn.Module):
    """[N, 3, 64, 64] -> maps of 8 x 8 and 4 x 4."""

    def __init__(self, channels=3, width=16):
        super().__init__()
        self.out_channels = [width, width]
        sizes = (channels, width, width, width)
        layers = [
            m
            for i, o in zip(sizes, sizes[1:])
            for m in (nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        ]
        self.first = nn.Sequential(*layers)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())

    def forward(self, x):
        first = self.first(x)
        return {"0": first, "1": self.second(first)}


def pair(detection):
    """The same detector with the same weights: theirs, ours."""
    import torch

    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            t, sizes = torch.nn, (3, 16, 16, 16)
            layers = [
                m
                for i, o in zip(sizes, sizes[1:])
                for m in (t.Conv2d(i, o, 3, 2, 1, bias=False), t.BatchNorm2d(o), t.ReLU())
            ]
            self.out_channels = [16, 16]
            self.first = t.Sequential(*layers)
            self.second = t.Sequential(t.Conv2d(16, 16, 3, 2, 1), t.ReLU())

        def forward(self, x):
            first = self.first(x)
            return {"0": first, "1": self.second(first)}

    torch.manual_seed(0)
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator as Theirs

    ratios = [[2], [2, 3]]
    theirs = detection.ssd.SSD(Backbone(), Theirs(ratios), **OPTIONS)
    ours = models.SSD(TwoMaps(), DefaultBoxGenerator(ratios), **OPTIONS)
    with torch.no_grad():
        for layer in theirs.head.classification_head.module_list:
            layer.weight.mul_(4)  # scores that differ
    state = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state)
    return theirs, ours


def data(rng, count=3, height=SIZE, width=SIZE):
    images = rng.random((count, 3, height, width)).astype(np.float32)
    targets = []
    for i in range(count):
        targets.append(
            {"boxes": random_boxes(rng, i, 50.0), "labels": rng.integers(1, CLASSES, i)}
        )  # the first has none
    return images, targets


def test_head_as_torchvision(detection):
    import torch

    theirs = detection.ssd.SSDHead([8, 6], [4, 6], 5)
    ours = SSDHead([8, 6], [4, 6], 5)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state) and "classification_head.module_list.1.weight" in state
    ours.load_state_dict(state)
    rng = np.random.default_rng(4)
    maps = [rng.standard_normal((2, 8, 5, 7)).astype(np.float32), rng.standard_normal((2, 6, 3, 2)).astype(np.float32)]
    want = theirs([torch.tensor(m) for m in maps])
    boxes, logits = ours(*maps)
    assert boxes.shape == (2, 176, 4) and logits.shape == (2, 176, 5)
    np.testing.assert_allclose(boxes, want["bbox_regression"].detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits, want["cls_logits"].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_training_as_torchvision(detection):
    """Losses, and all gradients, in the two ways of training, against torchvision's SSD with the same weights."""
    import torch

    theirs, ours = pair(detection)
    images, targets = data(np.random.default_rng(5))
    tensors = [{k: torch.tensor(np.asarray(v, np.int64 if k == "labels" else np.float32)) for k, v in t.items()}
               for t in targets]  # fmt: skip
    want = theirs([torch.tensor(i) for i in images], tensors)
    sum(want.values()).backward()
    grads = {k: p.grad.numpy() for k, p in theirs.named_parameters()}

    compiled = copy.deepcopy(ours)
    outputs = ours(images)
    parts = ours.losses(outputs, targets)
    for key, value in want.items():
        assert float(parts[key]) == pytest.approx(value.item(), rel=2e-5)
    loss = ours.loss(outputs, targets)
    loss.backward()
    optimizer = optim.SGD(compiled.parameters(), 0.5)
    step = fc.compile_step(compiled, compiled.loss, optimizer)
    before = compiled.state_dict()
    encoded = compiled.encode_targets(targets, images)
    for key, value in compiled.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)  # no trace in the running statistics
    assert step(images, encoded) == pytest.approx(float(loss), rel=1e-6)
    after = compiled.state_dict()
    for key, p in ours.named_parameters():
        close = dict(rtol=1e-3, atol=2e-4 * np.abs(grads[key]).max() + 1e-7, err_msg=key)
        np.testing.assert_allclose(p.grad, grads[key], **close)
        np.testing.assert_allclose(
            2 * (before[key] - after[key]), grads[key], **{**close, "atol": close["atol"] + 1e-6}
        )
    for key, value in theirs.named_buffers():
        for state in (ours.state_dict(), after):
            np.testing.assert_allclose(state[key], value.numpy(), rtol=1e-4, atol=1e-5, err_msg=key)


def test_detections_as_torchvision(detection, monkeypatch):
    import torch
    from torchvision.ops import boxes as theirs_boxes

    def slow(boxes, scores, idxs, iou_threshold):  # theirs needs its compiled nms
        found = [np.flatnonzero(idxs.numpy() == c) for c in np.unique(idxs.numpy())]
        keep = [m[plain_nms(boxes.numpy()[m], scores.numpy()[m], iou_threshold)] for m in found]
        keep = np.concatenate(keep) if keep else np.zeros(0, np.int64)
        return torch.tensor(keep[np.argsort(-scores.numpy()[keep], kind="stable")])

    monkeypatch.setattr(theirs_boxes, "batched_nms", slow)
    theirs, ours = pair(detection)
    rng = np.random.default_rng(6)
    images = [rng.random((3, 64, 64)), rng.random((3, 50, 80))]
    images = [i.astype(np.float32) for i in images]
    theirs.eval()
    with torch.inference_mode():
        want = theirs([torch.tensor(i) for i in images])
    got = ours.predict(images, batch_size=1)
    assert ours.training and len(got) == 2
    for ours_one, theirs_one in zip(got, want):
        assert set(ours_one) == {"boxes", "scores", "labels"} and len(ours_one["scores"]) > 20
        np.testing.assert_allclose(ours_one["scores"], theirs_one["scores"].numpy(), rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(ours_one["labels"], theirs_one["labels"].numpy())
        np.testing.assert_allclose(ours_one["boxes"], theirs_one["boxes"].numpy(), rtol=1e-3, atol=2e-2)
    ours.score_thresh, ours.detections_per_img = 0.3, 2
    few = ours.predict(images)
    assert all((d["scores"] > 0.3).all() and len(d["scores"]) <= 2 for d in few)


def test_ssd300_as_torchvision(detection):
    import torch

    theirs = detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4)
    with nn.init.skip():
        ours = models.ssd300_vgg16(num_classes=4)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state)
    x = np.random.default_rng(7).random((1, 3, 300, 300)).astype(np.float32)
    theirs.eval()
    with torch.inference_mode():
        images, _ = theirs.transform([torch.tensor(x[0])])
        features = list(theirs.backbone(images.tensors).values())
        want = theirs.head(features)
        anchors = theirs.anchor_generator(images, features)[0].numpy()
    np.testing.assert_allclose(ours.default_boxes(), anchors, rtol=1e-4, atol=1e-3)
    for got, expected in zip(ours.eval()(x), (want["bbox_regression"], want["cls_logits"])):
        expected = expected.numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# ---- any backbone --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, layers, channels",
    [
        ("resnet18", ["layer2", "layer3"], [128, 256]),
        ("mobilenet_v2", ["features.6", "features.13"], [32, 96]),
        ("squeezenet1_1", ["features.7"], [256]),
        ("densenet121", ["features.denseblock1"], [256]),
    ],
)
def test_cut_networks_give_what_the_whole_ones_do(name, layers, channels, tmp_path):
    fc.manual_seed(0)
    whole = getattr(models, name)(num_classes=3)
    body = build(json.loads(json.dumps(describe(whole))))
    body.load_state_dict(whole.state_dict())
    cut = models.SSDFeatureExtractor(body, layers, extra=(32, 16))
    assert cut.out_channels == [*channels, 32, 16] and not any("fc" in k or "classifier" in k for k in cut.state_dict())
    x = np.random.default_rng(8).standard_normal((2, 3, 64, 64)).astype(np.float32)
    maps = cut.eval()(x)
    for layer, got in zip(layers, maps):
        np.testing.assert_array_equal(got, fc.extract_features(whole, x, layer))
    assert [m.shape[1] for m in maps] == cut.out_channels and maps[-1].shape[2] == -(-maps[-2].shape[2] // 2)
    count = len(cut.out_channels)
    model = models.SSD(cut, DefaultBoxGenerator([[2]] * count), (64, 64), 3, score_thresh=0.0).eval()
    fc.save(model, tmp_path / "ssd.safetensors")
    again = fc.load(tmp_path / "ssd.safetensors")
    assert describe(again) == describe(model)
    for one, other in zip(model.predict(x)[1].values(), again.predict(x)[1].values()):
        np.testing.assert_array_equal(one, other)
    assert "backbone.body" in model.summary((2, 3, 64, 64))


def test_onnx(tmp_path):
    """Two outputs, and a map of one place, whose transpose moves nothing."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    fc.manual_seed(2)
    cut = models.SSDFeatureExtractor(models.squeezenet1_1(), ["features.7"], (32, 16, 8))
    model = models.SSD(cut, DefaultBoxGenerator([[2], [2], [], []]), (48, 48), 3).eval()
    x = np.random.default_rng(10).random((2, 3, 48, 48)).astype(np.float32)
    want = model(x)
    assert [m.shape[2] for m in cut.eval()(x)][-1] == 1
    path = str(tmp_path / "ssd.onnx")
    fc.onnx.export(model, path, (1, 3, 48, 48))
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x})
    again = fc.onnx.load(path).eval()(x)
    for value, other, expected in zip(found, again, want):
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-5)


def test_replace_head():
    model = models.SSD(TwoMaps(), DefaultBoxGenerator([[2], [2]]), **OPTIONS)
    before = model.state_dict()
    assert models.replace_head(model, 7) is model and model.num_classes == 7
    changed = {k for k, v in model.state_dict().items() if v.shape != before[k].shape}
    assert changed and all(k.startswith("head.classification_head.") for k in changed)
    assert model(np.zeros((2, 3, SIZE, SIZE), np.float32))[1].shape[2] == 7
    with pytest.raises(ValueError, match="at least 2 classes"):
        models.replace_head(model, 1)


def squares(rng, count, size=48):
    """Noise with one to three bright squares that do not touch: class 1 filled, class 2 with a dark middle."""
    images = 0.2 * rng.random((count, 1, size, size)).astype(np.float32)
    targets = []
    for image in images:
        boxes, labels = [], []
        for _ in range(rng.integers(1, 4)):
            side = int(rng.integers(10, 19))
            x, y = rng.integers(0, size - side, 2)
            if any(x < b[2] + 2 and b[0] < x + side + 2 and y < b[3] + 2 and b[1] < y + side + 2 for b in boxes):
                continue
            label = int(rng.integers(1, 3))
            image[0, y : y + side, x : x + side] = 1
            if label == 2:
                image[0, y + 3 : y + side - 3, x + 3 : x + side - 3] = 0
            boxes.append([x, y, x + side, y + side])
            labels.append(label)
        targets.append({"boxes": boxes, "labels": labels})
    return images, targets


@pytest.mark.parametrize("compiled", [False, True])
def test_learns_to_find_squares(compiled):
    rng = np.random.default_rng(9)
    fc.manual_seed(1)
    generator = DefaultBoxGenerator([[], []], scales=[0.22, 0.33, 0.4])
    statistics = dict(image_mean=[0.2], image_std=[0.3])
    model = models.SSD(TwoMaps(1), generator, (48, 48), 3, **statistics, score_thresh=0.3)
    optimizer = optim.Adam(model.parameters(), 5e-3)
    step = fc.compile_step(model, model.loss, optimizer)
    for i in range(300):
        optimizer.param_groups[0]["lr"] = 5e-3 if i < 200 else 1e-3
        x, targets = squares(rng, 16)
        if compiled:
            step(x, model.encode_targets(targets, x))
        else:
            loss = model.loss(model(x), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    x, targets = squares(rng, 50)
    overlaps, wrong = [], 0
    for found, target in zip(model.predict(x), targets):
        overlap = F.box_iou(target["boxes"], found["boxes"]) * (np.array(target["labels"])[:, None] == found["labels"])
        overlaps += overlap.max(1).tolist() if overlap.size else [0.0] * len(target["boxes"])
        wrong += int((overlap.max(0) < 0.5).sum()) if overlap.size else len(found["boxes"])
    assert np.mean(np.array(overlaps) > 0.5) > 0.8 and np.mean(overlaps) > 0.7, (np.mean(overlaps), wrong)
    assert wrong < 0.1 * len(overlaps)


# ---- errors --------------------------------------------------------------------------------------------------------
def small():
    return models.SSD(TwoMaps(), DefaultBoxGenerator([[2], [2]]), **OPTIONS)


IMAGES = np.zeros((1, 3, SIZE, SIZE), np.float32)
BOX = [[1, 2, 30, 40]]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: F.nms(np.zeros((3, 5)), np.zeros(3), 0.5),
            ValueError,
            r"nms: boxes must have shape \(N, 4\).*\(3, 5\)",
        ),
        (lambda: F.nms(np.zeros((3, 4)), np.zeros(2), 0.5), ValueError, r"nms: scores must have shape \(3,\)"),
        (
            lambda: F.nms(np.zeros((3, 4)), np.zeros(3), 1.5),
            ValueError,
            "iou_threshold must be between 0 and 1, got 1.5",
        ),
        (lambda: F.box_convert(BOX, "xyxy", "xywhr"), ValueError, "out_fmt must be one of 'xyxy'.*'xywhr'"),
        (lambda: F.box_iou(BOX, [["a"] * 4]), TypeError, "boxes2 must be an array of numbers"),
        (lambda: DefaultBoxGenerator([2, 3]), TypeError, "aspect_ratios must be a list"),
        (lambda: DefaultBoxGenerator([[-1]]), ValueError, "aspect_ratios must be positive"),
        (lambda: DefaultBoxGenerator([[2], [2]], steps=[8]), ValueError, "steps must have 2 numbers"),
        (lambda: DefaultBoxGenerator([[2], [2]], scales=[0.1, 0.2]), ValueError, "scales must have 3 numbers"),
        (lambda: DefaultBoxGenerator([[2]]).boxes([(3, 3), (2, 2)], (9, 9)), ValueError, "for 1 maps, got 2 maps"),
        (lambda: models.SSD(TwoMaps(), DefaultBoxGenerator([[2]]), (64, 64), 3), ValueError, "gives 2 maps.*is for 1"),
        (lambda: models.SSD(TwoMaps(), [[2]], (64, 64), 3), TypeError, "must be a DefaultBoxGenerator, got list"),
        (lambda: models.SSD(TwoMaps(), DefaultBoxGenerator([[2]]), (64, 64), 1), ValueError, "num_classes.*at least 2"),
        (lambda: small()(np.zeros((1, 3, 32, 64), np.float32)), ValueError, r"\(N, 3, 64, 64\), got \(1, 3, 32, 64\)"),
        (lambda: small().loss(small()(IMAGES), []), ValueError, "a list of 1 dicts, one for each image, got 0"),
        (lambda: small().loss(small()(IMAGES), [{"boxes": BOX}]), ValueError, r'targets\[0\].*"boxes" and "labels"'),
        (
            lambda: small().loss(small()(IMAGES), [{"boxes": BOX, "labels": [1, 2]}]),
            ValueError,
            r"\(M, 4\) and labels \(M,\), got \(1, 4\) and \(2,\)",
        ),
        (
            lambda: small().loss(small()(IMAGES), [{"boxes": [[5, 5, 5, 9]], "labels": [1]}]),
            ValueError,
            r"box \[5.0, 5.0, 5.0, 9.0\] must have x1 < x2",
        ),
        (lambda: small().loss(small()(IMAGES), [{"boxes": BOX, "labels": [4]}]), ValueError, "labels must be 1 to 3"),
        (
            lambda: small().loss(small()(IMAGES), [{"boxes": BOX, "labels": [1.5]}]),
            TypeError,
            "labels must be integers",
        ),
        (lambda: small().predict([np.zeros((3, 9, 9), np.uint8)]), ValueError, r"images\[0\] must be floats"),
        (lambda: small().predict([np.zeros((1, 9, 9))]), ValueError, r"of shape \(3, H, W\)"),
        (
            lambda: models.SSDFeatureExtractor(models.resnet18(), ["layer9"]),
            ValueError,
            "'layer9' is not called; .*layer4",
        ),
        (
            lambda: models.SSDFeatureExtractor(models.resnet18(), ["layer1.0.relu"]),
            ValueError,
            "'layer1.0.relu' is called 2 times",
        ),
        (lambda: models.SSDFeatureExtractor(models.resnet18(), ["fc"]), ValueError, "'fc' does not give a map"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_raw_targets_in_a_compiled_step_are_an_error():
    model = small()
    step = fc.compile_step(
        model, lambda out, y: model.loss(out, [{"boxes": BOX, "labels": [1]}]), optim.SGD(model.parameters(), 0.1)
    )
    with pytest.raises(TypeError, match="must be what encode_targets"):
        step(IMAGES, np.zeros(1))
