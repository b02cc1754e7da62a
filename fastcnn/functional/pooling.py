"""Pooling."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS, gather, windows
from ..ops.base import ints, pair
from .call import operation


@operation("x", rank=4)
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


@operation("x", rank=4)
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


def _spatial(op, x, count):
    if x.ndim != count + 2:
        names = "(N, C, " + ", ".join("DHW"[3 - count :]) + ")" if count > 1 else "(N, C, L)"
        raise ValueError(f"{op}: input must have {count + 2} dimensions {names}, got shape {x.shape}")


def _pool(op, x, count, kernel_size, stride, padding, dilation, ceil_mode, average=False, count_include_pad=True):
    """The table of a pooling over `count` dimensions."""
    _spatial(op, x, count)
    kernel = ints(op, "kernel_size", kernel_size, count, 1)
    steps = kernel if stride is None else ints(op, "stride", stride, count, 1)
    pads, dilations = ints(op, "padding", padding, count, 0), ints(op, "dilation", dilation, count, 1)
    if any(2 * p > k for p, k in zip(pads, kernel)):
        raise ValueError(f"{op}: padding must be at most half of kernel_size {kernel}, got {pads}")
    sizes = x.shape[2:]
    axes = []
    for size, k, s, p, d in zip(sizes, kernel, steps, pads, dilations):
        axis = windows.pooling(size, k, s, p, d, bool(ceil_mode), average, bool(count_include_pad))
        if not axis:
            raise ValueError(f"{op}: input {sizes} is smaller than the window {kernel} (padding {pads})")
        axes.append(axis)
    return gather.separable(tuple(sizes), tuple(axes)), kernel


def _max_pool(op, count, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices):
    table, _ = _pool(op, x, count, kernel_size, stride, padding, dilation, ceil_mode)
    y, idx = add_node(OPS["gather_max"], [x], table=table)
    return (y, idx) if return_indices else y


@operation("x", rank=3)
def max_pool1d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of x (N, C, L)."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@operation("x", rank=5)
def max_pool3d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows of x (N, C, D, H, W)."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@operation("x", rank=3)
def avg_pool1d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """Mean over windows of x (N, C, L)."""
    table, _ = _pool("avg_pool1d", x, 1, kernel_size, stride, padding, 1, ceil_mode, True, count_include_pad)
    return add_node(OPS["gather_sum"], [x], table=table)


@operation("x", rank=5)
def avg_pool3d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Mean over windows of x (N, C, D, H, W)."""
    own = divisor_override is None
    table, _ = _pool("avg_pool3d", x, 3, kernel_size, stride, padding, 1, ceil_mode, own, count_include_pad)
    y = add_node(OPS["gather_sum"], [x], table=table)
    return y if own else y / divisor_override


def _output_sizes(op, output_size, x, count):
    """The output's spatial shape; None stands for the input's size."""
    _spatial(op, x, count)
    given = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * count
    if len(given) != count:
        raise ValueError(f"{op}: output_size must be an int or {count} of them, got {output_size!r}")
    sizes = [size if out is None else out for out, size in zip(given, x.shape[2:])]
    return ints(op, "output_size", sizes, count, 1)


