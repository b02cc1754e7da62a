"""Resizing layers."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register


@register
class Upsample(Configured, Module):
    """Resizes [N, C, ...] to `size` or by `scale_factor`; see F.interpolate for mode and align_corners."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
    ) -> None:
        super().__init__()
        modes = ("nearest", "linear", "bilinear", "trilinear")
        self.mode = check.choice("Upsample", "mode", mode, modes)
        if (size is None) == (scale_factor is None):
            raise ValueError(f"Upsample: give one of size and scale_factor, got {size!r} and {scale_factor!r}")
        self.size = tuple(size) if isinstance(size, (tuple, list)) else size
        self.scale_factor = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else scale_factor
        self.align_corners = align_corners

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        return F.interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        """The arguments."""
        what = f"size={self.size}" if self.size is not None else f"scale_factor={self.scale_factor}"
        return f"{what}, mode={self.mode!r}"


@register
class PixelShuffle(Configured, Module):
    """[N, C*r*r, H, W] -> [N, C, H*r, W*r], r = upscale_factor."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = check.integer("PixelShuffle", "upscale_factor", upscale_factor, 1)

    def forward(self, x: Any) -> Any:
        """x: [N, C*r*r, H, W]."""
        return F.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"upscale_factor={self.upscale_factor}"


@register
class PixelUnshuffle(Configured, Module):
    """[N, C, H*r, W*r] -> [N, C*r*r, H, W], r = downscale_factor."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = check.integer("PixelUnshuffle", "downscale_factor", downscale_factor, 1)

    def forward(self, x: Any) -> Any:
        """x: [N, C, H*r, W*r]."""
        return F.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        """The factor."""
        return f"downscale_factor={self.downscale_factor}"
