"""Image files as a network's input: what `fastcnn predict` reads."""

from __future__ import annotations

import os

import numpy as np


def read_image(path: str | os.PathLike[str], height: int = 28, width: int = 28) -> np.ndarray:
    """The image as uint8 [height, width], bright strokes on black like MNIST's.

    Transparent parts count as white, colours become grey, a bright background (by the median of the
    border) is inverted, the shorter side is padded to a square with the background, and the result
    resized. Raises ImportError without Pillow, ValueError if the file is no image, and OSError.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'fastcnn[image]'") from error
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):  # 16 bits and more: stretch to 0..255
                grey = _stretch(np.asarray(image, np.float64))
            else:
                rgba = image.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                grey = np.asarray(Image.alpha_composite(white, rgba).convert("L"))
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path}: not an image that Pillow can read ({error})") from None
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    background = int(np.median(border))
    if background > 127:
        grey, background = 255 - grey, 255 - background
    side = max(grey.shape)
    square = np.full((side, side), background, np.uint8)
    top, left = (side - grey.shape[0]) // 2, (side - grey.shape[1]) // 2
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = grey
    resized = Image.fromarray(square).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _stretch(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
