"""Images as a network's input: what `fastcnn predict` reads, and the preprocessing of pretrained networks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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


class Preprocess:
    """What a pretrained network wants of an image: the shorter side resized, the centre cut out, channels normalised.

    resize_size: pixels of the shorter side; crop_size: of the square cut out of the middle, None to keep the whole
    image; mean, std: of each channel, for values 0 ... 1; interpolation: "bilinear" or "bicubic", both with the
    antialiasing that Pillow always does. The numbers, the rounding and the order of the arithmetic are those of
    torchvision's presets for a PIL image.
    """

    def __init__(
        self,
        *,
        resize_size: int = 256,
        crop_size: int | None = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        interpolation: str = "bilinear",
    ) -> None:
        if interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f'Preprocess: interpolation must be "bilinear" or "bicubic", got {interpolation!r}')
        for name, size in (("resize_size", resize_size), ("crop_size", crop_size)):
            if size is not None and size < 1 or size is None and name == "resize_size":
                raise ValueError(f"Preprocess: {name} must be at least 1, got {size}")
        if crop_size is not None and crop_size > resize_size:
            raise ValueError(f"Preprocess: crop_size {crop_size} is larger than resize_size {resize_size}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"Preprocess: mean and std need 3 numbers, std above 0; got {mean} and {std}")
        self.resize_size, self.crop_size, self.interpolation = resize_size, crop_size, interpolation
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Any) -> np.ndarray:
        """image: a PIL image, or a uint8 array [H, W, 3] or [N, H, W, 3]. Result: float32 [3, h, w] or [N, 3, h, w].

        A PIL image of another mode becomes RGB: grey thrice, transparency dropped, a palette looked up. Raises
        ImportError without Pillow, TypeError for another kind of image, ValueError for another shape.
        """
        if hasattr(image, "convert") and hasattr(image, "mode"):
            return self._one(image)
        array = np.asarray(image)
        if array.dtype != np.uint8:
            raise TypeError(
                f"Preprocess: image must be a PIL image or a uint8 array, got {type(image).__name__}"
                + (f" of {array.dtype}" if array.dtype != object else "")
            )
        if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
            raise ValueError(f"Preprocess: an array must be [H, W, 3] or [N, H, W, 3], got {list(array.shape)}")
        from_array = _pillow().fromarray
        if array.ndim == 3:
            return self._one(from_array(np.ascontiguousarray(array)))
        return np.stack([self._one(from_array(np.ascontiguousarray(one))) for one in array])

    def _one(self, image: Any) -> np.ndarray:
        Image = _pillow()
        if image.mode != "RGB":
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"):
                raise ValueError(
                    f"Preprocess: a PIL image must have 8 bits a channel, got mode {image.mode!r}; convert it to RGB"
                )
            image = image.convert("RGB")
        short = min(image.size)
        size = tuple(self.resize_size if n == short else int(self.resize_size * n / short) for n in image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        if self.crop_size is not None:
            left, top = (round((n - self.crop_size) / 2.0) for n in size)
            image = image.crop((left, top, left + self.crop_size, top + self.crop_size))
        planes = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
        planes -= np.asarray(self.mean, np.float32)[:, None, None]
        planes /= np.asarray(self.std, np.float32)[:, None, None]
        return np.ascontiguousarray(planes)

    def __repr__(self) -> str:
        names = ("resize_size", "crop_size", "mean", "std", "interpolation")
        return f"Preprocess({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("reading images needs Pillow: pip install 'fastcnn[image]'") from error
    return Image
