"""Convolution with channels in the lanes: weights packed into panels (csrc/kernels.def, conv_lanes_c)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..graph.lower import LANES_C, Ref, Storage
from . import conv_pixels, conv_taps, winograd, winograd_planar
from .geometry import Geometry, alone, gradient_slots, lacks_channels, planar, window_origin
from .panels import Panels, beside, choose_nv, each_phase, make_panels, pack, pack_bias, part_images, parts, unpack


@dataclass
class _Sums:
    """What a convolution adds up: runs over its input (offsets, length) and packed weights and bias."""

    runs: np.ndarray
    run_len: int
    panels: Panels
    w: Storage
    bias: Storage | None


def _pack(b, runs, run_len, panels, w, bias, lanes) -> _Sums:
    packed = pack(b, w, panels) if len(runs) else b.scratch(b.vw)
    packed_bias = pack_bias(b, bias, lanes, panels.w_panels[:, 1], panels.width_vectors * b.vw) if bias else None
    return _Sums(runs, run_len, panels, packed, packed_bias)


def _emit(b, work, sums: _Sums, x: Ref, x_steps, y, size, add=None, mask=None, act=0, at=(0, 0), step=(1, 1)) -> None:
    """size: rows and columns of y, from pixel `at` on, `step` apart. x_steps: floats between images, rows, pixels."""
    rows, cols = size
    b.emit(
        "conv_lanes_c",
        work,
        x=x,
        w=sums.w.at(),
        bias=sums.bias.at() if sums.bias else None,
        runs=b.constant(sums.runs).at(),
        panels=b.constant(sums.panels.x_panels).at(),
        n=y.n,
        oh=rows,
        ow=cols,
        nruns=len(sums.runs),
        run_len=sums.run_len,
        npanels=sums.panels.count,
        nv=sums.panels.width_vectors,
        **{f"x_{k}": floats for k, floats in zip("nhw", x_steps)},
        **beside("y", "y", y, at, step),
        **beside("add", "r", add, at, step),
        **beside("mask", "m", mask, at, step),
        act=act,
    )


# ---- strided 1x1 convolutions: of stride 1 over pixels brought side by side, some images at a time -------------------
def _skips(g: Geometry, x) -> bool:
    return (g.kh, g.kw) == (1, 1) and g.stride != (1, 1) and not any(g.pads) and x.layout == LANES_C


def _side_by_side(b, g: Geometry, images: int | None = None):
    """The convolution of stride 1, and a place for the pixels of so many images (else of as many as make a part)."""
    images = images or part_images(g, 4 * -(-g.c // b.vw) * b.vw * g.oh * g.ow)
    return replace(g, h=g.oh, w=g.ow, stride=(1, 1)), b.new((images, g.c, g.oh, g.ow), LANES_C)


def _pick(b, g: Geometry, x, pixels) -> None:
    b.emit(
        "pick_pixels",
        x.n * pixels.sn,
        x=x.at(),
        y=pixels.at(),
        n=x.n,
        c=x.c,
        h=g.oh,
        w=g.ow,
        x_n=x.sn,
        x_c=x.sc,
        x_h=g.stride[0] * x.sh,
        x_w=g.stride[1] * b.vw,
    )


def _place(b, g: Geometry, pixels, add, mask, dx) -> None:
    fields = {**beside("add", "r", add), **beside("mask", "m", mask)}
    del fields["r_w"], fields["m_w"]
    b.emit(
        "place_pixels",
        dx.n * dx.sn,
        x=pixels.at(),
        y=dx.at(),
        n=dx.n,
        c=dx.c,
        h=g.h,
        w=g.w,
        step_h=g.stride[0],
        step_w=g.stride[1],
        **dx.strides("y"),
        **fields,
    )


# ---- groups that fill blocks: one after the other, each a convolution of its own -------------------------------------
def _of_group(g: Geometry, i: int, weights, inputs, outputs) -> list:
    """What belongs to group i of weights and biases, of values of the input's channels, of the output's (or None)."""
    parts = [v and v.slice((v.shape[0] // g.groups, *v.shape[1:]), i) for v in weights]
    for values, channels in ((inputs, g.cg), (outputs, g.og)):
        parts += [v and v.cut((v.shape[0], channels, *v.shape[2:]), i * channels // v.lanes) for v in values]
    return parts


# ---- forward ---------------------------------------------------------------------------------------------------------
def _forward_panels(b, g: Geometry, x, nv, few=False):
    """few: of a block that lacks more than a quarter of its channels, runs over those that it has, tap by tap."""
    area = g.kh * g.kw
    red_vw = x.lanes
    lanes = g.c if few and lacks_channels(g.c, red_vw) else red_vw
    row, pixel = g.dilation[0] * x.sh, g.dilation[1] * x.lanes
    taps = []
    for kh in range(g.kh):
        elements = [[(lane, kh * g.kw + kw) for lane in range(lanes)] for kw in range(g.kw)]
        if g.dilation[1] == 1 and lanes == red_vw:
            taps.append((kh * row, sum(elements, [])))
        else:
            taps += [(kh * row + kw * pixel, elements[kw]) for kw in range(g.kw)]
    group = dict(s_group=g.og * g.cg * area, s_lane=g.cg * area, s_red=area)
    runs, panels = make_panels(b, g.o, g.og, g.cg, x.c, red_vw, x.sc, taps, nv, group)
    return runs, len(taps[0][1]), panels


def lower_forward(b, g, x, w, bias, add, y, act, pool=None, kept=False):
    """pool: as winograd.lower's; conv_pixels can do without the places. kept: what is made of the weights is."""
    if one := alone(b.vw, g):
        for i in range(g.groups):
            wi, bi, xi, addi, yi = _of_group(g, i, (w, bias), (x,), (add, y))
            lower_forward(b, one, xi, wi, bi, addi, yi, act, None, kept)
        return
    if form := winograd_planar.choose(b.vw, g):
        return winograd_planar.lower(b, form, g, x, w, bias, add, y, act)
    if form := winograd.choose(b.vw, g, pool=pool is not None, kept=kept):
        return winograd.lower(b, form, g, x, w, bias, add, None, y, act, pool)
    if conv_pixels.fits(b.vw, g, pool is not None) and add is None:
        return conv_pixels.lower(b, g, x, w, bias, y, act, pool is not None)
    if conv_taps.fits_forward(g):
        return conv_taps.lower_forward(b, g, x, w, bias, add, y, act)
    skips = _skips(g, x)
    reads, source = _side_by_side(b, g) if skips else (g, x)
    panels = _forward_panels(b, reads, source, choose_nv(b, g.o, g.og, g.cg, g.ow), few=True)
    sums = _pack(b, *panels, w, bias, g.o)
    steps = (source.sn, reads.stride[0] * source.sh, reads.stride[1] * source.lanes)
    origin = window_origin(reads, source, source.lanes)
    for x_part, y_part, add_part in parts(g, source.images, x, y, add):
        if skips:
            _pick(b, g, x_part, source)
        _emit(b, g.macs / g.n * y_part.n, sums, origin, steps, y_part, (g.oh, g.ow), add_part, act=act)


