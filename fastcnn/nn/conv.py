"""Convolution layers, and transposed ones."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check, init
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.registry import Configured, register

Size = int | tuple[int, ...]


class _Convolution(Configured, Module):
    """What all convolutions share: the arguments, the parameters and how they start."""

    dimensions = 2
    padding_mode = "zeros"
    bias: Parameter | None

    def _arguments(
        self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size, dilation: Size, groups: int
    ) -> None:
        name, count = type(self).__name__, self.dimensions
        self.in_channels = check.integer(name, "in_channels", in_channels, 1)
        self.out_channels = check.integer(name, "out_channels", out_channels, 1)
        self.kernel_size = check.integers(name, "kernel_size", kernel_size, count, 1)
        self.stride = check.integers(name, "stride", stride, count, 1)
        self.dilation = check.integers(name, "dilation", dilation, count, 1)
        self.groups = check.integer(name, "groups", groups, 1)
        for what, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name}: {what} ({channels}) must be a multiple of groups ({groups})")

    def _parameters_of(self, first: int, second: int, bias: bool) -> None:
        self.weight = Parameter(np.zeros((first, second, *self.kernel_size), np.float32))
        has_bias = check.flag(type(self).__name__, "bias", bias)
        self.bias = Parameter(np.zeros(self.out_channels, np.float32)) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.reset(self.weight, self.bias)

    def extra_repr(self) -> str:
        """The arguments, defaults left out."""
        none = (0,) * self.dimensions
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for what in ("padding", "output_padding"):
            value = getattr(self, what, none)
            if value not in (none, "valid"):
                parts.append(f"{what}={value!r}")
        if any(d != 1 for d in self.dilation):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self._arguments(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.padding = self._padding(name, padding)
        self.padding_mode = check.choice(
            name, "padding_mode", padding_mode, ("zeros", "reflect", "replicate", "circular")
        )
        if padding_mode != "zeros" and (isinstance(self.padding, str) or len(self.padding) != self.dimensions):
            raise ValueError(f"{name}: padding_mode {padding_mode!r} needs padding as an int or one per dimension")
        self._parameters_of(self.out_channels, self.in_channels // self.groups, bias)

    def _padding(self, name: str, padding: Any) -> tuple[int, ...] | str:
        if isinstance(padding, str):
            return check.choice(name, "padding", padding, ("same", "valid"))
        sides = 2 * self.dimensions
        if self.dimensions < 3 and isinstance(padding, (tuple, list)) and len(padding) == sides:
            return check.integers(name, "padding", padding, sides, 0)
        return check.integers(name, "padding", padding, self.dimensions, 0)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, ...]."""
        function = (F.conv1d, F.conv2d, F.conv3d)[self.dimensions - 1]
        padding = self.padding
        if self.padding_mode != "zeros":
            x = F.pad(x, [side for p in reversed(padding) for side in (p, p)], self.padding_mode)
            padding = 0  # type: ignore[assignment]
        elif self.dimensions == 1 and not isinstance(padding, str) and len(padding) == 1:
            padding = padding[0]  # type: ignore[assignment]
        return function(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


@register
class Conv1d(_Conv):
    """1-D convolution: [N, in_channels, L] -> [N, out_channels, OL]; see Conv2d; padding may be (left, right)."""

    dimensions = 1


@register
class Conv2d(_Conv):
    """2-D convolution (cross-correlation): [N, in_channels, H, W] -> [N, out_channels, OH, OW].

    weight: [out_channels, in_channels / groups, kernel height, kernel width]; bias: [out_channels] or None; both start
    uniform in +-1/sqrt(fan_in), as PyTorch's. padding is an int, a (vertical, horizontal) pair, four sides in
    F.conv2d's order, "same" (TensorFlow's rule: OH = ceil(H / stride)) or "valid" (none); padding_mode "zeros",
    "reflect", "replicate" or "circular". TypeError or ValueError for arguments that are not allowed.
    """

    dimensions = 2


@register
class Conv3d(_Conv):
    """3-D convolution: [N, in_channels, D, H, W] -> [N, out_channels, OD, OH, OW]; see Conv2d."""

    dimensions = 3


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self._arguments(in_channels, out_channels, kernel_size, stride, dilation, groups)
        self.padding = check.integers(name, "padding", padding, self.dimensions, 0)
        self.output_padding = check.integers(name, "output_padding", output_padding, self.dimensions, 0)
        self.padding_mode = check.choice(name, "padding_mode", padding_mode, ("zeros",))
        steps = zip(self.output_padding, self.stride, self.dilation, strict=True)
        if any(o >= max(s, d) for o, s, d in steps):
            raise ValueError(
                f"{name}: output_padding must be smaller than stride {self.stride} or dilation {self.dilation}, "
                f"got {output_padding}"
            )
        self._parameters_of(self.in_channels, self.out_channels // self.groups, bias)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, ...]."""
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dimensions - 1]
        more = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        return function(x, self.weight, self.bias, *more)


@register
class ConvTranspose1d(_ConvTranspose):
    """1-D transposed convolution: [N, in_channels, L] -> [N, out_channels, OL]; see ConvTranspose2d."""

    dimensions = 1


@register
class ConvTranspose2d(_ConvTranspose):
    """2-D transposed convolution: [N, in_channels, H, W] -> [N, out_channels, OH, OW].

    OH = (H - 1) * stride - 2 * padding + dilation * (kernel height - 1) + output_padding + 1. weight: [in_channels,
    out_channels / groups, kernel height, kernel width]. output_padding must be smaller than stride or dilation.
    """

    dimensions = 2


@register
class ConvTranspose3d(_ConvTranspose):
    """3-D transposed convolution: [N, in_channels, D, H, W] -> [N, out_channels, OD, OH, OW]; see ConvTranspose2d."""

    dimensions = 3
