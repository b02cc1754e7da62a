"""`fastcnn profile`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any, cast

import numpy as np

from . import nn, optim
from .graph.autograd import trace
from .models import SSD, get_model_builder, input_shape
from .profiling import profile
from .step import TrainingStep, compile_step
from .viz.roofline import check_plot

AUXILIARY = 0.4  # the weight of auxiliary outputs' losses; the papers have 0.3 and 0.4


def run_profile(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    maker = get_model_builder(arguments.model)
    picture = _picture(arguments)  # before the work
    shape = _shape(arguments.model, arguments.size)
    x = np.random.default_rng(0).standard_normal((arguments.batch, *shape)).astype(np.float32)
    model = maker().train(arguments.train)
    options = dict(runs=arguments.runs, recalibrate=arguments.recalibrate)
    if arguments.train:
        step, y, what = training(model, x)
        found = profile(step, x, y, **options)
    else:
        found, what = profile(model, x, **options), "inference"
    rate = 1e3 * arguments.batch / found.wall_ms
    if arguments.json:
        run = {"model": arguments.model, "mode": "train" if arguments.train else "infer", "what": what}
        print(json.dumps({**run, "input": list(x.shape), "items_per_second": rate, **found.numbers()}, indent=1))
    else:
        size = " x ".join(map(str, x.shape))
        print(f"{arguments.model}, {what}, input {size}: {found.wall_ms:.4g} ms a run, {rate:.1f} items/s")
        print(found.text(arguments.top))
    if picture:
        found.plot(picture)
        print(f"picture: {picture}", file=sys.stderr)
    return 0


def _picture(arguments: argparse.Namespace) -> str:
    """Where it goes, "" for none: what was not asked for is left out beside JSON, and where it cannot be written."""
    if arguments.plot:
        check_plot(arguments.plot)
    if arguments.plot is not None or arguments.json or not os.access(".", os.W_OK):
        return arguments.plot or ""
    picture = f"profile-{arguments.model}.png"
    try:
        check_plot(picture)
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
        return ""
    return picture


def _shape(name: str, size: tuple[int, int] | None) -> tuple[int, ...]:
    """The shape of one item, its height and width those asked for."""
    shape = input_shape(name)
    if size is None:
        return shape
    if len(shape) != 3:
        raise ValueError(f"--size: {name} takes items of shape {shape}, which have no height and width")
    return (shape[0], *size)


def training(model: nn.Module, x: np.ndarray) -> tuple[TrainingStep, Any, str]:
    """(step, y, what it is): a step with SGD and momentum on random targets of the kind that the model is trained on.

    A detector: its own loss, some boxes an image. Else class indices and cross-entropy, for each pixel where the output
    has pixels, for outputs of one number its squared error; auxiliary outputs count AUXILIARY of the same.
    """
    rng = np.random.default_rng(1)
    optimizer = optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    if isinstance(model, SSD):
        y = model.encode_targets(_boxes(rng, len(x), model), x)
        return compile_step(model, model.loss, optimizer), y, "training step (the detector's loss, SGD)"
    first, *others = trace(model, [x])[1]
    name, loss = "cross-entropy", cast(nn.Module, nn.CrossEntropyLoss())
    target = rng.integers(0, first.shape[1], (first.shape[0], *first.shape[2:]))
    if first.shape[1] == 1:
        name, loss = "squared error", nn.MSELoss()
        target = rng.standard_normal(first.shape).astype(np.float32)

    def objective(out: Any, y: Any) -> Any:
        if not isinstance(out, tuple):
            return loss(out, y)
        return sum((AUXILIARY * loss(auxiliary, y) for auxiliary in out[1:]), loss(out[0], y))

    extra = f" + {AUXILIARY} of {len(others)} auxiliary outputs'" if others else ""
    return compile_step(model, objective, optimizer), target, f"training step ({name}{extra}, SGD)"


def _boxes(rng: np.random.Generator, images: int, model: SSD) -> list[dict[str, np.ndarray]]:
    """Four boxes in each image."""
    corners = np.sort(rng.random((images, 4, 2, 2)), axis=2).astype(np.float32)  # [image][box][low, high][x, y]
    corners[:, :, 1] = np.maximum(corners[:, :, 1], corners[:, :, 0] + 0.05)
    boxes = (corners * np.array(model.size, np.float32)).reshape(images, 4, 4)
    labels = rng.integers(1, model.num_classes, (images, 4))
    return [{"boxes": b, "labels": c} for b, c in zip(boxes, labels, strict=True)]
