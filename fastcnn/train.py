"""Trainer: fit, evaluate and predict over compiled steps."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastcnn import metrics as metric_functions
from fastcnn import progress as displays
from fastcnn.arrays import as_array
from fastcnn.callbacks import Callback, as_callbacks
from fastcnn.data import DataLoader, Dataset
from fastcnn.data.loader import as_dataset
from fastcnn.nn import check
from fastcnn.nn.loss import CrossEntropyLoss, NLLLoss
from fastcnn.nn.module import Module
from fastcnn.optim import Adam
from fastcnn.optim.clip import check_clipping
from fastcnn.optim.lr_scheduler import CosineAnnealingLR
from fastcnn.random import generator

DEFAULT_LR = 2e-3  # of Adam, falling to 0 along a cosine: LeNet-5 passes 99 % on MNIST in 5 epochs


class History(dict[str, list[float]]):
    """One list per quantity (loss, accuracy, val_loss, val_accuracy, seconds), one item per finished epoch.

    epoch: the epochs' numbers, from 1; interrupted: whether Ctrl-C ended the fit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch: list[int] = []
        self.interrupted = False

    def record(self, epoch: int, logs: dict[str, float]) -> None:
        """Add a finished epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.setdefault(name, []).append(value)


class _Totals:
    """Sums of loss and metrics over the samples seen so far."""

    def __init__(self, metrics: dict[str, metric_functions.Metric], loss: Any) -> None:
        self.functions = list(metrics.items())
        self.loss_function = loss
        self.samples = self.counted = 0
        self.loss = self.weight = 0.0
        self.right = [0.0] * len(self.functions)

    def add(self, loss: Any, output: np.ndarray, target: np.ndarray) -> None:
        count = len(target)
        self.samples += count
        if getattr(self.loss_function, "reduction", "mean") == "sum":
            self.loss += float(loss)
            self.weight += count
        else:
            weight = _weight(self.loss_function, target)
            if weight > 0:  # else the batch's mean is 0 / 0
                self.loss += float(loss) * weight
                self.weight += weight
        if self.functions:
            output, target = _counted(self.loss_function, output, target)
        self.counted += len(target)
        for index, (_, function) in enumerate(self.functions if len(target) else ()):
            self.right[index] += function(output, target)

    def means(self) -> dict[str, float]:
        logs = {"loss": self.loss / self.weight if self.weight else math.nan}
        for (name, _), right in zip(self.functions, self.right, strict=True):
            logs[name] = right / self.counted if self.counted else math.nan
        return logs


def _counted(loss: Any, output: np.ndarray, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """The samples that metrics count: those with a class at all. Pixels without one (ignore_index) become -100."""
    target = np.asarray(target)
    of_classes = hasattr(loss, "ignore_index") or not isinstance(loss, Module)
    if target.dtype.kind not in "iu" or not of_classes:
        return output, target
    ignored = target == getattr(loss, "ignore_index", metric_functions.IGNORED)
    if not ignored.any():
        return output, target
    target = target.astype(np.int64, copy=False)
    kept = ~ignored.reshape(len(target), -1).all(axis=1)
    return output[kept], np.where(ignored, metric_functions.IGNORED, target)[kept]


def _weight(loss: Any, target: np.ndarray) -> float:
    """What a mean loss over this target was divided by, so that batches add up to the mean over all."""
    if not isinstance(loss, (CrossEntropyLoss, NLLLoss)):
        return float(len(target))
    counted = np.asarray(target)[np.asarray(target) != loss.ignore_index]
    return float(counted.size if loss.weight is None else loss.weight.numpy().astype(np.float64)[counted].sum())


class Trainer:
    """Trains and evaluates a model on (x, y) arrays, Datasets or DataLoaders.

    loss: called as loss(output, target), CrossEntropyLoss() by default. metrics: names ("accuracy", "top5") or
    functions (output, target) -> number of right samples. scheduler: its step() is called after every epoch.
    Without an optimizer: Adam, with a learning rate that falls from 2e-3 to 0 along a cosine over the fit's epochs
    (a scheduler takes the cosine's place). clip_grad_norm, clip_grad_value: as compile_step's.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[[Any, Any], Any] | None = None,
        optimizer: Any = None,
        metrics: Iterable[str | metric_functions.Metric] | None = None,
        scheduler: Any = None,
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"Trainer: model must be a fastcnn Module, got {type(model).__name__}")
        self.model = model
        self.loss = CrossEntropyLoss() if loss is None else loss
        self._anneal = optimizer is None and scheduler is None
        self.optimizer = Adam(model.parameters(), lr=DEFAULT_LR) if optimizer is None else optimizer
        if metrics is None:
            of_classes = not isinstance(self.loss, Module) or isinstance(self.loss, (CrossEntropyLoss, NLLLoss))
            metrics = ("accuracy",) if of_classes else ()
        self.metrics = metric_functions.resolve(metrics)
        self.scheduler = scheduler
        self._clip = check_clipping("Trainer", clip_grad_norm, clip_grad_value)
        self.stop_training = False
        self._step: Any = None
        self._interrupt = _Interrupt()

    def fit(
        self,
        train: Any,
        validation: Any = None,
        epochs: int = 1,
        batch_size: int = 64,
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        seed: int | None = None,
        progress: bool | str | displays.Progress = True,
        initial_epoch: int = 0,
    ) -> History:
        """Train up to epoch `epochs`; initial_epoch are done already.

        train, validation: a Dataset, a pair (x [N, C, H, W], y [N]) or a DataLoader (whose batch size and order hold).
        The order of an epoch follows from (seed, epoch), so that a resumed run repeats it; seed None draws one.
        progress: True (what suits the place), False, "bar" or "plain". Ctrl-C ends the fit between two steps: the
        epochs so far are returned, with interrupted set. ValueError for empty data or arguments out of range.
        """
        for name, value in (("epochs", epochs), ("initial_epoch", initial_epoch)):
            check.integer("Trainer.fit", name, value)
        check.integer("Trainer.fit", "batch_size", batch_size, 1)
        callbacks = as_callbacks("Trainer.fit", callbacks)
        if epochs < 1 or not 0 <= initial_epoch < epochs:
            raise ValueError(
                f"Trainer.fit: epochs must be at least 1 and initial_epoch in [0, epochs), got epochs={epochs}, "
                f"initial_epoch={initial_epoch}"
            )
        if seed is None:
            seed = int(generator().integers(2**31))
        loader = _loader("train", train, batch_size, shuffle, seed)
        if initial_epoch and hasattr(loader, "set_epoch"):
            loader.set_epoch(initial_epoch)
        checking = None if validation is None else _loader("validation", validation, max(batch_size, 256))
        scheduler = self._annealing(epochs, initial_epoch) if self._anneal else self.scheduler
        history, display = History(), displays.make(progress)
        self.stop_training = False
        self.model.train()
        try:
            with self._interrupt.watch():
                for callback in callbacks:
                    callback.on_fit_begin(self)
                for epoch in range(initial_epoch + 1, epochs + 1):
                    for callback in callbacks:
                        callback.on_epoch_begin(self, epoch)
                    display.begin(epoch, epochs, len(loader) if hasattr(loader, "__len__") else None)
                    logs = self._epoch(loader, callbacks, display)
                    if checking is not None:
                        logs.update({f"val_{k}": v for k, v in self._evaluate(checking).items()})
                    logs["seconds"] = logs.pop("seconds")  # last
                    history.record(epoch, logs)
                    display.end(logs)
                    if scheduler is not None:
                        scheduler.step()
                    for callback in callbacks:
                        callback.on_epoch_end(self, epoch, logs)
                    _warn_unless_finite(epoch, logs["loss"])
                    if self.stop_training or epoch == epochs:
                        self._interrupt.pressed = False  # nothing is left to interrupt
                        break
        except KeyboardInterrupt:
            history.interrupted = True
        finally:
            display.close()
        for callback in callbacks:
            callback.on_fit_end(self, history)
        return history

    def _epoch(self, loader: Any, callbacks: Sequence[Callback], display: displays.Progress) -> dict[str, float]:
        """One pass of training steps; the means, and the seconds it took."""
        import fastcnn

        if self._step is None:
            self._step = fastcnn.compile_step(self.model, self.loss, self.optimizer, True, *self._clip)
        step, totals, clock = self._step, self._totals(), time.perf_counter
        listeners = [c for c in callbacks if type(c).on_batch_end is not Callback.on_batch_end]
        begin = clock()
        due = begin + display.interval
        for batch, (x, y) in enumerate(loader, 1):
            self._interrupt.check()
            loss, output = step(x, y)
            totals.add(loss, output, y)
            if listeners:
                logs = totals.means()
                for callback in listeners:
                    callback.on_batch_end(self, batch, logs)
            if clock() >= due:
                display.update(batch, totals.means())
                due = clock() + display.interval
        if not totals.samples:
            raise ValueError(
                "Trainer.fit: train has no batches (an iterator is used up after one epoch; give a DataLoader)"
            )
        return {**totals.means(), "seconds": clock() - begin}

    def evaluate(self, data: Any, batch_size: int = 256) -> dict[str, float]:
        """{"loss": mean over the samples, "accuracy": share of right ones}, in evaluation mode.

        data: as fit's train. ValueError if it is empty.
        """
        return self._evaluate(_loader("evaluate", data, batch_size))

    def _evaluate(self, loader: Any) -> dict[str, float]:
        totals = self._totals()
        with _evaluating(self.model):
            for x, y in loader:
                self._interrupt.check()
                output = np.asarray(self.model(x))
                totals.add(self.loss(output, y), output, y)
        if not totals.samples:
            raise ValueError("Trainer: the data to evaluate has no batches")
        return totals.means()

    def predict(self, x: Any, batch_size: int = 256) -> np.ndarray:
        """The model's outputs for x [N, ...] (or a Dataset's images), [N, ...], in evaluation mode."""
        check.integer("Trainer.predict", "batch_size", batch_size, 1)
        if isinstance(x, Dataset):
            batches = (batch for batch, _ in DataLoader(x, batch_size))
            count = len(x)
        else:
            if isinstance(x, DataLoader) or _is_batch(x):
                got = "a DataLoader" if isinstance(x, DataLoader) else "a pair (x, y)"
                raise TypeError(
                    f"Trainer.predict: x must be an array [N, ...] or a Dataset, got {got}; give the images"
                )
            x = as_array(x, "Trainer.predict: x")
            count = len(x) if x.ndim else 0
            batches = (x[i : i + batch_size] for i in range(0, count, batch_size))
        if not count:
            raise ValueError(f"Trainer.predict: x must hold at least one sample, got shape {np.shape(x)}")
        result: np.ndarray | None = None
        done = 0
        with _evaluating(self.model):
            for batch in batches:
                output = np.asarray(self.model(batch))
                if result is None:
                    result = np.empty((count, *output.shape[1:]), output.dtype)
                result[done : done + len(output)] = output
                done += len(output)
        assert result is not None
        return result

    def _totals(self) -> _Totals:
        return _Totals(self.metrics, self.loss)

    def _annealing(self, epochs: int, initial_epoch: int) -> CosineAnnealingLR:
        for group in self.optimizer.param_groups:  # a second fit starts from the initial rate again
            group["lr"] = group.get("initial_lr", group["lr"])
        return CosineAnnealingLR(self.optimizer, T_max=epochs, last_epoch=initial_epoch - 1)


