"""Two-dimensional convolution and its gradients, over tables of runs (csrc/kernels.def, conv_lanes_c and _n)."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from ..graph.lower import LANES_C, LANES_N, NO_HALO, PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float, check_rank, pair

PLANAR_CHANNELS = 4  # an input of at most so many channels is read plane by plane in lanes_c
SLOT_ITEMS = 16  # a weight gradient of fewer items than this is cut along the batch too


def sides(padding, kernel, stride, dilation, size, op="conv2d") -> tuple[int, int, int, int]:
    """Padding of any accepted form as (top, bottom, left, right). "same" is TensorFlow's rule."""
    if isinstance(padding, str):
        if padding == "valid":
            return NO_HALO
        if padding != "same":
            raise ValueError(f'{op}: padding must be "same", "valid", an int, a pair or four ints, got {padding!r}')
        out = ()
        for k, s, d, n in zip(kernel, stride, dilation, size):
            total = max(0, d * (k - 1) - (n - 1) % s)
            out += (total // 2, total - total // 2)
        return out
    if not isinstance(padding, int) and not hasattr(padding, "__index__") and len(padding) == 4:
        values = tuple(int(v) for v in padding)
        if min(values) < 0:
            raise ValueError(f"{op}: padding must be >= 0, got {padding!r}")
        return values
    h, w = pair(op, "padding", padding, 0)
    return (h, h, w, w)


@dataclass(frozen=True)
class Geometry:
    """A convolution in numbers: everything the lowering needs."""

    n: int
    c: int
    h: int
    w: int
    o: int
    kh: int
    kw: int
    stride: tuple[int, int]
    pads: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    oh: int
    ow: int

    @property
    def cg(self):
        return self.c // self.groups

    @property
    def og(self):
        return self.o // self.groups

    @property
    def macs(self) -> float:
        return float(self.n) * self.oh * self.ow * self.o * self.cg * self.kh * self.kw

    def x_halo(self):
        """The frame of zeros around the input that the windows reach."""
        (sh, sw), (dh, dw), (top, _, left, _) = self.stride, self.dilation, self.pads
        bottom = (self.oh - 1) * sh + dh * (self.kh - 1) + 1 - self.h - top
        right = (self.ow - 1) * sw + dw * (self.kw - 1) + 1 - self.w - left
        return (top, max(0, bottom), left, max(0, right))

    def phases(self, axis: int):
        """Of the data gradient: [(first input index, count, [(tap, offset into dy)])] per residue of the stride."""
        size, k, out = ((self.h, self.kh, self.oh), (self.w, self.kw, self.ow))[axis]
        stride, dilation, pad = self.stride[axis], self.dilation[axis], self.pads[2 * axis]
        result = []
        for first in range(min(stride, size)):
            taps = [
                (t, (first + pad - t * dilation) // stride)
                for t in range(k)
                if (first + pad - t * dilation) % stride == 0
            ]
            result.append((first, -(-(size - first) // stride), taps))
        return result

    def dy_halo(self):
        out = ()
        for axis, extent in ((0, self.oh), (1, self.ow)):
            low = high = 0
            for _, count, taps in self.phases(axis):
                for _, offset in taps:
                    low, high = min(low, offset), max(high, offset + count - extent)
            out += (-low, high)
        return out


def geometry(x_shape, w_shape, attrs) -> Geometry:
    n, c, h, w = x_shape
    o, cg, kh, kw = w_shape
    stride, dilation, pads = attrs["stride"], attrs["dilation"], attrs["pads"]
    oh = (h + pads[0] + pads[1] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (w + pads[2] + pads[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    return Geometry(n, c, h, w, o, kh, kw, stride, pads, dilation, attrs["groups"], oh, ow)


# ---- lanes_n: tables over OIHW weights as they are -----------------------------------------------------------------


def _forward_runs_n(g: Geometry, x, vw, across):
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


def _window_origin(g: Geometry, x, pixel):
    return x.at(-g.pads[0] * x.sh - g.pads[2] * pixel)


def _lower_forward_n(b, g, x, w, bias, y, act):
    padded = any(g.x_halo())
    runs, run_len, x_step, w_step, panels = _forward_runs_n(g, x, b.vw, across=not padded)
    rows = cols = None
    if padded:
        rows = b.constant(_forward_ranges(g, 0) * (len(runs) // g.kh)).at()
        cols = b.constant(_forward_ranges(g, 1)).at() if run_len == g.kw else None
    b.emit(
        "conv_lanes_n",
        g.macs,
        x=_window_origin(g, x, b.vw),
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
    )


def _lower_data_n(b, g, dy, w, mask, dx):
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
            along_h = _ranges(lambda j, t: 0 <= j + h_taps[t][1] < g.oh, (rows, len(h_taps))) * g.og
            along_w = _ranges(lambda j, t: 0 <= j + w_taps[t][1] < g.ow, (cols, len(w_taps)))
            m = {"m_n": 0, "m_c": 0, "m_h": 0, "m_w": 0}
            if mask:
                m = {"m_n": mask.sn, "m_c": mask.sc, "m_h": g.stride[0] * mask.sh, "m_w": g.stride[1] * b.vw}
            b.emit(
                "conv_lanes_n",
                float(dy.images * g.c * rows * cols) * len(runs) * run_len,
                x=dy.at(),
                w=w.at(),
                bias=None,
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
            )


def _lower_weight_n(b, g, x, dy, dw):
    runs, run_len, x_step, w_step, panels = _forward_runs_n(g, x, b.vw, across=False)
    items = -(-g.o // 2) * len(runs)
    slots = 1 if items >= SLOT_ITEMS else max(1, min(dy.n * g.oh, 8))
    target = dw if slots == 1 else b.scratch(slots * dw.floats)
    rows = None
    if any(g.x_halo()):
        start = -g.pads[0]
        taps = _ranges(lambda t, o: 0 <= start + o * g.stride[0] + t * g.dilation[0] < g.h, (g.kh, g.oh))
        rows = b.constant(np.repeat(taps, len(runs) // g.kh, axis=0)).at()
    b.emit(
        "wgrad_lanes_n",
        g.macs,
        x=_window_origin(g, x, b.vw),
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
    )
    if slots > 1:
        b.emit("sum_slots", slots * dw.floats, src=target.at(), dst=dw.at(), size=dw.floats, slots=slots)


# ---- lanes_c: weights packed into panels ---------------------------------------------------------------------------


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


def _frame(layout, planar, halo):
    """(layout, halo) that a convolution reads: the lanes_n kernels leave out the rows above and below the image."""
    if layout == LANES_N:
        return LANES_N, (0, 0, *halo[2:])
    return (PLAIN if planar else LANES_C), halo


def planar(g: Geometry) -> bool:
    return g.groups == 1 and g.c <= PLANAR_CHANNELS


def _forward_panels_c(b, g: Geometry, x, nv):
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


def _lower_forward_c(b, g, x, w, bias, y, act):
    runs, run_len, panels = _forward_panels_c(b, g, x, choose_nv(b, g.o, g.og, g.ow))
    packed = pack(b, w, panels)
    packed_bias = pack_bias(b, bias, g.o, panels) if bias else None
    b.emit(
        "conv_lanes_c",
        g.macs,
        x=_window_origin(g, x, x.lanes),
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


def _lower_data_c(b, g, dy, w, mask, dx):
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
            b.emit(
                "conv_lanes_c",
                float(g.n * rows * cols * g.c) * len(panels.red),
                x=dy.at(),
                w=packed.at(),
                bias=None,
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


def _lower_weight_c(b, g, x, dy, dw):
    blocks = -(-g.o // b.vw)
    nv = min(3, blocks) if g.groups == 1 else choose_nv(b, g.o, g.og, g.ow)
    runs, run_len, panels = _forward_panels_c(b, g, x, nv)
    items = panels.count * len(runs) * -(-run_len // 8)
    slots = 1 if items >= SLOT_ITEMS else min(g.n, 8)
    width = nv * b.vw
    packed = b.scratch(slots * panels.count * len(panels.red) * width)
    b.emit(
        "wgrad_lanes_c",
        g.macs,
        x=_window_origin(g, x, x.lanes),
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


# ---- the ops ------------------------------------------------------------------------------------------------------


class Conv2d(Op):
    """inputs x[n][c][h][w], weight[o][c/groups][kh][kw], optionally bias[o] (attrs bias=True)."""

    name = "conv2d"

    def infer(self, inputs, attrs):
        x, w = inputs[:2]
        for argument, symbol in zip(("input", "weight", "bias"), inputs):
            check_float("conv2d", argument, symbol)
        check_rank("conv2d", "input", x, 4, "(N, C, H, W)")
        check_rank("conv2d", "weight", w, 4, "(out, in/groups, kh, kw)")
        groups = attrs["groups"]
        if groups < 1 or w.shape[0] % groups:
            raise ValueError(f"conv2d: groups={groups} must divide the {w.shape[0]} output channels")
        if x.shape[1] != w.shape[1] * groups:
            raise ValueError(
                f"conv2d: input has {x.shape[1]} channels (shape {x.shape}), expected "
                f"{w.shape[1] * groups} (weight {w.shape}, groups={groups})"
            )
        if len(inputs) > 2 and inputs[2].shape != (w.shape[0],):
            raise ValueError(f"conv2d: bias must have shape ({w.shape[0]},), got {inputs[2].shape}")
        if min(w.shape) < 1:
            raise ValueError(f"conv2d: weight has an empty dimension: {w.shape}")
        g = geometry(x.shape, w.shape, attrs)
        if g.oh < 1 or g.ow < 1:
            raise ValueError(
                f"conv2d: input {x.shape[2]}x{x.shape[3]} with padding {attrs['pads']} is smaller than "
                f"the kernel {w.shape[2]}x{w.shape[3]} with dilation {attrs['dilation']}"
            )
        return [((g.n, g.o, g.oh, g.ow), "float32")]

    def grad(self, node, douts, needs):
        x, w = node.inputs[:2]
        attrs, dy = node.attrs, douts[0]
        base = {k: attrs[k] for k in ("stride", "pads", "dilation", "groups")}
        return [
            add_node(OPS["conv2d_data"], [dy, w], shape=x.shape, **base) if needs[0] else None,
            add_node(OPS["conv2d_weight"], [x, dy], shape=w.shape, **base) if needs[1] else None,
            add_node(OPS["channel_sum"], [dy]) if needs[2:3] == [True] else None,
        ]

    def halo(self, node, layout):
        g = geometry(node.inputs[0].shape, node.inputs[1].shape, node.attrs)
        return {0: _frame(layout, planar(g), g.x_halo())}

    def lower(self, node, b):
        g = geometry(node.inputs[0].shape, node.inputs[1].shape, node.attrs)
        lower = _lower_forward_n if b.layout == LANES_N else _lower_forward_c
        x = b.get(node.inputs[0], PLAIN if b.layout == LANES_C and planar(g) else b.layout)
        w = b.get(node.inputs[1], PLAIN)
        bias = b.get(node.inputs[2], PLAIN) if len(node.inputs) > 2 else None
        lower(b, g, x, w, bias, b.out(node.outputs[0], b.layout), node.attrs.get("act", 0))

    def cases(self):
        base = dict(stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1)
        out = []
        for n, c, h, w, o, k, change in [
            (1, 1, 7, 8, 1, 3, {}),
            (2, 3, 9, 7, 17, 3, {"pads": (1, 1, 1, 1)}),
            (5, 16, 6, 6, 33, 1, {}),
            (3, 15, 8, 9, 8, 5, {"pads": (2, 2, 2, 2)}),
            (17, 2, 8, 8, 7, 3, {"stride": (2, 2), "pads": (1, 1, 1, 1)}),
            (2, 9, 11, 12, 6, 3, {"dilation": (2, 3), "pads": (2, 1, 0, 3)}),
            (2, 12, 7, 7, 18, 3, {"groups": 3, "pads": (1, 1, 1, 1)}),
            (3, 20, 6, 5, 20, 3, {"groups": 20, "pads": (1, 1, 1, 1)}),
            (2, 32, 6, 6, 64, 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
            (1, 3, 23, 23, 10, 7, {"stride": (2, 2), "pads": (3, 3, 3, 3)}),
            (2, 8, 10, 9, 16, 2, {"stride": (3, 3)}),
            (2, 5, 12, 13, 4, 3, {"stride": (3, 2), "dilation": (2, 2), "pads": (0, 3, 2, 1)}),
            (33, 4, 5, 5, 6, 3, {}),
            (2, 4, 5, 6, 3, 1, {"stride": (2, 2)}),
        ]:
            for bias in ((o,), None):
                shapes = [(n, c, h, w), (o, c // change.get("groups", 1), k, k)] + ([bias] if bias else [])
                out.append((shapes, {**base, **change}))
        return out


class Conv2dData(Op):
    """dx from dy and weight; attrs shape is x's. With attrs mask, a third input: dx is kept where it is > 0."""

    name = "conv2d_data"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def halo(self, node, layout):
        g = geometry(node.attrs["shape"], node.inputs[1].shape, node.attrs)
        return {0: _frame(layout, False, g.dy_halo())}

    def lower(self, node, b):
        g = geometry(node.attrs["shape"], node.inputs[1].shape, node.attrs)
        lower = _lower_data_n if b.layout == LANES_N else _lower_data_c
        dy = b.get(node.inputs[0], b.layout)
        w = b.get(node.inputs[1], PLAIN)
        mask = b.get(node.inputs[2], b.layout) if node.attrs.get("mask") else None
        lower(b, g, dy, w, mask, b.out(node.outputs[0], b.layout))

    def grad(self, node, douts, needs):
        base = {k: node.attrs[k] for k in ("stride", "pads", "dilation", "groups")}
        g, w = douts[0], node.inputs[1]
        return [
            add_node(OPS["conv2d"], [g, w], **base) if needs[0] else None,
            add_node(OPS["conv2d_weight"], [g, node.inputs[0]], shape=w.shape, **base) if needs[1] else None,
        ]


class Conv2dWeight(Op):
    """dweight from x and dy; attrs shape is weight's."""

    name = "conv2d_weight"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def halo(self, node, layout):
        g = geometry(node.inputs[0].shape, node.attrs["shape"], node.attrs)
        return {0: _frame(layout, planar(g), g.x_halo())}

    def lower(self, node, b):
        g = geometry(node.inputs[0].shape, node.attrs["shape"], node.attrs)
        lower = _lower_weight_n if b.layout == LANES_N else _lower_weight_c
        x = b.get(node.inputs[0], PLAIN if b.layout == LANES_C and planar(g) else b.layout)
        lower(b, g, x, b.get(node.inputs[1], b.layout), b.out(node.outputs[0], PLAIN))


class ChannelSum(Op):
    """Sum over everything but the channels (dimension 1): the bias gradient."""

    name = "channel_sum"

    def infer(self, inputs, attrs):
        return [((inputs[0].shape[1],), "float32")]

    def lower(self, node, b):
        layout = next((k for k in b.layouts(node.inputs[0]) if k in (LANES_C, LANES_N)), b.layout)
        dy = b.get(node.inputs[0], layout)
        db = b.out(node.outputs[0], PLAIN)
        b.emit(
            f"sum_{layout}",
            dy.floats,
            dy=dy.at(),
            db=db.at(),
            channels=dy.channels,
            n=dy.n,
            h=dy.h,
            w=dy.w,
            **dy.strides("y"),
        )
