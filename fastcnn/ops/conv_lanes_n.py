"""Convolution with images in the lanes: tables over OIHW weights as they are (csrc/kernels.def, conv_lanes_n)."""

from __future__ import annotations

from math import gcd

import numpy as np

from . import winograd_n
from .geometry import Geometry, gradient_slots, window_origin

POOLED_RUN = 6  # elements of a run at most in a weight gradient from 2x2 maxima


def _forward_runs(g: Geometry, x, vw, across):
    """(runs, run_len, x_step, w_step, panels); across: runs over the channels, not along kernel rows."""
    area = g.kh * g.kw
    if g.cg > g.kw and (across or area == 1):  # a run per tap
        runs = [
            (kh * g.dilation[0] * x.sh + kw * g.dilation[1] * vw, kh * g.kw + kw)
            for kh in range(g.kh)
            for kw in range(g.kw)
        ]
        run_len, x_step, w_step = g.cg, x.sc, area
    else:
        runs = [(c * x.sc + kh * g.dilation[0] * x.sh, c * area + kh * g.kw) for kh in range(g.kh) for c in range(g.cg)]
        run_len, x_step, w_step = g.kw, vw * g.dilation[1], 1
    panels = [(i * g.cg * x.sc, i * g.og * g.cg * area, i * g.og, g.og) for i in range(g.groups)]
    return runs, run_len, x_step, w_step, panels


def _ranges(valid, count) -> np.ndarray:
    """[count][2]: first and one past the last of the items i (in order) for which valid(at, i), for each `at`."""
    out = np.zeros((count[0], 2), np.int64)
    for at in range(count[0]):
        hits = [i for i in range(count[1]) if valid(at, i)]
        if hits:
            out[at] = hits[0], hits[-1] + 1
    return out


def _forward_ranges(g: Geometry, axis: int) -> np.ndarray:
    """Per output row (or pixel), the taps that meet the input."""
    size, k, out = ((g.h, g.kh, g.oh), (g.w, g.kw, g.ow))[axis]
    start = -g.pads[2 * axis]
    return _ranges(lambda o, t: 0 <= start + o * g.stride[axis] + t * g.dilation[axis] < size, (out, k))


