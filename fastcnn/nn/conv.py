"""Convolution layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check, init
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.registry import Configured, register

Size = int | tuple[int, int]


@register
class Conv2d(Configured, Module):
    """2-D convolution (cross-correlation): [N, in_channels, H, W] -> [N, out_channels, OH, OW].

    weight: [out_channels, in_channels / groups, kernel height, kernel width]; bias: [out_channels] or None; both start
    uniform in +-1/sqrt(fan_in), as PyTorch's. padding is an int, a (vertical, horizontal) pair, four sides in
    F.conv2d's order, "same" (TensorFlow's rule: OH = ceil(H / stride)) or "valid" (none).
    TypeError or ValueError for arguments that are not allowed.
    """

    bias: Parameter | None

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
        name = "Conv2d"
        self.in_channels = check.integer(name, "in_channels", in_channels, 1)
        self.out_channels = check.integer(name, "out_channels", out_channels, 1)
        self.kernel_size = check.integers(name, "kernel_size", kernel_size, 2, 1)
        self.stride = check.integers(name, "stride", stride, 2, 1)
        self.padding = _padding(name, padding)
        self.dilation = check.integers(name, "dilation", dilation, 2, 1)
        self.groups = check.integer(name, "groups", groups, 1)
        self.padding_mode = check.choice(name, "padding_mode", padding_mode, ("zeros",))
        for what, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name}: {what} ({channels}) must be a multiple of groups ({groups})")
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight = Parameter(np.zeros(shape, np.float32))
        has_bias = check.flag(name, "bias", bias)
        self.bias = Parameter(np.zeros(self.out_channels, np.float32)) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.reset(self.weight, self.bias)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, H, W]."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """The arguments, defaults left out."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        if self.padding not in ((0, 0), "valid"):
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1, 1):
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


def _padding(layer: str, padding: Any) -> tuple[int, ...] | str:
    if isinstance(padding, str):
        return check.choice(layer, "padding", padding, ("same", "valid"))
    if isinstance(padding, (tuple, list)) and len(padding) == 4:
        return check.integers(layer, "padding", padding, 4, 0)
    return check.integers(layer, "padding", padding, 2, 0)
