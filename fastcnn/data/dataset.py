"""Images and labels in memory: what `Trainer.fit` and `DataLoader` read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import _core, config
from ..arrays import as_array

SHARED_FLOATS = 1 << 17  # of a batch from which on all threads read it


class Dataset:
    """Samples and their labels, turned into float32 batches when they are asked for.

    images: N x C x H x W (or N x anything). uint8 stays uint8 in memory, an eighth of float64; other
        floats become float32. A batch is `images[indices] * scale + shift`.
    labels: N integers (kept as int64), or N x anything of floats (kept as float32) for a regression.
    classes: the names of the classes, in label order; only carried along.
    name: what to call the data set; only carried along.

    `len(ds)` is N and `ds[i]` is (x, y) for an int, a slice, an index array or a mask.
    `x, y = ds` unpacks the whole set as two arrays, so
    `(x_train, y_train), (x_test, y_test) = datasets.digits()` works.

    Raises TypeError for other dtypes and ValueError for lengths that differ.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        scale: float = 1.0,
        shift: float = 0.0,
        *,
        classes: Sequence[str] | None = None,
        name: str = "",
    ) -> None:
        self.images = _images(images)
        self.labels = _labels(labels)
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"Dataset: images and labels differ in length: {len(self.images)} images of shape "
                f"{self.images.shape}, {len(self.labels)} labels of shape {self.labels.shape}"
            )
        self.scale = float(scale)
        self.shift = float(shift)
        self.classes = None if classes is None else tuple(str(c) for c in classes)
        self.name = name
        self._size = int(np.prod(self.images.shape[1:], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The two whole arrays, x float32 and y; for batches use a DataLoader."""
        yield from self[:]

    def __getitem__(self, index: Any) -> tuple[np.ndarray, Any]:
        """(x, y): x float32, y int64; an int index drops the first dimension of x."""
        n = len(self)
        if isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_)):
            x, y = self.batch(np.array([index], np.int64))
            return x[0], y[0]
        if isinstance(index, slice):
            return self._gather(np.arange(*index.indices(n), dtype=np.int64))
        index = np.asarray(index)
        if index.dtype == bool:
            if index.shape != (n,):
                raise IndexError(f"Dataset: a mask of shape {index.shape} for {n} samples")
            index = np.flatnonzero(index)
        return self.batch(index)

    def batch(self, indices: Any, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The samples at `indices` (1-D integers, negative ones count from the end), normalised.

        Returns x float32 [len(indices)] + sample shape, and the labels. x is `out` if given (C-order
        float32 of that shape), else a new array. Raises IndexError for an index out of range.
        """
        index = np.asarray(indices)
        if index.size == 0:
            index = index.astype(np.int64)
        if index.dtype.kind not in "iu":
            raise TypeError(f"Dataset.batch: indices must be integers, not {index.dtype}")
        if index.ndim != 1:
            raise ValueError(f"Dataset.batch: indices must be 1-D, not of shape {index.shape}")
        if index.size:
            low, high, n = int(index.min()), int(index.max()), len(self)
            if low < -n or high >= n:
                bad = low if low < -n else high
                raise IndexError(f"Dataset: index {bad} is out of range for {n} samples")
            index = np.ascontiguousarray(index, dtype=np.int64)
            if low < 0:
                index = np.where(index < 0, index + n, index)
        return self._gather(index, out)

    def _gather(self, index: np.ndarray, out: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """batch() for a C-order int64 `index` known to lie in [0, len)."""
        images = self.images
        shape = (len(index),) + images.shape[1:]
        if out is None:
            out = np.empty(shape, np.float32)
        elif not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape or not out.flags.carray:
            have = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(
                f"Dataset.batch: out must be a writable C-order float32 array of shape {shape}, not {have}"
            )
        if out.size == 0:
            pass
        elif images.dtype == np.uint8:
            _core.run_kernel(
                "gather_u8",
                threads=config.get_num_threads() if out.size >= SHARED_FLOATS else 1,
                x=images,
                index=index,
                y=out,
                count=len(index),
                size=self._size,
                scale=self.scale,
                shift=self.shift,
            )
        else:
            np.take(images, index, axis=0, out=out, mode="clip")
            if self.scale != 1.0:
                out *= np.float32(self.scale)
            if self.shift != 0.0:
                out += np.float32(self.shift)
        return out, self.labels[index]

    def __repr__(self) -> str:
        name = f"{self.name!r}, " if self.name else ""
        return f"Dataset({name}{len(self)} samples of shape {self.images.shape[1:]})"


def _images(images: Any) -> np.ndarray:
    array = as_array(images, "Dataset: images")
    if array.ndim < 2:
        raise ValueError(f"Dataset: images must be N x C x H x W (at least N x features), not of shape {array.shape}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise TypeError(
            f"Dataset: images must be uint8 or floats, not {array.dtype}; convert them with "
            f'images.astype("float32"), or astype("uint8") for values 0..255'
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _labels(labels: Any) -> np.ndarray:
    array = as_array(labels, "Dataset: labels")
    if array.ndim < 1:
        raise ValueError("Dataset: labels must be an array with one entry per image, not a number")
    if array.dtype.kind in "iu":
        return np.ascontiguousarray(array, dtype=np.int64)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, dtype=np.float32)
    raise TypeError(f"Dataset: labels must be integers (or floats), not {array.dtype}")