def lower_forward(b, g, x, w, bias, y, act, pool=None):
    """pool: None, or (idx,) of a 2x2 maximum in the same pass, idx the storage of its positions or None."""
    if winograd_n.choose_side(g):
        return winograd_n.lower_forward(b, g, x, w, bias, y, act, pool)
    padded = any(g.x_halo())
    runs, run_len, x_step, w_step, panels = _forward_runs(g, x, b.vw, across=not padded)
    rows = cols = None
    if padded:
        rows = b.constant(_forward_ranges(g, 0) * (len(runs) // g.kh)).at()
        cols = b.constant(_forward_ranges(g, 1)).at() if run_len == g.kw else None
    b.emit(
        "conv_lanes_n",
        g.macs,
        x=window_origin(g, x, b.vw),
        w=w.at(),
        bias=bias.at() if bias else None,
        mask=None,
        y=y.at(),
        runs=b.constant(np.array(runs, np.int64)).at(),
        panels=b.constant(np.array(panels, np.int64)).at(),
        rows=rows,
        cols=cols,
        n=x.n,
        oh=g.oh,
        ow=g.ow,
        nruns=len(runs),
        run_len=run_len,
        x_step=x_step,
        w_step=w_step,
        w_m=g.cg * g.kh * g.kw,
        npanels=len(panels),
        x_n=x.sn,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * b.vw,
        **y.strides("y"),
        y_w=b.vw,
        m_n=0,
        m_c=0,
        m_h=0,
        m_w=0,
        act=act,
        pool=int(pool is not None),
        idx=pool[0].at() if pool and pool[0] else None,
    )


def lower_data(b, g, dy, w, bias, mask, dx):
    if winograd_n.choose_side(g) and not bias:
        return winograd_n.lower_data(b, g, dy, w, mask, dx)
    area = g.kh * g.kw
    panels = [(i * g.og * dy.sc, i * g.og * g.cg * area, i * g.cg, g.cg) for i in range(g.groups)]
    panels = b.constant(np.array(panels, np.int64)).at()
    step = g.stride[1] // gcd(g.stride[1], g.dilation[1])  # between taps of one phase
    for h0, rows, h_taps in g.phases(0):
        for w0, cols, w_taps in g.phases(1):
            runs, run_len = [(0, 0)], 0
            if h_taps and w_taps:
                (tap, shift), run_len = w_taps[0], len(w_taps)
                runs = [
                    (o * dy.sc + offset * dy.sh + shift * b.vw, o * g.cg * area + kh * g.kw + tap)
                    for kh, offset in h_taps
                    for o in range(g.og)
                ]
            single = len(runs) == g.og and run_len == 1 and not any(g.dy_halo())
            x_step, w_step = -(step * g.dilation[1] // g.stride[1]) * b.vw, step
            if single:  # one tap: the run goes over the channels
                runs, run_len, x_step, w_step = runs[:1], g.og, dy.sc, g.cg * area
            along_h = _ranges(lambda j, t: 0 <= j + h_taps[t][1] < g.oh, (rows, len(h_taps) if w_taps else 0)) * g.og
            along_w = _ranges(lambda j, t: 0 <= j + w_taps[t][1] < g.ow, (cols, len(w_taps)))
            m = {"m_n": 0, "m_c": 0, "m_h": 0, "m_w": 0}
            if mask:
                m = {"m_n": mask.sn, "m_c": mask.sc, "m_h": g.stride[0] * mask.sh, "m_w": g.stride[1] * b.vw}
            b.emit(
                "conv_lanes_n",
                float(dy.images * g.c * rows * cols) * len(runs) * run_len,
                x=dy.at(),
                w=w.at(),
                bias=bias.at() if bias else None,
                mask=mask.at(h0 * mask.sh + w0 * b.vw) if mask else None,
                y=dx.at(h0 * dx.sh + w0 * b.vw),
                runs=b.constant(np.array(runs, np.int64)).at(),
                panels=panels,
                rows=None if single else b.constant(along_h).at(),
                cols=None if single else b.constant(along_w).at(),
                n=dy.n,
                oh=rows,
                ow=cols,
                nruns=len(runs),
                run_len=run_len,
                x_step=x_step,
                w_step=w_step,
                w_m=area,
                npanels=g.groups,
                x_n=dy.sn,
                x_h=dy.sh,
                x_w=b.vw,
                y_n=dx.sn,
                y_c=dx.sc,
                y_h=g.stride[0] * dx.sh,
                y_w=g.stride[1] * b.vw,
                **m,
                act=0,
                pool=0,
            )


def takes_pooled(g) -> bool:
    """Whether lower_weight can do with the gradient of the result's 2x2 maxima and their places."""
    return not winograd_n.choose_side(g) and g.kh * g.kw > 1 and g.kw <= POOLED_RUN


def lower_weight(b, g, x, dy, dw, idx=None):
    """idx: None, or the storage of the places of 2x2 maxima of the result, whose gradient dy is."""
    if winograd_n.choose_side(g):
        return winograd_n.lower_weight(b, g, x, dy, dw)
    runs, run_len, x_step, w_step, panels = _forward_runs(g, x, b.vw, across=False)
    if len(runs) == g.kh * g.cg:  # channel by channel: its plane of x stays in the nearest cache
        runs = [runs[kh * g.cg + c] for c in range(g.cg) for kh in range(g.kh)]
    items = -(-g.o // 2) * len(runs)
    slots = gradient_slots(items, dy.n * g.oh)
    target = dw if slots == 1 else b.scratch(slots * dw.floats)
    rows = None
    if any(g.x_halo()):
        start = -g.pads[0]
        taps = _ranges(lambda t, o: 0 <= start + o * g.stride[0] + t * g.dilation[0] < g.h, (g.kh, g.oh))
        rows = b.constant(np.tile(taps, (len(runs) // g.kh, 1))).at()
    b.emit(
        "wgrad_lanes_n",
        g.macs,
        x=window_origin(g, x, b.vw),
        dy=dy.at(),
        dw=target.at(),
        runs=b.constant(np.array(runs, np.int64)).at(),
        panels=b.constant(np.array(panels, np.int64)).at(),
        rows=rows,
        n=x.n,
        oh=g.oh,
        ow=g.ow,
        nruns=len(runs),
        run_len=run_len,
        x_step=x_step,
        w_step=w_step,
        w_m=g.cg * g.kh * g.kw,
        npanels=len(panels),
        slots=slots,
        dw_size=dw.floats,
        x_n=x.sn,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * b.vw,
        **dy.strides("y"),
        y_w=b.vw,
        idx=idx.at() if idx else None,
        idx_n=idx.sn if idx else 0,
    )
    if slots > 1:
        b.emit("sum_slots", slots * dw.floats, src=target.at(), dst=dw.at(), size=dw.floats, slots=slots)
