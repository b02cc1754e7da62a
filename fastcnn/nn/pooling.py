"""Pooling layers."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register

Size = int | tuple[int, int]


def _window(layer: str, name: str, value: Any, minimum: int, count: int = 2) -> Any:
    """One int or `count` of them, kept as it came (as PyTorch does)."""
    checked = check.integers(layer, name, value, count, minimum)
    return checked if isinstance(value, (tuple, list)) else checked[0]


def _pad(layer: str, padding: Any, kernel_size: Any, count: int = 2) -> Any:
    """Padding, which may be at most half the window: else a window could see nothing but padding."""
    checked = _window(layer, "padding", padding, 0, count)
    pairs = zip(
        check.integers(layer, "padding", padding, count, 0),
        check.integers(layer, "kernel_size", kernel_size, count, 1),
        strict=True,
    )
    if any(2 * pad > kernel for pad, kernel in pairs):
        raise ValueError(f"{layer}: padding must be at most half of kernel_size ({kernel_size}), got {padding}")
    return checked


class _MaxPool(Configured, Module):
    dimensions = 2

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
        name, count = type(self).__name__, self.dimensions
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1, count)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1, count)
        self.padding = _pad(name, padding, kernel_size, count)
        self.dilation = _window(name, "dilation", dilation, 1, count)
        self.return_indices = check.flag(name, "return_indices", return_indices)
        self.ceil_mode = check.flag(name, "ceil_mode", ceil_mode)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        function = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.dimensions - 1]
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return function(x, *window, ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


@register
class MaxPool1d(_MaxPool):
    """Maximum over windows: [N, C, L] -> [N, C, OL]; see MaxPool2d."""

    dimensions = 1


@register
class MaxPool2d(_MaxPool):
    """Maximum over windows: [N, C, H, W] -> [N, C, OH, OW]; stride None means kernel_size.

    With return_indices, a pair (maxima, flat positions ih * W + iw). A NaN in a window wins.
    TypeError or ValueError for arguments that are not allowed.
    """

    dimensions = 2


@register
class MaxPool3d(_MaxPool):
    """Maximum over windows: [N, C, D, H, W] -> [N, C, OD, OH, OW]; see MaxPool2d."""

    dimensions = 3


class _MaxUnpool(Configured, Module):
    """Each value at the position that a max pooling's indices name, 0 elsewhere."""

    dimensions = 2

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        super().__init__()
        name, count = type(self).__name__, self.dimensions
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1, count)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1, count)
        self.padding = _window(name, "padding", padding, 0, count)

    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Any:
        """x, indices: [N, C, ...]; output_size: the spatial shape to restore where it is ambiguous."""
        function = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[self.dimensions - 1]
        return function(x, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


@register
class MaxUnpool1d(_MaxUnpool):
    """The way back of MaxPool1d; see MaxUnpool2d."""

    dimensions = 1


@register
class MaxUnpool2d(_MaxUnpool):
    """The way back of MaxPool2d(return_indices=True): maxima to where they were, 0 elsewhere."""


@register
class MaxUnpool3d(_MaxUnpool):
    """The way back of MaxPool3d; see MaxUnpool2d."""

    dimensions = 3


@register
class AvgPool1d(Configured, Module):
    """Mean over windows: [N, C, L] -> [N, C, OL]; see AvgPool2d."""

    def __init__(
        self,
        kernel_size: int,
        stride: int | None = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        name = "AvgPool1d"
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1, 1)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1, 1)
        self.padding = _pad(name, padding, kernel_size, 1)
        self.ceil_mode = check.flag(name, "ceil_mode", ceil_mode)
        self.count_include_pad = check.flag(name, "count_include_pad", count_include_pad)

    def forward(self, x: Any) -> Any:
        """x: [N, C, L]."""
        window = (self.kernel_size, self.stride, self.padding)
        return F.avg_pool1d(x, *window, ceil_mode=self.ceil_mode, count_include_pad=self.count_include_pad)

    def extra_repr(self) -> str:
        """The arguments PyTorch shows."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Configured, Module):
    dimensions = 2

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
        name, count = type(self).__name__, self.dimensions
        self.kernel_size = _window(name, "kernel_size", kernel_size, 1, count)
        self.stride = self.kernel_size if stride is None else _window(name, "stride", stride, 1, count)
        self.padding = _pad(name, padding, kernel_size, count)
        self.ceil_mode = check.flag(name, "ceil_mode", ceil_mode)
        self.count_include_pad = check.flag(name, "count_include_pad", count_include_pad)
        self.divisor_override = (
            None if divisor_override is None else check.integer(name, "divisor_override", divisor_override, 1)
        )

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        function = F.avg_pool3d if self.dimensions == 3 else F.avg_pool2d
        return function(
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


@register
class AvgPool2d(_AvgPool):
    """Mean over windows: [N, C, H, W] -> [N, C, OH, OW]; stride None means kernel_size.

    The sum is divided by divisor_override if given, else by the window's size inside the padded input
    (count_include_pad) or inside the input. TypeError or ValueError for arguments that are not allowed.
    """

    dimensions = 2


@register
class AvgPool3d(_AvgPool):
    """Mean over windows: [N, C, D, H, W] -> [N, C, OD, OH, OW]; see AvgPool2d."""

    dimensions = 3


class _Adaptive(Configured, Module):
    """output_size windows (an int, one per dimension, or None for the input's size) of nearly equal size."""

    dimensions = 2

    def _size(self, output_size: Any) -> None:
        name = type(self).__name__
        if isinstance(output_size, (tuple, list)):
            if len(output_size) != self.dimensions:
                raise ValueError(
                    f"{name}: output_size must be an int or {self.dimensions} of them, got {output_size!r}"
                )
            self.output_size: Any = tuple(
                None if size is None else check.integer(name, "output_size", size, 1) for size in output_size
            )
        else:
            self.output_size = check.integer(name, "output_size", output_size, 1)

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"


class _AdaptiveAvg(_Adaptive):
    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self._size(output_size)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        functions = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
        return functions[self.dimensions - 1](x, self.output_size)


class _AdaptiveMax(_Adaptive):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self._size(output_size)
        self.return_indices = check.flag(type(self).__name__, "return_indices", return_indices)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        functions = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)
        return functions[self.dimensions - 1](x, self.output_size, self.return_indices)


@register
class AdaptiveAvgPool1d(_AdaptiveAvg):
    """Mean over output_size windows of nearly equal size that cover [N, C, L]."""

    dimensions = 1


@register
class AdaptiveAvgPool2d(_AdaptiveAvg):
    """Mean over output_size windows of nearly equal size that cover [N, C, H, W]."""

    dimensions = 2


@register
class AdaptiveAvgPool3d(_AdaptiveAvg):
    """Mean over output_size windows of nearly equal size that cover [N, C, D, H, W]."""

    dimensions = 3


@register
class AdaptiveMaxPool1d(_AdaptiveMax):
    """Maximum over output_size windows of nearly equal size that cover [N, C, L]."""

    dimensions = 1


@register
class AdaptiveMaxPool2d(_AdaptiveMax):
    """Maximum over output_size windows of nearly equal size that cover [N, C, H, W]."""

    dimensions = 2


@register
class AdaptiveMaxPool3d(_AdaptiveMax):
    """Maximum over output_size windows of nearly equal size that cover [N, C, D, H, W]."""

    dimensions = 3
