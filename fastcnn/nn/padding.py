"""Padding layers."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register


class _Pad(Configured, Module):
    """padding: an int for all sides, or (left, right, top, bottom, ...), last dimension first; negative values crop."""

    dimensions = 2
    mode = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = check.integers(type(self).__name__, "padding", padding, 2 * self.dimensions)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        if x.ndim != self.dimensions + 2:
            raise ValueError(f"{type(self).__name__}: input must have {self.dimensions + 2} dimensions, got {x.shape}")
        return F.pad(x, self.padding, self.mode, getattr(self, "value", 0.0))

    def extra_repr(self) -> str:
        """The sides."""
        return str(self.padding)


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = check.number(type(self).__name__, "value", value)


@register
class ZeroPad1d(_Pad):
    """Pads [N, C, L] with zeros."""

    dimensions = 1


@register
class ZeroPad2d(_Pad):
    """Pads [N, C, H, W] with zeros."""

    dimensions = 2


@register
class ZeroPad3d(_Pad):
    """Pads [N, C, D, H, W] with zeros."""

    dimensions = 3


@register
class ConstantPad1d(_ConstantPad):
    """Pads [N, C, L] with a value."""

    dimensions = 1


@register
class ConstantPad2d(_ConstantPad):
    """Pads [N, C, H, W] with a value."""

    dimensions = 2


@register
class ConstantPad3d(_ConstantPad):
    """Pads [N, C, D, H, W] with a value."""

    dimensions = 3


@register
class ReflectionPad1d(_Pad):
    """Pads [N, C, L] with reflection at the edges."""

    dimensions = 1
    mode = "reflect"


@register
class ReflectionPad2d(_Pad):
    """Pads [N, C, H, W] with reflection at the edges."""

    dimensions = 2
    mode = "reflect"


@register
class ReflectionPad3d(_Pad):
    """Pads [N, C, D, H, W] with reflection at the edges."""

    dimensions = 3
    mode = "reflect"


@register
class ReplicationPad1d(_Pad):
    """Pads [N, C, L] with the edges' values."""

    dimensions = 1
    mode = "replicate"


@register
class ReplicationPad2d(_Pad):
    """Pads [N, C, H, W] with the edges' values."""

    dimensions = 2
    mode = "replicate"


@register
class ReplicationPad3d(_Pad):
    """Pads [N, C, D, H, W] with the edges' values."""

    dimensions = 3
    mode = "replicate"


@register
class CircularPad1d(_Pad):
    """Pads [N, C, L] with the opposite side's values."""

    dimensions = 1
    mode = "circular"


@register
class CircularPad2d(_Pad):
    """Pads [N, C, H, W] with the opposite side's values."""

    dimensions = 2
    mode = "circular"


@register
class CircularPad3d(_Pad):
    """Pads [N, C, D, H, W] with the opposite side's values."""

    dimensions = 3
    mode = "circular"
