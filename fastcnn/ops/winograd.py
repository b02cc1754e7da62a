"""3x3 and 5x5 convolutions of stride 1 by Winograd's algorithm, channels in the lanes (csrc/kernels/winograd.inc.c)."""

from __future__ import annotations

import numpy as np

from .. import config
from .geometry import Geometry, planar
from .panels import pack_bias

SIDE, POINTS, PAIR_POINTS = 6, 36, 12
# Measured on layers of 8 to 512 channels (Zen 3). Work beside the products, in multiply-adds: per tile and channel (of
# input or output), and per weight, where the weights' transform is not kept from run to run.
CHANNEL_WORK, WEIGHT_WORK = 300, 600
FEWEST_TILES, MOST_TILES = 24, 72  # that are worked on at a time
SCRATCH_BYTES = 16 << 20  # of all threads: beyond it, fewer tiles


def fits(g: Geometry) -> bool:
    """Whether the algorithm is made for this convolution."""
    shape = (g.kh, g.kw) in ((3, 3), (5, 5)) and g.stride == g.dilation == (1, 1)
    return shape and g.groups == 1 and not planar(g)


def kinds_of(g: Geometry, oh: int, ow: int) -> list[tuple[int, int]]:
    """Of all images' outputs: how many tiles of F(4x4, 3x3) or F(2x2, 5x5) there are, and how many points such a
    tile has; then those of fewer outputs at the right edge, at the lower edge, in the corner."""
    m = SIDE + 1 - g.kh
    rows, cols = ([(size // m, SIDE), (int(size % m > 0), size % m + g.kh - 1)] for size in (oh, ow))
    return [(g.n * high * wide, i * j) for high, i in rows for wide, j in cols]


def points_of(kinds: list[tuple[int, int]]) -> int:
    return sum(count * points for count, points in kinds)


def largest(kinds: list[tuple[int, int]], parts: int) -> int:
    """Tiles of the largest of so many parts, which get the same share of each kind."""
    return sum(-(-count // parts) for count, _ in kinds)


def work(vw: int, g: Geometry, lanes: int, red: int, oh: int, ow: int) -> float:
    """About how many multiply-adds it takes for oh x ow outputs, from red to lanes channels."""
    points = points_of(kinds_of(g, oh, ow))
    lanes, red = (-(-size // vw) * vw for size in (lanes, red))
    return float(points) * (lanes * red + CHANNEL_WORK / POINTS * (lanes + red)) + WEIGHT_WORK * lanes * red


def pays(vw: int, g: Geometry, lanes: int, red: int, oh: int, ow: int) -> bool:
    """Whether it is used: fits and, unless it was asked for, is less work than the direct kernel."""
    if config.get_conv_algorithm() == "direct" or not fits(g):
        return False
    if config.get_conv_algorithm() == "winograd":
        return True
    full_lanes, full_red = (-(-size // vw) * vw for size in (lanes, red))
    return work(vw, g, lanes, red, oh, ow) < float(g.n * g.kh * g.kw) * oh * ow * full_lanes * full_red


def _blocks(b, total: int, floats: int) -> int:
    """The fewest blocks in which to work on `total` tiles, each of which takes so many floats of a thread's scratch."""
    return -(-total // max(FEWEST_TILES, min(MOST_TILES, SCRATCH_BYTES // (4 * floats * b.threads))))


def _parts(b, total: int, floats: int, panels: int) -> int:
    """Such blocks: if their tiles are not too few then, so many that threads get as many pairs of block and panel."""
    blocks = _blocks(b, total, floats)
    even = next(n for n in range(blocks, blocks + b.threads) if n * panels % b.threads == 0)
    return even if total >= even * FEWEST_TILES else blocks


def lower(b, g: Geometry, x, x_at, w, bias, add, mask, y, lanes, red, oh, ow, flip, act, pool=None):
    """y = act(convolution of x + bias + add), masked. x_at: the first output's window; lanes, red: the output's and the
    input's channels; flip: the data gradient's weights (taps reversed, the roles of the channels exchanged). pool:
    None, or (taps,) of a 2x2 maximum in the same pass, taps the storage of their places in their windows or None."""
    blocks, outs, nv = x.c, y.c, min(b.tile_nv, y.c)
    panels = -(-outs // nv)
    k, width = blocks * b.vw, nv * b.vw
    u_p = panels * k * width + 16  # not a power of two: 36 streams of one alignment would share cache sets
    u = b.scratch(POINTS * u_p)
    area = g.kh * g.kw
    s_lane, s_red = (area, g.cg * area) if flip else (g.cg * area, area)
    b.emit(
        "winograd_weights", 36.0 * panels * k * width, w=w.at(), u=u.at(), npanels=panels, k=k, nv=nv, red=red,
        lanes=lanes, s_red=s_red, s_lane=s_lane, flip=int(flip), u_p=u_p, r=g.kh,
    )  # fmt: skip
    packed_bias = pack_bias(b, bias, lanes, panels, width) if bias else None
    kinds = kinds_of(g, oh, ow)
    parts = _parts(b, largest(kinds, 1), POINTS * (k + panels * width), panels)
    tiles = largest(kinds, parts)
    size = POINTS * (k * tiles + 16 + panels * tiles * width + 16)
    scratch = b.scratch(size * b.threads)
    m = mask.strides("m") if mask else dict(m_n=0, m_c=0, m_h=0)
    r = add.strides("r") if add else dict(r_n=0, r_c=0, r_h=0)
    b.emit(
        "winograd", float(points_of(kinds)) * k * outs * b.vw, x=x_at, u=u.at(),
        bias=packed_bias.at() if bias else None, add=add.at() if add else None, mask=mask.at() if mask else None,
        y=y.at(), scratch=scratch.at(),
        runs=b.constant(np.arange(blocks, dtype=np.int64) * tiles * b.vw).at(), n=g.n, oh=oh, ow=ow, r=g.kh,
        blocks=blocks, outs=outs, npanels=panels, nv=nv, parts=parts, tiles=tiles, scratch_size=size, u_p=u_p,
        **x.strides("x"), **y.strides("y"), **r, **m, act=act, pool=int(pool is not None),
        taps=pool[0].at() if pool and pool[0] else None,
    )  # fmt: skip


GRADIENT_BYTES = 8 << 20  # what the sums of all slots may take
UNITS = 48  # of a slot, a pair of rows of points and a panel, into which a weight gradient is cut if it may


def lower_weight(b, g: Geometry, x, x_at, dy, dw):
    """dw from x (x_at: the first output's window) and dy."""
    blocks, outs, nv = x.c, dy.c, min(b.tile_nv, dy.c)
    panels = -(-outs // nv)
    k, width = blocks * b.vw, nv * b.vw
    kinds = kinds_of(g, g.oh, g.ow)
    size = POINTS * panels * k * width
    slots = max(1, min(-(-UNITS // (3 * panels)), GRADIENT_BYTES // (4 * size), largest(kinds, 1) // MOST_TILES))
    u = b.scratch(slots * size)
    per_tile, of_slot = PAIR_POINTS * (k + 16 + panels * width + 16), largest(kinds, slots)
    tiles = -(-of_slot // _blocks(b, of_slot, per_tile))
    b.emit(
        "winograd_wgrad", float(points_of(kinds)) * k * outs * b.vw, x=x_at, dy=dy.at(), u=u.at(),
        scratch=b.scratch(tiles * per_tile * b.threads).at(), n=g.n, oh=g.oh, ow=g.ow, r=g.kh, blocks=blocks,
        outs=outs, npanels=panels, nv=nv, slots=slots, tiles=tiles,
        scratch_size=tiles * per_tile, **x.strides("x"), **dy.strides("y"),
    )  # fmt: skip
    b.emit(
        "winograd_unpack", 36.0 * slots * panels * k * width, u=u.at(), dw=dw.at(), npanels=panels, k=k, nv=nv, red=g.c,
        lanes=g.o, slots=slots, r=g.kh,
    )  # fmt: skip
