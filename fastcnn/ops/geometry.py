"""A convolution in numbers: padding, sizes, halos and the phases of a strided data gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.lower import LANES_C, LANES_N, NO_HALO, PLAIN
from .base import ints, pair

SLOT_ITEMS = 16  # a weight gradient of fewer items than this is cut along the batch too
# Multiply-adds of a group that make up for steps of its own: with 0.45e6 the layer took 1.25 to 1.6 times as long, with
# 5e6 0.9 to 1.05, with 7e6 0.6 to 1.0 (Zen 5, 3x3 and 1x1, 3 to 32 groups, 1 and 16 images).
ALONE_WORK = 4e6
PLANAR_CHANNELS = 4  # an input of at most so many channels is read plane by plane in lanes_c


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
    if isinstance(padding, (tuple, list)) and len(padding) == 4:
        return ints(op, "padding", padding, 4, 0)  # type: ignore[return-value]
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


def gradient_slots(items: int, parts: int) -> int:
    """In how many of so many parts of the batch a weight gradient of so many items is summed: by its shape alone."""
    return 1 if items >= SLOT_ITEMS else max(1, min(parts, 8))


def lacks_channels(c: int, vw: int) -> bool:
    """Whether a block lacks so many channels that a direct convolution runs over those that it has."""
    return 4 * c < 3 * vw


def planar(g: Geometry) -> bool:
    return g.groups == 1 and g.c <= PLANAR_CHANNELS


def alone(vw: int, g: Geometry) -> Geometry | None:
    """One of several groups as a convolution of its own, if its channels fill blocks of vw on both sides, are more than
    would be read planar, and it is work enough for steps of its own; else None."""
    if g.groups == 1 or g.cg <= PLANAR_CHANNELS or g.cg % vw or g.og % vw or g.macs < ALONE_WORK * g.groups:
        return None
    return replace(g, c=g.cg, o=g.og, groups=1)


def frame(layout, planar, halo):
    """(layout, halo) that a convolution reads: the lanes_n kernels leave out the rows above and below the image."""
    if layout == LANES_N:
        return LANES_N, (0, 0, *halo[2:])
    return (PLAIN if planar else LANES_C), halo


def window_origin(g: Geometry, x, pixel):
    return x.at(-g.pads[0] * x.sh - g.pads[2] * pixel)
