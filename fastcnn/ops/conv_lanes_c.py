"""Convolution with channels in the lanes: weights packed into panels (csrc/kernels.def, conv_lanes_c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import winograd
from .geometry import Geometry, window_origin

SLOT_ITEMS = 16  # a weight gradient of fewer items than this is cut along the batch too


@dataclass
class Panels:
    """How weights of lane channels l and reduction channels r are packed: see pack_weights."""

    width_vectors: int
    count: int
    x_panels: np.ndarray  # [count][3] for the convolution
    w_panels: np.ndarray  # [count][3] for pack_weights
    red: np.ndarray  # [k][2]
    group: dict  # lanes_per_group, red_per_group, s_group, s_lane, s_red


def make_panels(b, lanes, lanes_per_group, red_per_group, red_blocks, red_vw, block_stride, taps, nv, group):
    """Panels of nv vectors of lane channels, each over the reduction blocks that its groups need.

    red_blocks, red_vw: how many blocks of reduction channels there are and how wide (1 when planar).
    taps: per run, [(reduction lane, tap offset)] of its elements, and the run's block relative to the panel's first.
    """
    vw = b.vw
    blocks = -(-lanes // vw)
    count = -(-blocks // nv)
    groups = max(1, lanes // lanes_per_group)
    spans = []
    for p in range(count):
        first, last = p * nv * vw, min(lanes, (p + 1) * nv * vw) - 1
        low = first // lanes_per_group * red_per_group // red_vw
        high = -(-((last // lanes_per_group + 1) * red_per_group) // red_vw)
        spans.append((low, high))
    need = max(high - low for low, high in spans) if groups > 1 else red_blocks
    x_panels, w_panels = [], []
    for p, (low, _) in enumerate(spans):
        low = min(low, red_blocks - need)
        x_panels.append((low * block_stride, p * nv, min(nv, blocks - p * nv)))
        w_panels.append((low * red_vw, p * nv * vw, min(nv * vw, lanes - p * nv * vw)))
    runs, red = [], []
    for block in range(need):
        for offset, elements in taps:
            runs.append(block * block_stride + offset)
            red += [(block * red_vw + lane, tap) for lane, tap in elements]
    return (
        np.array(runs, np.int64),
        Panels(
            nv,
            count,
            np.array(x_panels, np.int64),
            np.array(w_panels, np.int64),
            np.array(red, np.int64).reshape(-1, 2),
            dict(lanes_per_group=lanes_per_group, red_per_group=red_per_group, **group),
        ),
    )


def choose_nv(b, lanes, lanes_per_group, pixels) -> int:
    """Vectors of a panel: the register tiles of nv vectors that fill a row of pixels best; of equals the usual nv."""
    blocks = -(-lanes // b.vw)
    if lanes_per_group < lanes and lanes_per_group % b.vw == 0:
        blocks = lanes_per_group // b.vw
    accumulators = b.tile_m * b.tile_nv

    def cost(nv):  # register-tile steps per pixel and vector; a tile of fewer than 8 accumulators waits for them
        rows = accumulators // nv
        tiles = -(-pixels // rows)
        longer, short = pixels % tiles, pixels // tiles
        steps = longer * max(8, (short + 1) * nv) + (tiles - longer) * max(8, short * nv) + 2 * tiles
        return steps / nv, nv != b.tile_nv

    return min(range(1, min(blocks, b.tile_nv + 1) + 1), key=cost)


def pack(b, w, panels: Panels):
    """Emit the packing of a weight (Storage) into panels; the packed storage."""
    width = panels.width_vectors * b.vw
    packed = b.scratch(panels.count * len(panels.red) * width)
    b.emit(
        "pack_weights",
        packed.floats,
        w=w.at(),
        out=packed.at(),
        panels=b.constant(panels.w_panels).at(),
        red=b.constant(panels.red).at(),
        npanels=panels.count,
        k=len(panels.red),
        width=width,
        **panels.group,
    )
    return packed


def pack_bias(b, bias, o, panels: Panels):
    width = panels.width_vectors * b.vw
    packed = b.scratch(panels.count * width)
    w_panels = panels.w_panels.copy()
    w_panels[:, 0] = 0
    b.emit(
        "pack_weights",
        packed.floats,
        w=bias.at(),
        out=packed.at(),
        panels=b.constant(w_panels).at(),
        red=b.constant(np.zeros((1, 2), np.int64)).at(),
        npanels=panels.count,
        k=1,
        width=width,
        lanes_per_group=o,
        red_per_group=1,
        s_group=0,
        s_lane=1,
        s_red=0,
    )
    return packed


def _forward_panels(b, g: Geometry, x, nv):
    area = g.kh * g.kw
    red_vw = x.lanes
    row, pixel = g.dilation[0] * x.sh, g.dilation[1] * x.lanes
    taps = []
    for kh in range(g.kh):
        elements = [[(lane, kh * g.kw + kw) for lane in range(red_vw)] for kw in range(g.kw)]
        if g.dilation[1] == 1:
            taps.append((kh * row, sum(elements, [])))
        else:
            taps += [(kh * row + kw * pixel, elements[kw]) for kw in range(g.kw)]
    group = dict(s_group=g.og * g.cg * area, s_lane=g.cg * area, s_red=area)
    runs, panels = make_panels(b, g.o, g.og, g.cg, x.c, red_vw, x.sc, taps, nv, group)
    return runs, len(taps[0][1]), panels


def lower_forward(b, g, x, w, bias, y, act):
    if winograd.pays(b.vw, g, g.o, g.c, g.oh, g.ow):
        origin = window_origin(g, x, x.lanes)
        return winograd.lower(b, g, x, origin, w, bias, None, y, g.o, g.c, g.oh, g.ow, False, act)
    runs, run_len, panels = _forward_panels(b, g, x, choose_nv(b, g.o, g.og, g.ow))
    packed = pack(b, w, panels)
    packed_bias = pack_bias(b, bias, g.o, panels) if bias else None
    b.emit(
        "conv_lanes_c",
        g.macs,
        x=window_origin(g, x, x.lanes),
        w=packed.at(),
        bias=packed_bias.at() if bias else None,
        mask=None,
        y=y.at(),
        runs=b.constant(runs).at(),
        panels=b.constant(panels.x_panels).at(),
        n=g.n,
        oh=g.oh,
        ow=g.ow,
        nruns=len(runs),
        run_len=run_len,
        npanels=panels.count,
        nv=panels.width_vectors,
        x_n=x.sn,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * x.lanes,
        **y.strides("y"),
        y_w=b.vw,
        m_n=0,
        m_c=0,
        m_h=0,
        m_w=0,
        act=act,
    )


def lower_data(b, g, dy, w, bias, mask, dx):
    if winograd.pays(b.vw, g, g.c, g.o, g.h, g.w):
        origin = dy.at((g.pads[0] - 2) * dy.sh + (g.pads[2] - 2) * b.vw)
        return winograd.lower(b, g, dy, origin, w, bias, mask, dx, g.c, g.o, g.h, g.w, True, 0)
    area = g.kh * g.kw
    group = dict(s_group=g.og * g.cg * area, s_lane=area, s_red=g.cg * area)
    nv = choose_nv(b, g.c, g.cg, -(-g.w // g.stride[1]))
    for h0, rows, h_taps in g.phases(0):
        for w0, cols, w_taps in g.phases(1):
            taps = []
            ascending = sorted(w_taps, key=lambda t: t[1])
            joined = all(q[1] - p[1] == 1 for p, q in zip(ascending, ascending[1:]))
            for kh, offset in h_taps:
                elements = [[(lane, kh * g.kw + kw) for lane in range(b.vw)] for kw, _ in ascending]
                starts = [offset * dy.sh + shift * b.vw for _, shift in ascending]
                if joined and elements:
                    taps.append((starts[0], sum(elements, [])))
                else:
                    taps += list(zip(starts, elements))
            m = {"m_n": 0, "m_c": 0, "m_h": 0, "m_w": 0}
            if mask:
                m = {"m_n": mask.sn, "m_c": mask.sc, "m_h": g.stride[0] * mask.sh, "m_w": g.stride[1] * b.vw}
            runs, panels = make_panels(b, g.c, g.cg, g.og, dy.c, b.vw, dy.sc, taps, nv, group)
            packed = pack(b, w, panels) if taps else b.scratch(b.vw)
            packed_bias = pack_bias(b, bias, g.c, panels) if bias else None
            b.emit(
                "conv_lanes_c",
                float(g.n * rows * cols * g.c) * len(panels.red),
                x=dy.at(),
                w=packed.at(),
                bias=packed_bias.at() if bias else None,
                mask=mask.at(h0 * mask.sh + w0 * b.vw) if mask else None,
                y=dx.at(h0 * dx.sh + w0 * b.vw),
                runs=b.constant(runs).at(),
                panels=b.constant(panels.x_panels).at(),
                n=g.n,
                oh=rows,
                ow=cols,
                nruns=len(runs),
                run_len=len(taps[0][1]) if taps else 1,
                npanels=panels.count,
                nv=nv,
                x_n=dy.sn,
                x_h=dy.sh,
                x_w=b.vw,
                y_n=dx.sn,
                y_c=dx.sc,
                y_h=g.stride[0] * dx.sh,
                y_w=g.stride[1] * b.vw,
                **m,
                act=0,
            )


def lower_weight(b, g, x, dy, dw):
    if winograd.pays(b.vw, g, g.o, g.c, g.oh, g.ow):
        return winograd.lower_weight(b, g, x, window_origin(g, x, x.lanes), dy, dw)
    blocks = -(-g.o // b.vw)
    nv = min(3, blocks) if g.groups == 1 else choose_nv(b, g.o, g.og, g.ow)
    runs, run_len, panels = _forward_panels(b, g, x, nv)
    items = panels.count * len(runs) * -(-run_len // 8)
    slots = 1 if items >= SLOT_ITEMS else min(g.n, 8)
    width = nv * b.vw
    packed = b.scratch(slots * panels.count * len(panels.red) * width)
    b.emit(
        "wgrad_lanes_c",
        g.macs,
        x=window_origin(g, x, x.lanes),
        dy=dy.at(),
        dw=packed.at(),
        runs=b.constant(runs).at(),
        panels=b.constant(panels.x_panels).at(),
        n=g.n,
        oh=g.oh,
        ow=g.ow,
        nruns=len(runs),
        run_len=run_len,
        npanels=panels.count,
        nv=nv,
        slots=slots,
        x_n=x.sn,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * x.lanes,
        **dy.strides("y"),
        y_w=b.vw,
    )
    b.emit(
        "unpack_wgrad",
        packed.floats,
        src=packed.at(),
        dw=dw.at(),
        panels=b.constant(panels.w_panels).at(),
        red=b.constant(panels.red).at(),
        npanels=panels.count,
        k=len(panels.red),
        width=width,
        **panels.group,
        slots=slots,
    )
