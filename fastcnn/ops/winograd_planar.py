"""First layers of stride 2 and more by Winograd's algorithm: the phases of a planar input (every step-th pixel of every
step-th row of a channel) become the channels of one of stride 1 (winograd.py; pack_phases in csrc/kernels.def)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from .. import config
from ..graph.lower import LANES_C, Storage
from . import winograd
from .geometry import Geometry, planar

MOST_WEIGHTS = 400  # of a filter: as in csrc/kernels/winograd.h


def _taps(g: Geometry) -> int:
    return -(-g.kh // g.stride[0])


def fits(g: Geometry) -> bool:
    """Whether the algorithm is made for this convolution."""
    square = g.kh == g.kw and g.stride[0] == g.stride[1] > 1 and g.dilation == (1, 1)
    return planar(g) and square and 3 <= _taps(g) <= 5 and g.c * g.kh * g.kw <= MOST_WEIGHTS


@lru_cache(256)
def form(vw: int, g: Geometry) -> winograd.Form:
    """Every channel of the phases, filled up to vectors, counts as a phase with weights of its own."""
    step, taps, area = g.stride[0], _taps(g), g.kh * g.kw
    order = np.full((-(-step * step * g.c // vw) * vw, taps, taps), g.c * area, np.int64)
    for channel in range(step * step * g.c):
        phase, c = divmod(channel, g.c)
        rows, cols = np.arange(phase // step, g.kh, step), np.arange(phase % step, g.kw, step)
        order[channel, : len(rows), : len(cols)] = c * area + rows[:, None] * g.kw + cols
    return winograd.Form(
        9, taps, g.oh, g.ow, (0, 0), g.c * area, np.zeros((1, 2), np.int64), order.reshape(len(order), -1)
    )


def choose(vw: int, g: Geometry, weight: bool = False) -> winograd.Form | None:
    """The form of a convolution or of its weight gradient; None where the direct kernel is less work, unless Winograd
    was asked for."""
    if config.get_conv_algorithm() == "direct" or not fits(g):
        return None
    f, o = form(vw, g), -(-g.o // vw) * vw
    less = winograd.work(vw, f, replace(g, c=len(f.order)), weight) < g.macs / g.o * o
    return f if less or config.get_conv_algorithm() == "winograd" else None


def _pack(b, f: winograd.Form, g: Geometry, x) -> Storage:
    step, rows, cols = g.stride[0], f.rows + f.taps - 1, f.cols + f.taps - 1
    y = b.new((g.n, step * step * g.c, rows, cols), LANES_C)
    b.emit(
        "pack_phases", y.floats, x=x.at(), y=y.at(), n=g.n, c=g.c, h=g.h, w=g.w, step=step, top=g.pads[0],
        left=g.pads[2], rows=rows, cols=cols, **x.strides("x"),
    )  # fmt: skip
    return y


def lower(b, f: winograd.Form, g: Geometry, x, w, bias, add, y, act):
    """y = act(convolution of x + bias + add)."""
    winograd.lower(b, f, replace(g, c=1, stride=(1, 1)), _pack(b, f, g, x), w, bias, add, None, y, act)


def lower_weight(b, f: winograd.Form, g: Geometry, x, dy, dw):
    """dw from x and dy."""
    winograd.lower_weight(b, f, replace(g, c=1, stride=(1, 1)), _pack(b, f, g, x), dy, dw)
