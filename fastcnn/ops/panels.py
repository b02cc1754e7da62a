"""What convolutions with channels in the lanes share: packed weights and biases (csrc/kernels.def, pack_weights), the
fields of values beside the output, parts of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import Geometry

PART_BYTES = 4 << 20  # what several steps of a strided convolution go over stays in the cache: so much at a time


@dataclass
class Panels:
    """How weights of lane channels l and reduction channels r are packed: see pack_weights."""

    width_vectors: int
    count: int
    x_panels: np.ndarray  # [count][3] for the convolution
    w_panels: np.ndarray  # [count][3] for pack_weights
    red: np.ndarray  # [k][2]
    group: dict  # lanes_per_group, red_per_group, s_group, s_lane, s_red

    def fields(self, b) -> dict:
        """What pack_weights and unpack_wgrad read of it."""
        return dict(
            panels=b.constant(self.w_panels).at(),
            red=b.constant(self.red).at(),
            npanels=self.count,
            k=len(self.red),
            width=self.width_vectors * b.vw,
            **self.group,
        )


def _cut(vw, lanes, lanes_per_group, nv) -> list[tuple[int, int]]:
    """The blocks of lanes [first, end) of each of the fewest panels of at most nv: as equal as can be, because narrow
    tiles are slow; with groups, which then begin where panels do more often, of nv but for the last."""
    blocks = -(-lanes // vw)
    count = -(-blocks // nv)
    if lanes > lanes_per_group:
        return [(p * nv, min((p + 1) * nv, blocks)) for p in range(count)]
    return [(blocks * p // count, blocks * (p + 1) // count) for p in range(count)]


def _spans(cuts, vw, lanes, lanes_per_group, red_per_group, red_vw) -> list[tuple[int, int]]:
    """The blocks of reduction channels [first, end) that the groups of each panel need."""
    spans = []
    for first, end in cuts:
        last = min(lanes, end * vw) - 1
        low = first * vw // lanes_per_group * red_per_group // red_vw
        spans.append((low, -(-((last // lanes_per_group + 1) * red_per_group) // red_vw)))
    return spans


def _widest(spans) -> int:
    return max(end - first for first, end in spans)


def choose_nv(b, lanes, lanes_per_group, red_per_group, pixels) -> int:
    """Vectors of a panel: those whose register tiles fill a row of pixels best and whose groups need few reduction
    channels; of equals the usual number."""
    accumulators = b.tile_m * b.tile_nv

    def cost(nv):  # register-tile steps per pixel and vector; a tile of fewer than 8 accumulators waits for them
        rows = accumulators // nv
        tiles = -(-pixels // rows)
        longer, short = pixels % tiles, pixels // tiles
        steps = longer * max(8, (short + 1) * nv) + (tiles - longer) * max(8, short * nv) + 2 * tiles
        cuts = _cut(b.vw, lanes, lanes_per_group, nv)
        reduction = _widest(_spans(cuts, b.vw, lanes, lanes_per_group, red_per_group, b.vw))
        return reduction * steps / nv, nv != b.tile_nv

    return min(range(1, min(-(-lanes // b.vw), b.tile_nv + 1) + 1), key=cost)


def make_panels(b, lanes, lanes_per_group, red_per_group, red_blocks, red_vw, block_stride, taps, nv, group):
    """Panels of at most nv vectors of lane channels, each over the reduction blocks that its groups need.

    red_blocks, red_vw: how many blocks of reduction channels there are and how wide (1 when planar).
    taps: per run, [(reduction lane, tap offset)] of its elements, and the run's block relative to the panel's first.
    """
    vw = b.vw
    cuts = _cut(vw, lanes, lanes_per_group, nv)
    groups = max(1, lanes // lanes_per_group)
    spans = _spans(cuts, vw, lanes, lanes_per_group, red_per_group, red_vw)
    need = _widest(spans) if groups > 1 else red_blocks
    x_panels, w_panels = [], []
    for (first, end), (low, _) in zip(cuts, spans):
        low = min(low, red_blocks - need)
        x_panels.append((low * block_stride, first, end - first))
        w_panels.append((low * red_vw, first * vw, min(end * vw, lanes) - first * vw))
    runs, red = [], []
    for block in range(need):
        for offset, elements in taps:
            runs.append(block * block_stride + offset)
            red += [(block * red_vw + lane, tap) for lane, tap in elements]
    return (
        np.array(runs, np.int64),
        Panels(
            max(end - first for first, end in cuts),
            len(cuts),
            np.array(x_panels, np.int64),
            np.array(w_panels, np.int64),
            np.array(red, np.int64).reshape(-1, 2),
            dict(lanes_per_group=lanes_per_group, red_per_group=red_per_group, **group),
        ),
    )


def pack(b, w, panels: Panels):
    """Emit the packing of a weight (Storage) into panels; the packed storage."""
    packed = b.scratch(panels.count * len(panels.red) * panels.width_vectors * b.vw)
    b.emit("pack_weights", packed.floats, w=w.at(), out=packed.at(), **panels.fields(b))
    return packed


def unpack(b, packed, dw, panels: Panels, slots: int) -> None:
    """Emit the way back: a weight gradient from the sum of the slots' packed ones."""
    b.emit("unpack_wgrad", packed.floats, src=packed.at(), dw=dw.at(), slots=slots, **panels.fields(b))


def pack_bias(b, bias, lanes: int, firsts, width: int):
    """Emit the packing of a bias (Storage) of `lanes` channels into panels `width` wide, which begin with the channels
    `firsts`; the packed storage."""
    count = len(firsts)
    packed = b.scratch(count * width)
    ends = [min(end, lanes) for end in (*firsts[1:], lanes)]
    table = [[0, first, max(0, end - first)] for first, end in zip(firsts, ends)]
    b.emit(
        "pack_weights",
        packed.floats,
        w=bias.at(),
        out=packed.at(),
        panels=b.constant(np.array(table, np.int64)).at(),
        red=b.constant(np.zeros((1, 2), np.int64)).at(),
        npanels=count,
        k=1,
        width=width,
        lanes_per_group=lanes,
        red_per_group=1,
        s_group=0,
        s_lane=1,
        s_red=0,
    )
    return packed


def beside(name, letter, value, at=(0, 0), step=(1, 1)):
    """The fields of a value (or None) that the kernel reads beside y, from row and column `at` on."""
    if value is None:
        return {name: None, **{f"{letter}_{k}": 0 for k in "nchw"}}
    strides = (value.sn, value.sc, step[0] * value.sh, step[1] * value.lanes)
    return {
        name: value.at(at[0] * value.sh + at[1] * value.lanes),
        **{f"{letter}_{k}": s for k, s in zip("nchw", strides)},
    }


def part_images(g: Geometry, size: int) -> int:
    """How many images of `size` bytes make a part: all parts get as many."""
    parts = -(-g.n // max(1, PART_BYTES // size))
    return -(-g.n // parts)


def parts(g: Geometry, images: int, *values):
    """The values (or None), so many images at a time."""
    for first in range(0, g.n, images):
        yield [value and value.batch(first, min(images, g.n - first)) for value in values]


def each_phase(g: Geometry, phases: list, dy, add, mask, dx):
    """Of a strided data gradient: each phase with the values of some images, as phases write the same lines of dx."""
    images = g.n if len(phases) == 1 else part_images(g, 4 * dx.sn)
    for values in parts(g, images, dy, add, mask, dx):
        for phase in phases:
            yield phase, values
