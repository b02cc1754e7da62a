"""`fastcnn train`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import fastcnn

from .callbacks import Callback
from .cli import DATA, DEFAULTS, OPTIMIZERS
from .data import DataLoader, Dataset, RandomShift
from .io import FileFormatError, load_checkpoint, read_info, save, save_checkpoint
from .models import input_shape
from .nn import CrossEntropyLoss
from .optim import SGD, Adam
from .optim.lr_scheduler import CosineAnnealingLR
from .viz import save_curves


def train(arguments: argparse.Namespace, model_maker: Any, read_data: Any) -> int:
    """Run the command; returns the exit code."""
    settings = _settings(arguments)
    maker = model_maker(arguments.model)
    shape = input_shape(arguments.model)
    if shape != (1, 28, 28):
        raise ValueError(f"{arguments.model} takes items of shape {shape}; the data sets here are 1 x 28 x 28 digits")
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    stem = out / f"{arguments.model}-{settings['data']}"
    training, test = read_data(settings["data"], arguments.data_dir)
    fastcnn.manual_seed(settings["seed"])
    model = maker(num_classes=len(training.classes))
    optimizer = _optimizer(model, settings)
    done, history = 0, {}
    if arguments.resume:
        before = read_info(arguments.resume).get("optimizer", settings["optimizer"])
        if before != settings["optimizer"]:
            raise ValueError(f"{arguments.resume} was trained with {before}; --optimizer cannot change it on --resume")
        state = load_checkpoint(arguments.resume, model, optimizer)
        done, history = state["epoch"], state["history"]
        if done >= settings["epochs"]:
            raise ValueError(f"{arguments.resume} has had {done} epochs already; ask for more with --epochs")
        if arguments.lr is not None:
            for group in optimizer.param_groups:
                group["initial_lr"] = arguments.lr
    scheduler = CosineAnnealingLR(optimizer, T_max=settings["epochs"], last_epoch=done - 1)
    info = _info(arguments.model, settings, training)
    checkpoints = _Checkpoints(Path(f"{stem}.checkpoint.safetensors"), history, info)
    transform = RandomShift(settings["shift"], training.shift) if settings["shift"] else None
    loader = DataLoader(
        training,
        settings["batch_size"],
        shuffle=True,
        seed=settings["seed"],
        transform=transform,
    )
    print(
        f"{arguments.model} on {training.name}: {len(training):,} training and {len(test):,} test "
        f"images, {fastcnn.get_num_threads()} threads",
        flush=True,
    )
    trainer = fastcnn.Trainer(
        model, CrossEntropyLoss(), optimizer, scheduler=scheduler, clip_grad_norm=settings.get("clip_grad_norm")
    )
    fitted = trainer.fit(
        loader,
        validation=test,
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        callbacks=[checkpoints],
        seed=settings["seed"],
        progress=not arguments.quiet,
        initial_epoch=done,
    )
    if fitted.interrupted:
        return _interrupted(arguments, checkpoints)
    accuracy = fitted["val_accuracy"][-1]
    path = Path(f"{stem}.safetensors")
    save(model, path, {**info, "test_accuracy": accuracy})
    curves = save_curves(checkpoints.history, stem, f"{arguments.model} on {training.name}")
    _report(accuracy, fitted, path, [checkpoints.path, *curves], training)
    return 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What to train with: the command line's, else the checkpoint's, else the defaults."""
    settings: dict[str, Any] = {"data": "digits", "optimizer": "adam", "lr": None, "seed": 0}
    kept: dict[str, Any] = {}
    if arguments.resume:
        info = read_info(arguments.resume)
        if info.get("model") != arguments.model:
            raise FileFormatError(f"{arguments.resume} is not a checkpoint of `fastcnn train {arguments.model}`")
        kept = _checked(arguments.resume, info.get("training"))
    given = {name: getattr(arguments, name, None) for name in (*settings, "epochs", "batch_size", "clip_grad_norm")}
    given = {name: value for name, value in given.items() if value is not None}
    data = given.get("data") or kept.get("data") or settings["data"]
    settings.update(DEFAULTS[data])
    settings.update({**kept, **given, "data": data})
    if settings["lr"] is None or (arguments.optimizer and arguments.lr is None):
        settings["lr"] = OPTIMIZERS[settings["optimizer"]]
    return settings


