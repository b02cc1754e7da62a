"""Convolutions."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from ..ops import shape as _shape
from ..ops.base import check_rank, ints, pair
from ..ops.depth import fold_depth, unfold_depth
from ..ops.geometry import sides
from .call import operation


def _groups(op, groups):
    return ints(op, "groups", groups, 1, 1)[0]


@operation("x", "weight", "bias", rank=4)
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of x (N, C, H, W) with weight (O, C/groups, KH, KW), plus bias (O).

    padding: an int, a pair (rows, columns), four ints (top, bottom, left, right), "valid", or "same" (TensorFlow's
    rule: output size ceil(input / stride), the odd zero at the bottom and right).
    """
    check_rank("conv2d", "input", x, 4, "(N, C, H, W)")
    check_rank("conv2d", "weight", weight, 4, "(out, in/groups, kh, kw)")
    stride, dilation = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    pads = sides(padding, weight.shape[2:], stride, dilation, x.shape[2:])
    inputs = [x, weight] + ([bias] if bias is not None else [])
    return add_node(
        OPS["conv2d"], inputs, stride=stride, pads=pads, dilation=dilation, groups=_groups("conv2d", groups)
    )


def _line(padding):
    """Padding of one dimension as that of an image of one row."""
    if isinstance(padding, str):
        return padding
    if isinstance(padding, (tuple, list)) and len(padding) == 2:
        return (0, 0, *padding)
    return (0, ints("conv1d", "padding", padding, 1, 0)[0])


def _reshape(x, *shape):
    return add_node(OPS["reshape"], [x], shape=shape)


def _one(op, argument, value, least):
    return (1, ints(op, argument, value, 1, least)[0])


@operation("x", "weight", "bias", rank=3)
def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of x (N, C, L) with weight (O, C/groups, K), plus bias (O).

    padding: an int, a pair (left, right), "valid" or "same" (TensorFlow's rule).
    """
    check_rank("conv1d", "input", x, 3, "(N, C, L)")
    check_rank("conv1d", "weight", weight, 3, "(out, in/groups, k)")
    x, weight = _reshape(x, *x.shape[:2], 1, x.shape[2]), _reshape(weight, *weight.shape[:2], 1, weight.shape[2])
    steps = _one("conv1d", "stride", stride, 1), _line(padding), _one("conv1d", "dilation", dilation, 1)
    y = conv2d(x, weight, bias, *steps, groups)
    return _reshape(y, *y.shape[:2], y.shape[3])


@operation("x", "weight", "bias", rank=5)
def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of x (N, C, D, H, W) with weight (O, C/groups, KD, KH, KW), plus bias (O).

    padding: an int, three, "valid" or "same" (TensorFlow's rule). Slices of depth become channels of a conv2d.
    """
    check_rank("conv3d", "input", x, 5, "(N, C, D, H, W)")
    check_rank("conv3d", "weight", weight, 5, "(out, in/groups, kd, kh, kw)")
    steps, dilations = ints("conv3d", "stride", stride, 3, 1), ints("conv3d", "dilation", dilation, 3, 1)
    if isinstance(padding, str):
        depth = sides(padding, weight.shape[2:3], steps[:1], dilations[:1], x.shape[2:3], "conv3d")[:2] or (0, 0)
        plane: object = padding
    else:
        pads = ints("conv3d", "padding", padding, 3, 0)
        depth, plane = (pads[0], pads[0]), pads[1:]
    x = _shape.pad(x, (0, 0, depth[0], 0, 0), (0, 0, depth[1], 0, 0), 0.0) if any(depth) else x
    (n, _, d), kd = x.shape[:3], weight.shape[2]
    if d < dilations[0] * (kd - 1) + 1:
        raise ValueError(
            f"conv3d: depth {d} with its padding is smaller than the kernel {kd} (dilation {dilations[0]})"
        )
    x = unfold_depth(x, kd, steps[0], dilations[0])
    weight = _reshape(weight, weight.shape[0], weight.shape[1] * kd, *weight.shape[3:])
    y = conv2d(x, weight, bias, steps[1:], plane, dilations[1:], groups)
    outs, oh, ow = y.shape[1:]
    return _shape.transpose(_reshape(y, n, y.shape[0] // n, outs, oh, ow), (0, 2, 1, 3, 4))


def _transposed(op, x, weight, bias, stride, padding, output_padding, groups, dilation):
    """The transposed convolution over two dimensions, its arguments pairs already."""
    if x.shape[1] != weight.shape[0]:
        raise ValueError(f"{op}: input has {x.shape[1]} channels (shape {x.shape}), expected {weight.shape[0]}")
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"{op}: groups={groups} must divide the {x.shape[1]} input channels")
    _check_output_padding(op, output_padding, stride, dilation)
    if any(o >= s for o, s in zip(output_padding, stride)):
        return _wide_output_padding(op, x, weight, bias, stride, padding, output_padding, groups, dilation)
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + o
        for n, s, p, d, k, o in zip(x.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding)
    )
    if min(size) < 1:
        raise ValueError(f"{op}: nothing is left of {x.shape[2:]} with padding {padding}")
    outs = weight.shape[1] * groups
    if bias is not None and bias.shape != (outs,):
        raise ValueError(f"{op}: bias must have shape ({outs},), got {bias.shape}")
    return add_node(
        OPS["conv2d_data"],
        [x, weight] + ([bias] if bias is not None else []),
        shape=(x.shape[0], outs, *size),
        bias=bias is not None,
        stride=stride,
        pads=(padding[0], padding[0], padding[1], padding[1]),
        dilation=dilation,
        groups=groups,
    )


def _check_output_padding(op, output_padding, stride, dilation):
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation)):
        raise ValueError(
            f"{op}: output_padding must be smaller than stride {stride} or dilation {dilation}, got {output_padding}"
        )


