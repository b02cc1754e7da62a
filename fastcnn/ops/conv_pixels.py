"""First layers with few outputs, with pixels in the lanes of the sums (csrc/kernels.def, conv_pixels)."""

from __future__ import annotations

import numpy as np

from .conv_taps import forward_taps
from .geometry import Geometry, planar, window_origin

MOST = 0.9  # times the direct kernel's products of vectors: LeNet-5's 0.86 with 8 lanes takes 0.56 of the time


def fits(vw: int, g: Geometry, pool: bool = False) -> bool:
    """Whether a row of pixels fills vectors so much better than the channels do. pool: with 2x2 maxima, which leave out
    an odd last pixel."""
    wide = g.ow // 2 * 2 if pool else g.ow
    if not planar(g) or g.stride != (1, 1) or wide < vw:
        return False
    return g.o * -(-g.ow // vw) <= MOST * -(-g.o // vw) * g.ow


def lower(b, g: Geometry, x, w, bias, y, act, pool: bool) -> None:
    """y = act(convolution of x + bias), or its 2x2 maxima."""
    terms = np.array([c * x.sc + offset for c in range(g.c) for _, offset in forward_taps(g, x)], np.int64)
    b.emit(
        "conv_pixels",
        g.macs,
        x=window_origin(g, x, x.lanes),
        w=w.at(),
        bias=bias.at() if bias else None,
        y=y.at(),
        terms=b.constant(terms).at(),
        n=g.n,
        oh=g.oh,
        ow=g.ow,
        nterms=len(terms),
        outs=g.o,
        x_n=x.sn,
        x_h=x.sh,
        **y.strides("y"),
        act=act,
        pool=int(pool),
    )
