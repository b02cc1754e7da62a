"""3x3 and 5x5 convolutions of stride 1 by Winograd's algorithm, images in the lanes (csrc/kernels/winograd_n.inc.c)."""

from __future__ import annotations

from .. import config
from .geometry import Geometry

SIDES = {(3, 3): (6, 7, 8), (5, 5): (8, 9)}  # of tiles of inputs, by kernel
POINT_BYTES = 3 << 17  # what the points of a group of tiles may take
GRADIENT_BYTES = 3 << 20  # in a weight gradient: each point is read once, from a farther cache
IMAGES = 4  # blocks of them that a weight gradient sums before it adds up the lanes
SUM_BYTES = 9 << 17  # what the sums of all slots of a weight gradient may take
SLOTS = 4  # and how many there are at most
SUM_TILE = 8  # channels of a register tile at most
# Multiply-adds' worth of time per point of a tile: of a product's, of an input and of an output channel (Zen 3).
PRODUCT_WORK, INPUT_WORK, OUTPUT_WORK = 1.2, 8, 7


def _tiles(g: Geometry, side: int) -> tuple[int, int]:
    return -(-g.oh // (side + 1 - g.kh)), -(-g.ow // (side + 1 - g.kw))


def _cost(g: Geometry, side: int) -> float:
    high, wide = _tiles(g, side)
    return high * wide * side**2 * (PRODUCT_WORK * g.c * g.o + INPUT_WORK * g.c + OUTPUT_WORK * g.o)


def choose_side(g: Geometry) -> int:
    """The side of the tiles of inputs that takes the least work; 0 where the direct kernel takes less."""
    sides = SIDES.get((g.kh, g.kw), ()) if g.stride == g.dilation == (1, 1) and g.groups == 1 else ()
    if config.get_conv_algorithm() == "direct" or not sides:
        return 0
    side = min(sides, key=lambda side: _cost(g, side))
    if config.get_conv_algorithm() == "winograd" or _cost(g, side) < g.macs / g.n:
        return side
    return 0


def pools(g: Geometry) -> bool:
    """Whether 2x2 maxima can be taken in the same pass: no window lies in two tiles."""
    side = choose_side(g)
    return side == 0 or (side + 1 - g.kh) % 2 == 0


class _Lowering:
    """What the kernels of one convolution have in common."""

    def __init__(self, b, g: Geometry, blocks: int, channels: int, most_bytes: int):
        """blocks: of images; channels: those whose points, at most so many bytes, are kept for a group of tiles."""
        self.b, self.g, self.side = b, g, choose_side(g)
        self.points = self.side**2
        self.high, self.wide = _tiles(g, self.side)
        self.most = max(1, most_bytes // (self.points * channels * self.wide * b.vw * 4))
        self.rows = -(-self.high // -(-self.high // self.most))  # of tiles in the largest group
        self.tiles = self.rows * self.wide
        self.work = float(self.points * blocks * b.vw * g.c * g.o) * self.high * self.wide
        self.shape = dict(
            n=blocks, c=g.c, o=g.o, h=g.h, w=g.w, pad_h=g.pads[0], pad_w=g.pads[2], oh=g.oh, ow=g.ow, side=self.side,
            r=g.kh, rows=self.rows,
        )  # fmt: skip

    def scratch(self, points: int, places: int = 1) -> dict:
        """points: floats of the points of a group of tiles, a cache line or two more for each item of a row."""
        line = self.side * ((self.side + 1 - self.g.kw) * self.wide + self.g.kw - 1) * self.b.vw
        size = places * 6 * -(-self.tiles // 16) * 16 + line + self.points * points
        size = -(-size // 16) * 16
        return dict(scratch=self.b.scratch(size * self.b.threads).at(), scratch_size=size)

    def weights(self, w, outs, red, s_out, s_red):
        u = self.b.scratch(self.points * outs * red)
        self.b.emit(
            "winograd_n_weights", 3.0 * u.floats, w=w.at(), u=u.at(), outs=outs, red=red, tiles=self.tiles,
            side=self.side, r=self.g.kh, s_out=s_out, s_red=s_red,
        )  # fmt: skip
        return u


def lower_forward(b, g: Geometry, x, w, bias, y, act, pool):
    """pool: as conv_lanes_n.lower_forward's."""
    p, area = _Lowering(b, g, x.n, g.c, POINT_BYTES), g.kh * g.kw
    u = p.weights(w, g.o, g.c, g.c * area, area)
    b.emit(
        "winograd_n", p.work, x=x.at(), u=u.at(), bias=bias.at() if bias else None, y=y.at(),
        idx=pool[0].at() if pool and pool[0] else None, **p.shape,
        **p.scratch(p.tiles * (g.c * b.vw + 32)), **x.strides("x"), **y.strides("y"), act=act,
        pool=int(pool is not None),
    )  # fmt: skip


def lower_data(b, g: Geometry, dy, w, mask, dx):
    p, area = _Lowering(b, g, dy.n, g.o, POINT_BYTES), g.kh * g.kw
    u = p.weights(w, g.c, g.o, area, g.c * area)
    m = mask.strides("m") if mask else dict(m_n=0, m_c=0, m_h=0)
    b.emit(
        "winograd_n_data", p.work, dy=dy.at(), u=u.at(), mask=mask.at() if mask else None, dx=dx.at(), **p.shape,
        **p.scratch(p.tiles * ((g.o + SUM_TILE) * b.vw + 64), 2), **dy.strides("y"), **m, **dx.strides("x"),
    )  # fmt: skip


def lower_weight(b, g: Geometry, x, dy, dw):
    p = _Lowering(b, g, x.n, g.c + g.o, GRADIENT_BYTES)
    size = p.points * g.c * g.o + b.vw  # a vector that reaches over the end
    slots = max(1, min(SLOTS, x.n, SUM_BYTES // (4 * size)))
    images = max(1, min(IMAGES, x.n // slots, p.most // p.rows)) if p.rows == p.high else 1
    u = b.scratch(slots * size)
    b.emit(
        "winograd_n_wgrad", p.work, x=x.at(), dy=dy.at(), u=u.at(), **p.shape, images=images,
        slots=slots, u_size=size,
        **p.scratch((g.c + g.o) * (images * p.tiles * b.vw + 32), images), **x.strides("x"), **dy.strides("y"),
    )  # fmt: skip
    b.emit(
        "winograd_n_unpack", float(slots * size), u=u.at(), dw=dw.at(), c=g.c, o=g.o, side=p.side, r=g.kh, slots=slots,
        u_size=size,
    )  # fmt: skip
