"""Convolutions with channels in the lanes that go tap by tap, all products being of vectors: depthwise ones, and those
to a few channels, whose panels would be zeros for the most part (csrc/kernels.def, depthwise and conv_few)."""

from __future__ import annotations

import numpy as np

from .geometry import Geometry, gradient_slots, planar, window_origin
from .panels import Panels, beside, each_phase, pack, pack_bias, unpack

FEW = 4  # output channels that conv_few takes at most, as its C says
RUNS = (2, 3, 5)  # taps side by side that depthwise has loops for, beside single ones


def depthwise(g: Geometry) -> bool:
    """Whether every channel has one filter, and there are several."""
    return g.groups == g.c == g.o > 1


def fits_forward(g: Geometry) -> bool:
    return depthwise(g) or (g.groups == 1 and g.o <= FEW and not planar(g))


def fits_data(g: Geometry) -> bool:
    return depthwise(g) or (g.groups == 1 and g.c <= FEW)


def _panels(b, g: Geometry, taps, data: bool) -> Panels:
    """A panel for each block of input channels; taps: of the filter, in the order in which they are packed."""
    area = g.kh * g.kw
    if depthwise(g):
        lanes, outs, strides = g.c, 1, dict(s_lane=area, s_red=0)
    elif data:
        lanes, outs, strides = g.o, g.c, dict(s_lane=g.cg * area, s_red=area)
    else:
        lanes, outs, strides = g.c, g.o, dict(s_lane=area, s_red=g.cg * area)
    table = np.array([(0, first, min(b.vw, lanes - first)) for first in range(0, lanes, b.vw)], np.int64)
    red = np.array([(out, tap) for tap in taps for out in range(outs)], np.int64).reshape(-1, 2)
    return Panels(
        1, len(table), table, table, red, dict(lanes_per_group=lanes, red_per_group=outs, s_group=0, **strides)
    )


def forward_taps(g: Geometry, x):
    """[(tap, floats from the window's first pixel)]"""
    rows, columns = g.dilation[0] * x.sh, g.dilation[1] * x.lanes
    return [(kh * g.kw + kw, kh * rows + kw * columns) for kh in range(g.kh) for kw in range(g.kw)]


def _runs(b, taps, x_w: int) -> dict:
    """The fields of depthwise that say where its taps are, which are in the order of their offsets."""
    offsets = [offset for _, offset in taps]
    ends = [i for i in range(1, len(taps)) if offsets[i] != offsets[i - 1] + b.vw]
    lengths = {end - start for start, end in zip([0, *ends], [*ends, len(taps)])}
    length = lengths.pop() if len(lengths) == 1 and x_w <= 2 * b.vw else 1
    if length not in RUNS:
        length = 1
    return dict(runs=_offsets(b, taps[::length]), nruns=len(taps) // length, run_len=length)


def _offsets(b, taps):
    return b.constant(np.array([offset for _, offset in taps], np.int64)).at()


def _pack(b, g: Geometry, taps, w, bias, data: bool):
    """The weights of some taps, and the bias."""
    lanes = g.c if data else g.o
    weights = pack(b, w, _panels(b, g, [tap for tap, _ in taps], data)) if taps else b.scratch(b.vw)
    return weights, pack_bias(b, bias, lanes, range(0, lanes, b.vw), b.vw) if bias else None


def _emit(b, g, taps, packed, x, x_steps, y, size, add=None, mask=None, act=0, at=(0, 0), step=(1, 1)) -> None:
    """size: rows and columns of y, from pixel `at` on, `step` apart. x_steps: floats between rows and pixels."""
    w, bias = packed
    pixels = float(y.n * size[0] * size[1])
    if depthwise(g):
        kernel, work, channels = "depthwise", pixels * g.c, dict(c=y.c, **_runs(b, taps, x_steps[1]))
    else:
        kernel, work = "conv_few", pixels * g.c * g.o
        channels = dict(blocks=x.storage.c, outs=y.channels, taps=_offsets(b, taps), ntaps=len(taps))
    b.emit(
        kernel,
        work * len(taps),
        x=x,
        w=w.at(),
        bias=bias.at() if bias else None,
        n=y.n,
        oh=size[0],
        ow=size[1],
        x_h=x_steps[0],
        x_w=x_steps[1],
        x_n=x.storage.sn,
        x_c=x.storage.sc,
        **beside("y", "y", y, at, step),
        **beside("add", "r", add, at, step),
        **beside("mask", "m", mask, at, step),
        act=act,
        **channels,
    )


def lower_forward(b, g, x, w, bias, add, y, act):
    taps, steps = forward_taps(g, x), (g.stride[0] * x.sh, g.stride[1] * x.lanes)
    packed = _pack(b, g, taps, w, bias, False)
    _emit(b, g, taps, packed, window_origin(g, x, x.lanes), steps, y, (g.oh, g.ow), add, act=act)


def lower_data(b, g, dy, w, bias, add, mask, dx):
    phases = []
    for h0, rows, h_taps in g.phases(0):
        for w0, cols, w_taps in g.phases(1):
            taps = [(kh * g.kw + kw, row * dy.sh + column * b.vw) for kh, row in h_taps for kw, column in w_taps]
            taps.sort(key=lambda tap: tap[1])
            phases.append((taps, _pack(b, g, taps, w, bias, True), (h0, w0), (rows, cols)))
    steps = (dy.sh, b.vw)
    for (taps, packed, at, size), (dy_part, add_part, mask_part, dx_part) in each_phase(g, phases, dy, add, mask, dx):
        _emit(b, g, taps, packed, dy_part.at(), steps, dx_part, size, add_part, mask_part, at=at, step=g.stride)


def lower_weight(b, g, x, dy, dw):
    """Of a depthwise one."""
    taps = forward_taps(g, x)
    panels = _panels(b, g, [tap for tap, _ in taps], False)
    slots = gradient_slots(x.c, g.n)
    packed = b.scratch(slots * x.c * len(taps) * b.vw)
    b.emit(
        "depthwise_wgrad",
        g.macs,
        x=window_origin(g, x, x.lanes),
        dy=dy.at(),
        dw=packed.at(),
        n=g.n,
        c=x.c,
        oh=g.oh,
        ow=g.ow,
        **_runs(b, taps, g.stride[1] * x.lanes),
        slots=slots,
        x_n=x.sn,
        x_c=x.sc,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * x.lanes,
        **dy.strides("y"),
        y_w=b.vw,
    )
    unpack(b, packed, dw, panels, slots)