# ---- the data gradient -----------------------------------------------------------------------------------------------
def _data_panels(b, g: Geometry, dy, h_taps, w_taps, nv):
    """Of one phase."""
    area = g.kh * g.kw
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
    group = dict(s_group=g.og * g.cg * area, s_lane=area, s_red=g.cg * area)
    runs, panels = make_panels(b, g.c, g.cg, g.og, dy.c, b.vw, dy.sc, taps, nv, group)
    return runs, len(taps[0][1]) if taps else 1, panels


def lower_data(b, g, dy, w, bias, add, mask, dx):
    if one := alone(b.vw, g):
        for i in range(g.groups):
            wi, bi, addi, maski, dxi, dyi = _of_group(g, i, (w, bias), (add, mask, dx), (dy,))
            lower_data(b, one, dyi, wi, bi, addi, maski, dxi)
        return
    if form := winograd.choose(b.vw, g, data=True):
        return winograd.lower(b, form, g, dy, w, bias, add, mask, dx, 0, data=True)
    if conv_taps.fits_data(g):
        return conv_taps.lower_data(b, g, dy, w, bias, add, mask, dx)
    if _skips(g, dx) and not bias:
        return _lower_placed(b, g, dy, w, add, mask, dx)
    nv = choose_nv(b, g.c, g.cg, g.og, -(-g.w // g.stride[1]))
    phases = []
    for h0, rows, h_taps in g.phases(0):
        for w0, cols, w_taps in g.phases(1):
            sums = _pack(b, *_data_panels(b, g, dy, h_taps, w_taps, nv), w, bias, g.c)
            phases.append((sums, (h0, w0), (rows, cols)))
    steps = (dy.sn, dy.sh, b.vw)
    for (sums, at, size), (dy_part, add_part, mask_part, dx_part) in each_phase(g, phases, dy, add, mask, dx):
        work = float(dx_part.n * size[0] * size[1] * g.c) * len(sums.panels.red)
        _emit(b, work, sums, dy_part.at(), steps, dx_part, size, add_part, mask_part, at=at, step=g.stride)


def _lower_placed(b, g, dy, w, add, mask, dx):
    reads, pixels = _side_by_side(b, g)
    taps = [(0, 0)]
    sums = _pack(b, *_data_panels(b, reads, dy, taps, taps, choose_nv(b, g.c, g.cg, g.og, g.ow)), w, None, g.c)
    for dy_part, add_part, mask_part, dx_part in parts(g, pixels.images, dy, add, mask, dx):
        work, steps = g.macs / g.n * dx_part.n, (dy.sn, dy.sh, b.vw)
        _emit(b, work, sums, dy_part.at(), steps, pixels.batch(0, dx_part.n), (g.oh, g.ow))
        _place(b, g, pixels, add_part, mask_part, dx_part)


# ---- the weight gradient ---------------------------------------------------------------------------------------------
def lower_weight(b, g, x, dy, dw):
    if one := alone(b.vw, g):
        for i in range(g.groups):
            dwi, xi, dyi = _of_group(g, i, (dw,), (x,), (dy,))
            lower_weight(b, one, xi, dyi, dwi)
        return
    if conv_taps.depthwise(g):
        return conv_taps.lower_weight(b, g, x, dy, dw)
    if form := winograd_planar.choose(b.vw, g, weight=True):
        return winograd_planar.lower_weight(b, form, g, x, dy, dw)
    if form := winograd.choose(b.vw, g, weight=True):
        return winograd.lower_weight(b, form, g, x, dy, dw)
    if _skips(g, x):
        reads, pixels = _side_by_side(b, g, g.n)
        _pick(b, g, x, pixels)
        g, x = reads, pixels
    most = choose_nv(b, g.o, g.og, g.cg, g.ow)
    if g.groups == 1:
        most = 4 if planar(g) and g.kw < 4 else 3  # a planar tile has kw rows, and 3 x 2 sums would wait for each other
    runs, run_len, panels = _forward_panels(b, g, x, most)
    # Threads that share a slot's runs read all of dy each: where there is little to add up after it, images are shared.
    nv = panels.width_vectors
    packed_floats = panels.count * len(panels.red) * nv * b.vw
    by_image = min(g.n, 4, (x.floats + dy.floats) // (16 * packed_floats))  # 2 and 4 of them were as fast, on Zen 5
    slots = max(by_image, gradient_slots(panels.count * len(runs) * -(-run_len // 8), g.n))
    packed = b.scratch(slots * packed_floats)
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
    unpack(b, packed, dw, panels, slots)