def _checked(path: str, kept: Any) -> dict[str, Any]:
    """The settings in a checkpoint, none of them trusted."""
    kinds = {"epochs": int, "batch_size": int, "seed": int, "shift": int, "lr": float}
    if isinstance(kept, dict) and "clip_grad_norm" in kept:  # only where one was asked for
        kinds["clip_grad_norm"] = float
    ok = isinstance(kept, dict) and set(kept) == {*kinds, "data", "optimizer"}
    ok = ok and kept["data"] in DATA and kept["optimizer"] in OPTIMIZERS
    for name, kind in kinds.items():
        ok = ok and isinstance(kept[name], kind) and 0 <= kept[name] < 2**31
    if not ok or not kept["epochs"] or not kept["batch_size"] or kept["shift"] > 8:
        raise FileFormatError(f"{path}: the settings of its training are malformed")
    return kept


def _optimizer(model: Any, settings: dict[str, Any]) -> Any:
    if settings["optimizer"] == "sgd":
        return SGD(model.parameters(), lr=settings["lr"], momentum=0.9)
    return Adam(model.parameters(), lr=settings["lr"])


def _info(model: str, settings: dict[str, Any], training: Dataset) -> dict[str, Any]:
    """What is kept with the weights, for predict, evaluate and --resume."""
    return {
        "model": model,
        "data": training.name,
        "classes": list(training.classes or ()),
        "shape": list(training.images.shape[1:]),
        "scale": training.scale,
        "shift": training.shift,
        "training": settings,
    }


class _Checkpoints(Callback):
    """Saves a checkpoint after every epoch, and gathers the history over all runs."""

    def __init__(self, path: Path, history: dict[str, Any], info: dict[str, Any]) -> None:
        self.path = path
        self.history = {name: list(values) for name, values in history.items()}
        self.info = info
        self.epoch = 0

    def on_epoch_end(self, trainer: Any, epoch: int, logs: Any) -> None:
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        save_checkpoint(self.path, trainer.model, trainer.optimizer, epoch, self.history, info=self.info)
        self.epoch = epoch


def _interrupted(arguments: argparse.Namespace, checkpoints: _Checkpoints) -> int:
    if checkpoints.epoch:
        path = shlex.quote(str(checkpoints.path))
        folder = f" --data-dir {shlex.quote(arguments.data_dir)}" if arguments.data_dir else ""
        text = (
            f"after epoch {checkpoints.epoch}; go on with\n"
            f"  fastcnn train {arguments.model}{folder} --out {shlex.quote(arguments.out)} "
            f"--resume {path}"
        )
    else:
        text = "before the first epoch was over; nothing was saved"
    print(f"\ninterrupted {text}", file=sys.stderr)
    return 130


def _report(accuracy: float, fitted: Any, path: Path, others: list[Path], training: Dataset) -> None:
    seconds = sum(fitted["seconds"])
    file = shlex.quote(str(path))
    shape = ", ".join(str(size) for size in training.images.shape[1:])
    print(
        f"\ntest accuracy {100 * accuracy:.2f} %  "
        f"({len(fitted['seconds'])} epochs, {seconds:.1f} s of training)\n"
        f"saved  {path}\n"
        f"       {', '.join(str(other) for other in others)}\n"
        f"use    fastcnn predict {file} IMAGE...\n"
        f"       fastcnn evaluate {file}\n"
        f'       model = fastcnn.load("{path}"); model(x)'
        f"   # x: float32 [N, {shape}] = pixel * {training.scale:.6g} + ({training.shift:.6g})"
    )