def _adaptive_avg(op, x, output_size, count):
    sizes, outs = x.shape[2:], _output_sizes(op, output_size, x, count)
    if count == 2 and not any(size % out for size, out in zip(sizes, outs)):
        return avg_pool2d(x, tuple(size // out for size, out in zip(sizes, outs)))
    axes = tuple(windows.adaptive(size, out, True) for size, out in zip(sizes, outs))
    return add_node(OPS["gather_sum"], [x], table=gather.separable(tuple(sizes), axes))


def _adaptive_max(op, x, output_size, count, return_indices):
    sizes, outs = x.shape[2:], _output_sizes(op, output_size, x, count)
    axes = tuple(windows.adaptive(size, out, False) for size, out in zip(sizes, outs))
    y, idx = add_node(OPS["gather_max"], [x], table=gather.separable(tuple(sizes), axes))
    return (y, idx) if return_indices else y


@operation("x", rank=3)
def adaptive_avg_pool1d(x, output_size):
    """Mean over output_size windows of nearly equal size that cover x (N, C, L)."""
    return _adaptive_avg("adaptive_avg_pool1d", x, output_size, 1)


@operation("x", rank=4)
def adaptive_avg_pool2d(x, output_size):
    """Mean over output_size (an int or a pair; None: as the input) windows that cover x (N, C, H, W)."""
    return _adaptive_avg("adaptive_avg_pool2d", x, output_size, 2)


@operation("x", rank=5)
def adaptive_avg_pool3d(x, output_size):
    """Mean over output_size windows that cover x (N, C, D, H, W)."""
    return _adaptive_avg("adaptive_avg_pool3d", x, output_size, 3)


@operation("x", rank=3)
def adaptive_max_pool1d(x, output_size, return_indices=False):
    """Maximum over output_size windows of nearly equal size that cover x (N, C, L)."""
    return _adaptive_max("adaptive_max_pool1d", x, output_size, 1, return_indices)


@operation("x", rank=4)
def adaptive_max_pool2d(x, output_size, return_indices=False):
    """Maximum over output_size windows that cover x (N, C, H, W)."""
    return _adaptive_max("adaptive_max_pool2d", x, output_size, 2, return_indices)


@operation("x", rank=5)
def adaptive_max_pool3d(x, output_size, return_indices=False):
    """Maximum over output_size windows that cover x (N, C, D, H, W)."""
    return _adaptive_max("adaptive_max_pool3d", x, output_size, 3, return_indices)


def _unpool(op, count, x, indices, kernel_size, stride, padding, output_size):
    _spatial(op, x, count)
    if indices.shape != x.shape or indices.dtype not in ("int32", "int64"):
        raise ValueError(f"{op}: indices must be integers of the input's shape {x.shape}, got {indices.shape}")
    kernel = ints(op, "kernel_size", kernel_size, count, 1)
    steps = kernel if stride is None else ints(op, "stride", stride, count, 1)
    pads = ints(op, "padding", padding, count, 0)
    usual = tuple((n - 1) * s - 2 * p + k for n, k, s, p in zip(x.shape[2:], kernel, steps, pads))
    if output_size is not None:
        given = tuple(output_size)[-count:]
        if len(given) != count or any(abs(g - u) >= s for g, u, s in zip(given, usual, steps)):
            raise ValueError(f"{op}: output_size must differ from {usual} by less than the stride, got {output_size!r}")
        usual = given
    if min(usual) < 1:
        raise ValueError(f"{op}: nothing is left of {x.shape[2:]} with padding {pads}")
    return add_node(OPS["scatter"], [x, indices], spatial=usual)


@operation("x", "indices", rank=3, items=("x", "indices"))
def max_unpool1d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """Each value of x (N, C, L) at the position that max_pool1d's indices name, 0 elsewhere."""
    return _unpool("max_unpool1d", 1, x, indices, kernel_size, stride, padding, output_size)


@operation("x", "indices", rank=4, items=("x", "indices"))
def max_unpool2d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """Each value of x (N, C, H, W) at the position that max_pool2d's indices name, 0 elsewhere.

    output_size: of the result, where the pooling's rounding leaves a choice; a value whose index is beyond the result
    is left out.
    """
    return _unpool("max_unpool2d", 2, x, indices, kernel_size, stride, padding, output_size)


@operation("x", "indices", rank=5, items=("x", "indices"))
def max_unpool3d(x, indices, kernel_size, stride=None, padding=0, output_size=None):
    """Each value of x (N, C, D, H, W) at the position that max_pool3d's indices name, 0 elsewhere."""
    return _unpool("max_unpool3d", 3, x, indices, kernel_size, stride, padding, output_size)