def _wide_output_padding(op, x, weight, bias, stride, padding, output_padding, groups, dilation):
    """Where the kernel's dilation alone allows so much: the whole result, then cut off and extended by zeros."""
    y = _transposed(op, x, weight, None, stride, (0, 0), (0, 0), groups, dilation)
    after = [o - p for o, p in zip(output_padding, padding)]
    y = _shape.pad(y, (0, 0, *(-p for p in padding)), (0, 0, *after), 0.0)
    return y if bias is None else y + _reshape(bias, 1, bias.shape[0], 1, 1)


@operation("x", "weight", "bias", rank=4)
def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Transposed convolution of x (N, C, H, W) with weight (C, O/groups, KH, KW), plus bias (O): the adjoint of conv2d.

    Output size (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.
    """
    op = "conv_transpose2d"
    check_rank(op, "input", x, 4, "(N, C, H, W)")
    check_rank(op, "weight", weight, 4, "(in, out/groups, kh, kw)")
    named = (("stride", stride, 1), ("padding", padding, 0), ("output_padding", output_padding, 0))
    pairs = [pair(op, name, value, least) for name, value, least in named]
    return _transposed(op, x, weight, bias, *pairs, _groups(op, groups), pair(op, "dilation", dilation, 1))


@operation("x", "weight", "bias", rank=3)
def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Transposed convolution of x (N, C, L) with weight (C, O/groups, K), plus bias (O): the adjoint of conv1d."""
    op = "conv_transpose1d"
    check_rank(op, "input", x, 3, "(N, C, L)")
    check_rank(op, "weight", weight, 3, "(in, out/groups, k)")
    x, weight = _reshape(x, *x.shape[:2], 1, x.shape[2]), _reshape(weight, *weight.shape[:2], 1, weight.shape[2])
    pads = (0, ints(op, "padding", padding, 1, 0)[0]), (0, ints(op, "output_padding", output_padding, 1, 0)[0])
    steps = _one(op, "stride", stride, 1), _one(op, "dilation", dilation, 1)
    y = _transposed(op, x, weight, bias, steps[0], *pads, _groups(op, groups), steps[1])
    return _reshape(y, *y.shape[:2], y.shape[3])


@operation("x", "weight", "bias", rank=5)
def conv_transpose3d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Transposed convolution of x (N, C, D, H, W) with weight (C, O/groups, KD, KH, KW), plus bias (O)."""
    op = "conv_transpose3d"
    check_rank(op, "input", x, 5, "(N, C, D, H, W)")
    check_rank(op, "weight", weight, 5, "(in, out/groups, kd, kh, kw)")
    steps, dilations = ints(op, "stride", stride, 3, 1), ints(op, "dilation", dilation, 3, 1)
    pads, more = ints(op, "padding", padding, 3, 0), ints(op, "output_padding", output_padding, 3, 0)
    _check_output_padding(op, more, steps, dilations)
    n, c, d, h, w = x.shape
    kd, outs = weight.shape[2], weight.shape[1] * _groups(op, groups)
    x = _reshape(_shape.transpose(x, (0, 2, 1, 3, 4)), n * d, c, h, w)
    weight = _reshape(weight, weight.shape[0], weight.shape[1] * kd, *weight.shape[3:])
    y = _transposed(op, x, weight, None, steps[1:], pads[1:], more[1:], _groups(op, groups), dilations[1:])
    full = (d - 1) * steps[0] + dilations[0] * (kd - 1) + 1
    y = fold_depth(y, n, kd, steps[0], dilations[0], full)
    out = full - 2 * pads[0] + more[0]
    if out < 1:
        raise ValueError(f"{op}: nothing is left of depth {d} with padding {pads[0]}")
    y = _shape.pad(y, (0, 0, -pads[0], 0, 0), (0, 0, out - full + pads[0], 0, 0), 0.0)
    return y if bias is None else y + _reshape(bias, 1, outs, 1, 1, 1)
