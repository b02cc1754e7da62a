"""3x3 and 5x5 convolutions of stride 1, 3x3 to 6x6 of stride 2, by Winograd's algorithm, channels in the lanes
(csrc/kernels/winograd.inc.c, winograd_weights.inc.c)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from .. import config
from .geometry import Geometry, lacks_channels, planar
from .panels import pack_bias

SIDES = {2: (6,), 3: (4, 6, 9), 5: (6, 9)}  # of tiles of inputs, by taps a side
# Work beside the products, in multiply-adds, by the tile's side, measured on layers of 8 to 512 channels (Zen 3; side
# 4 in ResNet-18's steps of 1, 2 and 8 images on Zen 5): per point of a tile, whole or cut at an edge, and channel (of
# input or output); and per point of a weight of a phase, which is transformed and read, or, of a gradient, summed and
# transformed.
CHANNEL_WORK = {4: (8, 8), 6: (8, 8), 9: (13, 36)}
WEIGHT_WORK, GRADIENT_WORK = {4: 12, 6: 28, 9: 28}, {4: 13, 6: 36, 9: 36}
KEPT_WORK, KEPT_BYTES = 6, 1 << 20  # instead, of weights that are kept between runs and so few that a cache keeps them;
FAR_WORK = 14  # of more of them, but for as many as the direct kernel has to read itself (Zen 5, at one image)
WEIGHT_BYTES = 64 << 20  # of a layer's transformed weights: more of them take more memory than they save time
FEWEST_TILES, TILES = 24, {4: 72, 6: 72, 9: 48}  # that are worked on at a time, by side (see most_tiles)
SPREAD = 16  # floats between what the points have: of one alignment, their streams would share the sets of a cache
SCRATCH_BYTES = 32 << 20  # of all threads, of a gradient of four: beyond it, fewer tiles (half, twice: 0.94 to 1.03 x)


@dataclass(frozen=True)
class Form:
    """A convolution, or its data gradient, as convolutions of stride 1 from each phase of its input or to each phase of
    its output, cut into tiles of `side` inputs a side: so many `taps` a side of so many `rows` and `cols` of outputs.
    phases[phase] is the place of its first pixel; order[phase][tap] is the place among the `weights` of a filter, or
    their number where there is none (winograd_planar.py has one phase, but as many orders as channels). The first
    window begins at pixel `origin`."""

    side: int
    taps: int
    rows: int
    cols: int
    origin: tuple[int, int]
    weights: int
    phases: np.ndarray
    order: np.ndarray

    @cached_property
    def reach(self) -> np.ndarray:
        """[side^2][2], of each point: the phases, from first to last, between which weights do not vanish there."""
        if len(self.phases) == 1:
            return np.tile(np.array([0, 1], np.int64), (self.side**2, 1))
        live = self.order.reshape(-1, self.taps, self.taps) < self.weights
        every = list(range(self.taps))
        taps = [every[:1], every[-1:]] + [every] * (self.side - 2)  # that count at the points 0, infinity and others
        found = [np.flatnonzero(live[:, rows][:, :, cols].any((1, 2))) for rows in taps for cols in taps]
        return np.array([(phases[0], phases[-1] + 1) for phases in found], np.int64)


@lru_cache(1024)
def form(g: Geometry, data: bool, side: int = 6) -> Form:
    """That of a convolution of equal strides, without dilation, or of its data gradient."""
    if side != 6:
        return replace(form(g, data), side=side)
    step, lines, origin = g.stride[0], [], []  # lines[axis][phase]: {place in the window: tap of the filter}
    for axis, kernel in ((0, g.kh), (1, g.kw)):
        if data:
            found = [taps for _, _, taps in g.phases(axis)]
            first = min(at for taps in found for _, at in taps)
        else:
            found = [[(t, t // step) for t in range(p, kernel, step)] for p in range(step)]
            first = 0
        origin.append(first if data else -g.pads[2 * axis])
        lines.append([{at - first: t for t, at in taps} for taps in found])
    taps = 1 + max(at for axis in lines for line in axis for at in line)
    most_rows, most_cols = (axis.index(max(axis, key=len)) for axis in lines)
    phases = [(most_rows, most_cols)]
    if step == 2:  # those with as many taps in a row lie side by side, and those with as many in a column
        phases = [(most_rows, 1 - most_cols), (most_rows, most_cols)]
        phases += [(1 - most_rows, most_cols), (1 - most_rows, 1 - most_cols)]
    order = [
        [lines[0][row][i] * g.kw + lines[1][col][j] if i in lines[0][row] and j in lines[1][col] else g.kh * g.kw
         for i in range(taps) for j in range(taps)]
        for row, col in phases
    ]  # fmt: skip
    rows, cols = (g.h // step, g.w // step) if data else (g.oh, g.ow)
    first_window, tables = (origin[0], origin[1]), (np.array(phases, np.int64), np.array(order, np.int64))
    return Form(side, taps, rows, cols, first_window, g.kh * g.kw, *tables)


def fits(g: Geometry, data: bool = False) -> bool:
    """Whether the algorithm is made for this convolution, or for its data gradient."""
    if g.kh != g.kw or g.dilation != (1, 1) or g.groups > 1 or planar(g):
        return False
    if g.stride == (1, 1):
        return g.kh in (3, 5)
    if g.stride != (2, 2) or not 3 <= g.kh <= 6:
        return False
    if not data:
        return True
    return g.h % 2 == g.w % 2 == 0 and g.pads[0] % 2 == g.pads[2] % 2 and form(g, True).taps <= 3


def x_halo(g: Geometry) -> tuple[int, int, int, int]:
    """The frame that the windows reach, of phases that are as large as each other."""
    top, bottom, left, right = g.x_halo()
    odd = config.get_conv_algorithm() != "direct" and fits(g) and g.kh % g.stride[0]
    return top, bottom + odd, left, right + odd


def kinds_of(f: Form, n: int) -> list[tuple[int, int]]:
    """Of n images' outputs: how many whole tiles there are, and how many points such a tile has; then those of fewer
    outputs at the right edge, at the lower edge, in the corner."""
    m = f.side + 1 - f.taps
    rows, cols = ([(size // m, f.side), (int(size % m > 0), size % m + f.taps - 1)] for size in (f.rows, f.cols))
    return [(n * high * wide, i * j) for high, i in rows for wide, j in cols]


def points_of(kinds: list[tuple[int, int]]) -> int:
    return sum(count * points for count, points in kinds)


def largest(kinds: list[tuple[int, int]], parts: int) -> int:
    """Tiles of the largest of so many parts, which get the same share of each kind."""
    return sum(-(-count // parts) for count, _ in kinds)


def products(f: Form, n: int) -> float:
    """How many there are for each input and output channel."""
    return points_of(kinds_of(f, n)) * float(np.diff(f.reach).mean())


def work(vw: int, f: Form, g: Geometry, weight: bool, kept: bool = False) -> float:
    """Multiply-adds of a convolution or a gradient, and as many as what is beside them takes the time of. kept: the
    weights' points are there from one run to the next."""
    o, c, phases = -(-g.o // vw) * vw, -(-g.c // vw) * vw, len(f.phases)
    whole, *cut = kinds_of(f, g.n)
    of_whole, of_cut = CHANNEL_WORK[f.side]
    transforms = (of_whole * points_of([whole]) + of_cut * points_of(cut)) * (o + phases * c)
    points = f.side**2 * phases * o * c
    of_weights = (GRADIENT_WORK if weight else WEIGHT_WORK)[f.side] * points
    if kept:
        of_weights = KEPT_WORK * points if 4 * points <= KEPT_BYTES else FAR_WORK * (points - g.kh * g.kw * o * c)
    return products(f, g.n) * o * c + transforms + of_weights


def choose(vw: int, g: Geometry, data=False, weight=False, pool=False, kept=False) -> Form | None:
    """The form of least work of a convolution, or of one of its gradients; None where the direct kernel is less, unless
    Winograd was asked for. pool: with a 2x2 maximum of the result in the same pass, which takes tiles of 6x6.
    kept: the transformed weights are."""
    if config.get_conv_algorithm() == "direct" or not fits(g, data):
        return None
    small, weights = form(g, data), -(-g.o // vw) * -(-g.c // vw) * vw**2
    forms = [form(g, data, side) for side in SIDES[small.taps] if len(small.phases) == 1 or side == 6]
    forms = [f for f in forms if not pool or f.side == 6 and f.taps > 2]  # 5 outputs of 2 taps a side are odd
    works = {f.side: work(vw, f, g, weight, kept) for f in forms}
    if config.get_conv_algorithm() == "auto":
        direct = float(g.n * g.kh * g.kw) * small.rows * small.cols * weights
        if kept and lacks_channels(g.c, vw):  # forward; its products are of the channels that there are
            direct *= g.c / vw
        limit = WEIGHT_BYTES // (4 * len(small.phases) * weights)
        forms = [f for f in forms if f.side**2 <= limit and works[f.side] < direct]
    return min(forms, key=lambda f: works[f.side], default=None)


def pools(vw: int, g: Geometry, kept: bool) -> bool:
    """Whether it is used and can take 2x2 maxima of the result in the same pass."""
    return choose(vw, g, pool=True, kept=kept) is not None


def most_tiles(side: int, weights: int, gradient: bool) -> int:
    """To be worked on at a time, of a layer with so many weights at a point. Measured (Zen 3, Zen 5): few weights leave
    room for a few tiles' values of a point in the first cache; many are read from memory once for all of a block's
    tiles, and a gradient's sums are read and written again."""
    few, far = weights <= 1 << 14, weights * side**2 > 6 << 20
    if gradient:
        return TILES[side] if few else 144
    return FEWEST_TILES if few else 96 if far else TILES[side]


def _blocks(most: int, total: int, floats: int) -> int:
    """The fewest blocks of at most so many of `total` tiles, each of which takes so many floats."""
    return -(-total // max(FEWEST_TILES, min(most, SCRATCH_BYTES // (4 * floats))))


def _parts(b, side: int, total: int, floats: int, panels: int, weights: int) -> int:
    """Such blocks: if their tiles are not too few then, so many that threads get as many pairs of block and panel.
    weights: of a point."""
    blocks = _blocks(most_tiles(side, weights, False), total, floats * b.threads)
    even = next(n for n in range(blocks, blocks + b.threads) if n * panels % b.threads == 0)
    return even if total >= even * FEWEST_TILES else blocks


def lower(b, f: Form, g: Geometry, x, w, bias, add, mask, y, act, pool=None, data=False):
    """y = act(convolution of x + bias + add), masked; of the data gradient x is dy and y is dx. pool: None, or (taps,)
    of a 2x2 maximum in the same pass, taps the storage of their places in their windows or None."""
    phases, points = len(f.phases), f.side**2
    x_phases, y_phases = (1, phases) if data else (phases, 1)
    lanes, red = (g.c, g.o) if data else (g.o, g.c)
    blocks, outs, nv = x.c, y.c, min(b.tile_nv, y.c)
    panels_of_phase = -(-outs // nv)
    panels, k, width = y_phases * panels_of_phase, x_phases * blocks * b.vw, nv * b.vw
    u_p = panels * k * width + SPREAD
    u = b.scratch(points * u_p)
    orders = (1, len(f.order)) if data else (len(f.order), 1)
    s_lane, s_red = (f.weights, g.c * f.weights) if data else (g.c * f.weights, f.weights)
    b.emit(
        "winograd_weights", float(points) * panels * k * width, w=w.at(), u=u.at(), order=b.constant(f.order).at(),
        npanels=panels, k=k, nv=nv, red=red, lanes=lanes, s_red=s_red, s_lane=s_lane, red_phases=orders[0],
        lane_phases=orders[1], area=f.weights, u_p=u_p, side=f.side, r=f.taps,
    )  # fmt: skip
    packed_bias = pack_bias(b, bias, lanes, range(0, panels_of_phase * width, width), width) if bias else None
    kinds = kinds_of(f, g.n)
    parts = _parts(b, f.side, largest(kinds, 1), points * (k + panels * width), panels, panels * k * width)
    tiles = largest(kinds, parts)
    size = points * (k * tiles + 16 + panels * tiles * width + 16)
    scratch = b.scratch(size * b.threads)
    m = mask.strides("m") if mask else dict(m_n=0, m_c=0, m_h=0)
    r = add.strides("r") if add else dict(r_n=0, r_c=0, r_h=0)
    b.emit(
        "winograd", products(f, g.n) * blocks * outs * b.vw**2, x=_first_window(b, f, x), u=u.at(),
        bias=packed_bias.at() if bias else None, add=add.at() if add else None, mask=mask.at() if mask else None,
        y=y.at(), scratch=scratch.at(), runs=b.constant(np.arange(k // b.vw, dtype=np.int64) * tiles * b.vw).at(),
        **_tables(b, f), n=g.n, oh=f.rows, ow=f.cols, side=f.side, r=f.taps, blocks=blocks, outs=outs,
        npanels=panels, nv=nv, parts=parts, tiles=tiles, scratch_size=size, u_p=u_p, x_apart=1 if data else g.stride[0],
        y_apart=g.stride[0] if data else 1, **x.strides("x"), **y.strides("y"), **r, **m, act=act,
        pool=int(pool is not None), taps=pool[0].at() if pool and pool[0] else None,
    )  # fmt: skip


def _first_window(b, f: Form, x):
    return x.at(f.origin[0] * x.sh + f.origin[1] * b.vw)


def _tables(b, f: Form) -> dict:
    return dict(phases=b.constant(f.phases).at(), reach=b.constant(f.reach).at())


GRADIENT_BYTES = 8 << 20  # what the sums of all slots may take (half and twice of it: the step takes 1.03 x the time)
UNITS = 48  # of a slot, a pair of rows of points and a panel, into which a weight gradient is cut (24, 96: the same)


def lower_weight(b, f: Form, g: Geometry, x, dy, dw):
    """dw from x and dy."""
    phases, blocks, outs, nv = len(f.phases), x.c, dy.c, min(b.tile_nv, dy.c)
    panels = -(-outs // nv)
    k, width = phases * blocks * b.vw, nv * b.vw
    kinds = kinds_of(f, g.n)
    u_p = panels * k * width + SPREAD
    size = f.side**2 * u_p
    # A slot has at least one tile: of so many, 4 and more, some are of the same kind, which is shared evenly.
    units, total = -(-f.side // 2) * panels, largest(kinds, 1)
    slots = max(1, min(-(-UNITS // units), GRADIENT_BYTES // (4 * size), total // TILES[f.side]))
    u = b.scratch(slots * size)
    per_tile, of_slot = 2 * f.side * (k + 16 + panels * width + 16), largest(kinds, slots)
    most = most_tiles(f.side, panels * k * width, True)
    tiles = -(-of_slot // _blocks(most, of_slot, 4 * per_tile))  # by the shape alone: it is where the sums are cut
    b.emit(
        "winograd_wgrad", products(f, g.n) * blocks * outs * b.vw**2, x=_first_window(b, f, x), dy=dy.at(), u=u.at(),
        scratch=b.scratch(tiles * per_tile * b.threads).at(), **_tables(b, f), n=g.n, oh=f.rows, ow=f.cols,
        side=f.side, r=f.taps, blocks=blocks, outs=outs, npanels=panels, nv=nv, slots=slots, tiles=tiles,
        scratch_size=tiles * per_tile, u_p=u_p, x_apart=g.stride[0], **x.strides("x"), **dy.strides("y"),
    )  # fmt: skip
    b.emit(
        "winograd_unpack", float(f.side**2) * slots * panels * k * width, u=u.at(), dw=dw.at(),
        order=b.constant(f.order).at(), npanels=panels, k=k, nv=nv, red=g.c, lanes=g.o, slots=slots,
        phases=len(f.order), area=f.weights, u_p=u_p, side=f.side, r=f.taps,
    )  # fmt: skip
