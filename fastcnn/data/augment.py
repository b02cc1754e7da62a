"""Random changes to batches of images, for DataLoader(transform=...)."""

from __future__ import annotations

import numpy as np


class RandomShift:
    """Move each image by up to `pixels` up, down, left and right, at random.

    fill: the value that comes in from outside, as it is in a batch (after normalisation; a
        Dataset's `shift` is its black).
    """

    def __init__(self, pixels: int = 2, fill: float = 0.0) -> None:
        if pixels < 0:
            raise ValueError(f"RandomShift: pixels must be >= 0, not {pixels}")
        self.pixels = pixels
        self.fill = float(fill)

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """x and result: float32 [N, C, H, W]."""
        n, c, h, w = x.shape
        p = self.pixels
        framed = np.full((n, c, h + 2 * p, w + 2 * p), self.fill, x.dtype)
        framed[:, :, p : p + h, p : p + w] = x
        windows = np.lib.stride_tricks.sliding_window_view(framed, (h, w), axis=(2, 3))
        down, right = rng.integers(0, 2 * p + 1, (2, n))
        return windows[np.arange(n), :, down, right]
