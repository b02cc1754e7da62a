"""3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3), channels in the lanes (csrc/kernels/winograd.inc.c)."""

from __future__ import annotations

import numpy as np

from .. import config
from .geometry import Geometry, planar
from .panels import pack_bias

POINTS = 36
# Measured on layers of 64 to 512 channels. Work beside the products, in multiply-adds: per tile and input channel, per
# tile and output channel, and per weight, where the weights' transform is not kept from run to run.
INPUT_WORK, OUTPUT_WORK, WEIGHT_WORK = 150, 100, 600
POINT_BYTES = 1 << 20  # what the points of the tiles that are worked on at a time take
FEWEST_TILES, MOST_TILES = 24, 96


def fits(g: Geometry) -> bool:
    """Whether the algorithm is made for this convolution."""
    shape = (g.kh, g.kw) == (3, 3) and g.stride == g.dilation == (1, 1)
    return shape and g.groups == 1 and not planar(g)


def tiles_of(n: int, oh: int, ow: int) -> int:
    """Of 4x4 outputs, in n images."""
    return n * -(-oh // 4) * -(-ow // 4)


def work(vw: int, n: int, lanes: int, red: int, oh: int, ow: int) -> float:
    """About how many multiply-adds it takes for n images of oh x ow outputs, from red to lanes channels."""
    tiles = tiles_of(n, oh, ow)
    lanes, red = (-(-size // vw) * vw for size in (lanes, red))
    return float(tiles) * (POINTS * lanes * red + INPUT_WORK * red + OUTPUT_WORK * lanes) + WEIGHT_WORK * lanes * red


def pays(vw: int, g: Geometry, lanes: int, red: int, oh: int, ow: int) -> bool:
    """Whether it is used: fits and, unless it was asked for, is less work than the direct kernel."""
    if config.get_conv_algorithm() == "direct" or not fits(g):
        return False
    if config.get_conv_algorithm() == "winograd":
        return True
    full_lanes, full_red = (-(-size // vw) * vw for size in (lanes, red))
    return work(vw, g.n, lanes, red, oh, ow) < 9.0 * g.n * oh * ow * full_lanes * full_red


def lower(b, g: Geometry, x, x_at, w, bias, add, mask, y, lanes, red, oh, ow, flip, act):
    """y = act(convolution of x + bias + add), masked. x_at: the first output's window; lanes, red: the output's and the
    input's channels; flip: the data gradient's weights (taps reversed, the roles of the channels exchanged)."""
    blocks, outs, nv = x.c, y.c, min(b.tile_nv, y.c)
    panels = -(-outs // nv)
    k, width = blocks * b.vw, nv * b.vw
    u_p = panels * k * width + 16  # not a power of two: 36 streams of one alignment would share cache sets
    u = b.scratch(POINTS * u_p)
    area = g.kh * g.kw
    s_lane, s_red = (area, g.cg * area) if flip else (g.cg * area, area)
    b.emit(
        "winograd_weights", 36.0 * panels * k * width, w=w.at(), u=u.at(), npanels=panels, k=k, nv=nv, red=red,
        lanes=lanes, s_red=s_red, s_lane=s_lane, flip=int(flip), u_p=u_p,
    )  # fmt: skip
    packed_bias = pack_bias(b, bias, lanes, panels, width) if bias else None
    total = tiles_of(g.n, oh, ow)
    rows = b.tile_m
    tiles = min(MOST_TILES, max(FEWEST_TILES, POINT_BYTES // (POINTS * k * 4)), -(-total // rows) * rows)
    tiles = -(-tiles // rows) * rows
    size = POINTS * (k * tiles + 16 + tiles * width + 16)
    scratch = b.scratch(size * b.threads)
    m = mask.strides("m") if mask else dict(m_n=0, m_c=0, m_h=0)
    r = add.strides("r") if add else dict(r_n=0, r_c=0, r_h=0)
    b.emit(
        "winograd", 36.0 * total * k * outs * b.vw, x=x_at, u=u.at(), bias=packed_bias.at() if bias else None,
        add=add.at() if add else None, mask=mask.at() if mask else None, y=y.at(), scratch=scratch.at(),
        runs=b.constant(np.arange(blocks, dtype=np.int64) * tiles * b.vw).at(), n=g.n, oh=oh, ow=ow, blocks=blocks,
        outs=outs, npanels=panels, nv=nv, tiles=tiles, scratch_size=size, u_p=u_p, **x.strides("x"), **y.strides("y"),
        **r, **m, act=act,
    )  # fmt: skip


GRADIENT_BYTES = 8 << 20  # what the sums of all slots may take
UNITS = 8  # into which a weight gradient is cut at least, by slots of tiles and groups of panels


def lower_weight(b, g: Geometry, x, x_at, dy, dw):
    """dw from x (x_at: the first output's window) and dy."""
    blocks, outs, nv = x.c, dy.c, min(b.tile_nv, dy.c)
    panels = -(-outs // nv)
    k, width = blocks * b.vw, nv * b.vw
    total = tiles_of(g.n, g.oh, g.ow)
    size = POINTS * panels * k * width
    slots = max(1, min(UNITS, GRADIENT_BYTES // (4 * size), total // FEWEST_TILES))
    groups = min(panels, -(-UNITS // slots))
    u = b.scratch(slots * size)
    per_tile = k + 16 + -(-panels // groups) * width + 16
    tiles = min(MOST_TILES, max(FEWEST_TILES, POINT_BYTES // (POINTS * per_tile * 4)), -(-total // slots))
    b.emit(
        "winograd_wgrad", 36.0 * total * k * outs * b.vw, x=x_at, dy=dy.at(), u=u.at(),
        scratch=b.scratch(POINTS * tiles * per_tile * b.threads).at(), n=g.n, oh=g.oh, ow=g.ow, blocks=blocks,
        outs=outs, npanels=panels, nv=nv, slots=slots, groups=groups, tiles=tiles,
        scratch_size=POINTS * tiles * per_tile, **x.strides("x"), **dy.strides("y"),
    )  # fmt: skip
    b.emit(
        "winograd_unpack", 36.0 * slots * panels * k * width, u=u.at(), dw=dw.at(), npanels=panels, k=k, nv=nv, red=g.c,
        lanes=g.o, slots=slots,
    )  # fmt: skip
