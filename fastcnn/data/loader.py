"""Batches of a data set, in an order that a seed and the epoch fix."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..random import generator
from .dataset import Dataset

AHEAD_BYTES = 1 << 21  # of samples that are read in one go: several small batches, by all threads
Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class DataLoader:
    """Iterates (x float32 [batch, ...], y int64 [batch]) over a data set.

    dataset: a Dataset, or a pair (images, labels) of arrays.
    batch_size: samples in a batch, >= 1; the last one is smaller unless `drop_last`.
    shuffle: a new order each epoch. With a `seed` (int >= 0) the order of epoch e is
        `numpy.random.default_rng([seed, e]).permutation(n)`: the same in every run. Without one
        it is drawn from the generator that `fastcnn.manual_seed` resets.
    drop_last: leave out the last batch if it is not full.
    transform: called as transform(x, rng) on every batch, gives the x to use instead (RandomShift,
        or a function of one's own); rng is a numpy Generator that seed and epoch fix.

    Small batches are read several at a time, 2 MB at most, and are parts of one array: who keeps one keeps those.
    Each pass over the loader is one epoch: the first is epoch 0. `set_epoch(e)` says which comes
    next, to go on where a run stopped. Raises ValueError or TypeError for bad arguments.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int | None = None,
        drop_last: bool = False,
        transform: Transform | None = None,
    ) -> None:
        self.dataset = as_dataset(dataset)
        self.batch_size = _integer("batch_size", batch_size, 1)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self.seed = None if seed is None else _integer("seed", seed, 0)
        if transform is not None and not callable(transform):
            raise TypeError(f"DataLoader: transform must be callable, not {transform!r}")
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is epoch `epoch` (>= 0)."""
        self.epoch = _integer("epoch", epoch, 0)

    def order(self, epoch: int) -> np.ndarray:
        """The sample indices of an epoch, int64, in the order they are visited."""
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n, dtype=np.int64)
        if self.seed is None:
            return generator().permutation(n)
        return np.random.default_rng([self.seed, epoch]).permutation(n)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        step, batches = self.batch_size, len(self)
        order = self.order(epoch)[: batches * step]
        rng = generator() if self.seed is None else np.random.default_rng([self.seed, epoch, 1])
        labels = self.dataset.labels
        sample = 4 * self.dataset._size + labels.nbytes // max(1, len(labels))
        ahead = step * max(1, AHEAD_BYTES // (step * max(1, sample)))
        for begin in range(0, len(order), ahead):
            images, labels = self.dataset._gather(order[begin : begin + ahead])
            for i in range(0, len(labels), step):
                x, y = images[i : i + step], labels[i : i + step]
                yield (x if self.transform is None else self.transform(x, rng)), y


def as_dataset(data: Any) -> Dataset:
    """`data` itself if it is a Dataset, else a Dataset of the pair (images, labels)."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return Dataset(*data)
    raise TypeError(f"expected a Dataset or a pair (images, labels) of arrays, got {type(data).__name__}")


def _integer(name: str, value: Any, least: int) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"DataLoader: {name} must be an integer, not {value!r}") from None
    if number < least:
        raise ValueError(f"DataLoader: {name} must be >= {least}, not {number}")
    return number
