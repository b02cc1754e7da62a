"""Pooling layers."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register

Size = int | tuple[int, int]


def _window(layer: str, name: str, value: Any, minimum: int) -> Any:
    """One int or a pair, kept as it came (as PyTorch does)."""
    checked = check.integers(layer, name, value, 2, minimum)
    return checked if isinstance(value, (tuple, list)) else checked[0]


def _pad(layer: str, padding: Any, kernel_size: Any) -> Any:
    """Padding, which may be at most half the window: else a window could see nothing but padding."""
    checked = _window(layer, "padding", padding, 0)
    pairs = zip(
        check.integers(layer, "padding", padding, 2, 0),
        check.integers(layer, "kernel_size", kernel_size, 2, 1),
        strict=True,
    )
    if any(2 * pad > kernel for pad, kernel in pairs):
        raise ValueError(f"{layer}: padding must be at most half of kernel_size ({kernel_size}), got {padding}")
    return checked


@register
class MaxPool2d(Configured, Module):
    """Maximum over windows: [N, C, H, W] -> [N, C, OH, OW]; stride None means kernel_size.

    With return_indices, a pair (maxima, flat positions ih * W + iw). A NaN in a window wins.
    TypeError or ValueError for arguments that are not allowed.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        name = "MaxPool2d"
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1)
        self.padding = _pad(name, padding, kernel_size)
        self.dilation = _window(name, "dilation", dilation, 1)
        self.return_indices = check.flag(name, "return_indices", return_indices)
        self.ceil_mode = check.flag(name, "ceil_mode", ceil_mode)

    def forward(self, x: Any) -> Any:
        """x: [N, C, H, W]."""
        return F.max_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            ceil_mode=self.ceil_mode,
            return_indices=self.return_indices,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


@register
class AvgPool2d(Configured, Module):
    """Mean over windows: [N, C, H, W] -> [N, C, OH, OW]; stride None means kernel_size.

    The sum is divided by divisor_override if given, else by the window's size inside the padded input
    (count_include_pad) or inside the input. TypeError or ValueError for arguments that are not allowed.
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        name = "AvgPool2d"
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1)
        self.padding = _pad(name, padding, kernel_size)
        self.ceil_mode = check.flag(name, "ceil_mode", ceil_mode)
        self.count_include_pad = check.flag(name, "count_include_pad", count_include_pad)
        self.divisor_override = (
            None if divisor_override is None else check.integer(name, "divisor_override", divisor_override, 1)
        )

    def forward(self, x: Any) -> Any:
        """x: [N, C, H, W]."""
        return F.avg_pool2d(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
            divisor_override=self.divisor_override,
        )

    def extra_repr(self) -> str:
        """The arguments PyTorch shows."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
