"""Convolutions."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from ..ops.base import check_rank, pair
from ..ops.geometry import sides
from .call import operation


@operation("x", "weight", "bias")
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
    return add_node(OPS["conv2d"], inputs, stride=stride, pads=pads, dilation=dilation, groups=int(groups))
