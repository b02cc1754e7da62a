"""Depthwise convolution with channels in the lanes: all products are of vectors (csrc/kernels.def, depthwise)."""

from __future__ import annotations

import numpy as np

from .geometry import Geometry, window_origin
from .panels import Panels, beside, pack, pack_bias, part_images, parts, unpack

SLOT_BLOCKS = 16  # a weight gradient of fewer blocks of channels than this is cut along the batch too


def fits(g: Geometry) -> bool:
    """Whether every channel has one filter, and there are several."""
    return g.groups == g.c == g.o > 1


def _panels(b, g: Geometry, taps) -> Panels:
    """A panel for each block of channels; taps: of the filter, in the order in which they are packed."""
    blocks = -(-g.c // b.vw)
    table = [(0, block * b.vw, min(b.vw, g.c - block * b.vw)) for block in range(blocks)]
    group = dict(lanes_per_group=g.c, red_per_group=1, s_group=0, s_lane=g.kh * g.kw, s_red=0)
    panels = np.array(table, np.int64)
    return Panels(1, blocks, panels, panels, np.array([(0, tap) for tap in taps], np.int64).reshape(-1, 2), group)


def _forward_taps(g: Geometry, x):
    """[(tap, floats from the window's first pixel)]"""
    rows, columns = g.dilation[0] * x.sh, g.dilation[1] * x.lanes
    return [(kh * g.kw + kw, kh * rows + kw * columns) for kh in range(g.kh) for kw in range(g.kw)]


def _offsets(b, taps):
    return b.constant(np.array([offset for _, offset in taps], np.int64)).at()


def _pack(b, g: Geometry, taps, w, bias):
    """The weights of some taps, and the bias."""
    weights = pack(b, w, _panels(b, g, [tap for tap, _ in taps])) if taps else b.scratch(b.vw)
    return weights, pack_bias(b, bias, g.c, -(-g.c // b.vw), b.vw) if bias else None


def _emit(b, g, taps, packed, x, x_steps, y, size, add=None, mask=None, act=0, at=(0, 0), step=(1, 1)) -> None:
    """size: rows and columns of y, from pixel `at` on, `step` apart. x_steps: floats between rows and pixels."""
    w, bias = packed
    b.emit(
        "depthwise",
        float(y.n * size[0] * size[1] * g.c) * len(taps),
        x=x,
        w=w.at(),
        bias=bias.at() if bias else None,
        taps=_offsets(b, taps),
        n=y.n,
        c=y.c,
        oh=size[0],
        ow=size[1],
        ntaps=len(taps),
        x_h=x_steps[0],
        x_w=x_steps[1],
        x_n=x.storage.sn,
        x_c=x.storage.sc,
        **beside("y", "y", y, at, step),
        **beside("add", "r", add, at, step),
        **beside("mask", "m", mask, at, step),
        act=act,
    )


def lower_forward(b, g, x, w, bias, add, y, act):
    taps, steps = _forward_taps(g, x), (g.stride[0] * x.sh, g.stride[1] * x.lanes)
    _emit(b, g, taps, _pack(b, g, taps, w, bias), window_origin(g, x, x.lanes), steps, y, (g.oh, g.ow), add, act=act)


def lower_data(b, g, dy, w, bias, add, mask, dx):
    phases = []
    for h0, rows, h_taps in g.phases(0):
        for w0, cols, w_taps in g.phases(1):
            taps = [(kh * g.kw + kw, h * dy.sh + w * b.vw) for kh, h in h_taps for kw, w in w_taps]
            phases.append((taps, _pack(b, g, taps, w, bias), (h0, w0), (rows, cols)))
    images = g.n if len(phases) == 1 else part_images(g, 4 * dx.sn)  # phases write the same lines of dx
    for dy_part, add_part, mask_part, dx_part in parts(g, images, dy, add, mask, dx):
        for taps, packed, at, size in phases:
            steps = (dy.sh, b.vw)
            _emit(b, g, taps, packed, dy_part.at(), steps, dx_part, size, add_part, mask_part, at=at, step=g.stride)


def lower_weight(b, g, x, dy, dw):
    taps = _forward_taps(g, x)
    panels = _panels(b, g, [tap for tap, _ in taps])
    slots = 1 if x.c >= SLOT_BLOCKS else min(g.n, 8)
    packed = b.scratch(slots * x.c * len(taps) * b.vw)
    b.emit(
        "depthwise_wgrad",
        g.macs,
        x=window_origin(g, x, x.lanes),
        dy=dy.at(),
        dw=packed.at(),
        taps=_offsets(b, taps),
        n=g.n,
        c=x.c,
        oh=g.oh,
        ow=g.ow,
        ntaps=len(taps),
        slots=slots,
        x_n=x.sn,
        x_c=x.sc,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * x.lanes,
        **dy.strides("y"),
        y_w=b.vw,
    )
    unpack(b, packed, dw, panels, slots)
