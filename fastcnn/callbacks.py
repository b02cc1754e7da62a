"""What may happen around training: base class, checkpoints, early stopping, learning rates, a CSV log.

Epochs count from 1. logs is the epoch's {"loss": ..., "accuracy": ..., "val_loss": ..., ..., "seconds": ...}.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastcnn.train import History, Trainer


class Callback:
    """Base class: override what is needed. trainer.stop_training = True ends the fit after the epoch."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before an epoch's first batch."""

    def on_batch_end(self, trainer: Trainer, batch: int, logs: Mapping[str, float]) -> None:
        """After a batch (counted from 1); logs are the epoch's means so far."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        """After an epoch and its validation."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """After the last epoch, also when stopped early or by Ctrl-C (history.interrupted)."""


def as_callbacks(owner: str, callbacks: Any) -> list[Callback]:
    """`callbacks` as a list; TypeError unless it holds instances of Callback."""
    if callbacks is None:
        return []
    if isinstance(callbacks, (Callback, type, str)) or not hasattr(callbacks, "__iter__"):
        what = f"the class {callbacks.__name__}" if isinstance(callbacks, type) else f"one {type(callbacks).__name__}"
        raise TypeError(f"{owner}: callbacks must be a list of Callbacks, got {what}")
    found = list(callbacks)
    for item in found:
        if isinstance(item, type) and issubclass(item, Callback):
            raise TypeError(f"{owner}: callbacks must hold instances, got the class {item.__name__}; call it")
        if not isinstance(item, Callback):
            raise TypeError(f"{owner}: callbacks must be instances of fastcnn.Callback, got {type(item).__name__}")
    return found


class _Monitor:
    """Whether a watched value is the best so far. NaN never is."""

    def __init__(self, owner: str, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{owner}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        if mode == "auto":
            mode = "min" if "loss" in monitor or "error" in monitor else "max"
        self.owner, self.monitor, self.min_delta = owner, monitor, abs(min_delta)
        self.sign = 1.0 if mode == "min" else -1.0
        self.reset()

    def reset(self) -> None:
        self.best = math.inf

    def better(self, logs: Mapping[str, float]) -> bool:
        if self.monitor not in logs:
            hint = "; give fit() validation=" if self.monitor.startswith("val_") else ""
            raise ValueError(f"{self.owner}: monitor {self.monitor!r} is not among {', '.join(logs)}{hint}")
        value = self.sign * logs[self.monitor]
        if value < self.best - self.min_delta:
            self.best = value
            return True
        return False


class ModelCheckpoint(Callback):
    """Saves the model (fastcnn.save) after every epoch, or only when `monitor` is the best so far.

    path may hold fields: "model-{epoch:02d}-{val_accuracy:.3f}.safetensors". mode "auto" takes the smallest value of a
    loss or error and the largest of anything else. ValueError if monitor is not among the logs.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
    ) -> None:
        self.path = os.fspath(path)
        self.save_best_only = save_best_only
        self.last_path: str | None = None
        self._monitor = _Monitor("ModelCheckpoint", monitor, mode)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        """Save, perhaps."""
        if self.save_best_only and not self._monitor.better(logs):
            return
        import fastcnn

        path = self.path.format(epoch=epoch, **logs) if "{" in self.path else self.path
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        fastcnn.save(trainer.model, path)
        self.last_path = path


class EarlyStopping(Callback):
    """Ends the fit when `monitor` has not improved by more than min_delta for `patience` epochs.

    restore_best_weights: whatever ends the fit, the model is left with the weights of its best epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        if patience < 0:
            raise ValueError(f"EarlyStopping: patience must be at least 0, got {patience}")
        self.patience = patience
        self.restore_best_weights = restore_best_weights
        self.best_epoch = 0
        self.stopped_epoch = 0
        self._weights: dict[str, np.ndarray] | None = None
        self._monitor = _Monitor("EarlyStopping", monitor, mode, min_delta)

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Forget earlier fits."""
        self._monitor.reset()
        self.best_epoch = self.stopped_epoch = self._waited = 0
        self._weights = None

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        """Compare, keep the weights or count the wait."""
        if self._monitor.better(logs):
            self.best_epoch, self._waited = epoch, 0
            if self.restore_best_weights:
                state = trainer.model.state_dict()
                self._weights = {name: np.array(array) for name, array in state.items()}
            return
        self._waited += 1
        if self._waited >= self.patience:
            self.stopped_epoch = epoch
            trainer.stop_training = True

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """Put the best weights back."""
        if self._weights is not None:
            trainer.model.load_state_dict(self._weights)
            self._weights = None


class LRSchedulerCallback(Callback):
    """Calls scheduler.step() after every epoch, or after every batch with interval="batch"."""

    def __init__(self, scheduler: Any, interval: str = "epoch") -> None:
        if interval not in ("epoch", "batch"):
            raise ValueError(f"LRSchedulerCallback: interval must be 'epoch' or 'batch', got {interval!r}")
        self.scheduler, self.interval = scheduler, interval

    def on_batch_end(self, trainer: Trainer, batch: int, logs: Mapping[str, float]) -> None:
        """Step, if by batch."""
        if self.interval == "batch":
            self.scheduler.step()

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        """Step, if by epoch."""
        if self.interval == "epoch":
            self.scheduler.step()


class CSVLogger(Callback):
    """Writes a line per epoch to a CSV file: epoch and the logs. append: go on in an existing file."""

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = Path(path)
        self.append = append
        self._fresh = True

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Begin the file anew, unless appending."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fresh = not (self.append and self.path.exists() and self.path.stat().st_size > 0)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: Mapping[str, float]) -> None:
        """Write the line; the file is closed again at once."""
        with open(self.path, "w" if self._fresh else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if self._fresh:
                writer.writerow(["epoch", *logs])
            writer.writerow([epoch, *logs.values()])
        self._fresh = False