class _Interrupt:
    """Ctrl-C between steps: the first one is remembered until check(), a second one acts at once."""

    def __init__(self) -> None:
        self.pressed = False

    def check(self) -> None:
        if self.pressed:
            raise KeyboardInterrupt

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take over SIGINT, where it is Python's own and this is the main thread."""
        self.pressed = False
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._press)
        try:
            yield
            self.check()
        finally:
            self.pressed = False
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, number: int, frame: Any) -> None:
        self.check()
        self.pressed = True


@contextmanager
def _evaluating(model: Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module in the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _loader(name: str, data: Any, batch_size: int, shuffle: bool = False, seed: int | None = None) -> Any:
    """`data` as something to iterate batches (x, y) from."""
    sequence = isinstance(data, (tuple, list))
    batches = sequence and bool(data) and all(_is_batch(item) for item in data)
    if isinstance(data, Dataset) or (sequence and len(data) == 2 and not batches):
        dataset = as_dataset(data)
        if not len(dataset):
            raise ValueError(f"Trainer: {name} is empty")
        return DataLoader(dataset, batch_size, shuffle=shuffle, seed=seed)
    arrays = isinstance(data, (np.ndarray, str, bytes, Mapping)) or hasattr(data, "__array__")
    if arrays or not hasattr(data, "__iter__") or (sequence and not batches):
        got = f"{type(data).__name__} of {len(data)} items" if sequence else type(data).__name__
        raise TypeError(f"Trainer: {name} must be a Dataset, a pair (x, y) of arrays or a DataLoader, got {got}")
    return data


def _is_batch(item: Any) -> bool:
    """Whether an item of a list is (x, y) rather than a row of numbers or an array."""
    return isinstance(item, (tuple, list)) and len(item) == 2 and all(hasattr(part, "shape") for part in item)


def _warn_unless_finite(epoch: int, loss: float) -> None:
    if not math.isfinite(loss):
        warnings.warn(
            f"Trainer.fit: the loss is {loss} in epoch {epoch}; a lower learning rate may help",
            RuntimeWarning,
            stacklevel=3,
        )
