"""Convolution with channels in the lanes: weights packed into panels (csrc/kernels.def, conv_lanes_c)."""

from __future__ import annotations

from . import winograd
from .geometry import Geometry, window_origin
from .panels import make_panels, pack, pack_bias

SLOT_ITEMS = 16  # a weight gradient of fewer items than this is cut along the batch too


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


def _beside(name, letter, value, at=(0, 0), step=(1, 1)):
    """The fields of a value (or None) that the kernel reads beside y, from row and column `at` on."""
    if value is None:
        return {name: None, **{f"{letter}_{k}": 0 for k in "nchw"}}
    strides = (value.sn, value.sc, step[0] * value.sh, step[1] * value.lanes)
    return {
        name: value.at(at[0] * value.sh + at[1] * value.lanes),
        **{f"{letter}_{k}": s for k, s in zip("nchw", strides)},
    }


def lower_forward(b, g, x, w, bias, add, y, act):
    if winograd.pays(b.vw, g, g.o, g.c, g.oh, g.ow):
        origin = window_origin(g, x, x.lanes)
        return winograd.lower(b, g, x, origin, w, bias, add, None, y, g.o, g.c, g.oh, g.ow, False, act)
    runs, run_len, panels = _forward_panels(b, g, x, choose_nv(b, g.o, g.og, g.ow))
    packed = pack(b, w, panels)
    packed_bias = pack_bias(b, bias, g.o, panels.count, panels.width_vectors * b.vw) if bias else None
    b.emit(
        "conv_lanes_c",
        g.macs,
        x=window_origin(g, x, x.lanes),
        w=packed.at(),
        bias=packed_bias.at() if bias else None,
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
        **_beside("add", "r", add),
        **_beside("mask", "m", None),
        act=act,
    )


def lower_data(b, g, dy, w, bias, add, mask, dx):
    if winograd.pays(b.vw, g, g.c, g.o, g.h, g.w):
        origin = dy.at((g.pads[0] - g.kh + 1) * dy.sh + (g.pads[2] - g.kw + 1) * b.vw)
        return winograd.lower(b, g, dy, origin, w, bias, add, mask, dx, g.c, g.o, g.h, g.w, True, 0)
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
            runs, panels = make_panels(b, g.c, g.cg, g.og, dy.c, b.vw, dy.sc, taps, nv, group)
            packed = pack(b, w, panels) if taps else b.scratch(b.vw)
            packed_bias = pack_bias(b, bias, g.c, panels.count, panels.width_vectors * b.vw) if bias else None
            b.emit(
                "conv_lanes_c",
                float(g.n * rows * cols * g.c) * len(panels.red),
                x=dy.at(),
                w=packed.at(),
                bias=packed_bias.at() if bias else None,
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
                **_beside("add", "r", add, (h0, w0), g.stride),
                **_beside("mask", "m", mask, (h0, w0), g.stride),
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
