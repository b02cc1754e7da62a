"""The embedded handwritten digits: real data with no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import Dataset

# Mean and standard deviation of the training part, of pixels scaled to 0..1.
MEAN, STD = 0.3054, 0.3249


def digits() -> tuple[Dataset, Dataset]:
    """(train, test) of the 1,797 handwritten digits of UCI's Optical Recognition data set.

    Each is a Dataset of uint8 images N x 1 x 28 x 28, bilinear from 8 x 8 and rescaled from 0..16 to
    0..255, and labels 0..9; batches are (pixel / 255 - MEAN) / STD. The split is fixed: of each
    class, every fifth image in the file's order is a test image (1,433 and 364 in all).
    Source and licence (CC BY 4.0): digits.txt beside this file.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        small, labels = file["images"], file["labels"]
    images = np.rint(resize(small, 28, 28) * (255 / 16)).astype(np.uint8)[:, None]
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[::5]] = True
    return tuple(
        Dataset(
            images[part],
            labels[part],
            scale=1 / (255 * STD),
            shift=-MEAN / STD,
            classes="0123456789",
            name="digits",
        )
        for part in (~test, test)
    )  # type: ignore[return-value]


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of the last two dimensions, in float64; pixel centres map to pixel centres
    (PyTorch's `interpolate(mode="bilinear", align_corners=False)`)."""
    rows = _weights(images.shape[-2], height)
    columns = _weights(images.shape[-1], width)
    return rows @ images.astype(np.float64) @ columns.T


def _weights(size: int, target: int) -> np.ndarray:
    """[target, size] matrix of linear interpolation."""
    place = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    low = np.minimum(place.astype(int), max(size - 2, 0))
    matrix = np.zeros((target, size))
    matrix[np.arange(target), low] = 1 - (place - low)
    if size > 1:
        matrix[np.arange(target), low + 1] = place - low
    return matrix
