"""Pooling."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from ..ops.base import pair
from .call import operation


@operation("x")
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows; with return_indices also the flat position of each in its H x W plane (int64)."""
    kernel = pair("max_pool2d", "kernel_size", kernel_size, 1)
    y, idx = add_node(
        OPS["max_pool2d"],
        [x],
        kernel=kernel,
        stride=kernel if stride is None else pair("max_pool2d", "stride", stride, 1),
        padding=pair("max_pool2d", "padding", padding, 0),
        dilation=pair("max_pool2d", "dilation", dilation, 1),
        ceil_mode=bool(ceil_mode),
    )
    return (y, idx) if return_indices else y


@operation("x")
def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Mean over windows."""
    kernel = pair("avg_pool2d", "kernel_size", kernel_size, 1)
    if divisor_override is not None and (not isinstance(divisor_override, int) or divisor_override == 0):
        raise ValueError(f"avg_pool2d: divisor_override must be an int other than 0, got {divisor_override!r}")
    return add_node(
        OPS["avg_pool2d"],
        [x],
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d", "stride", stride, 1),
        padding=pair("avg_pool2d", "padding", padding, 0),
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
        divisor=divisor_override,
    )
