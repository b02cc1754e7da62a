"""Other sizes of the same image: interpolation, and channels to pixels."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS, gather, windows
from ..ops import shape as _shape
from ..ops.base import check_rank, ints
from .call import operation

LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}


@operation("x")
def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """x (N, C, L), (N, C, H, W) or (N, C, D, H, W) resized to `size`, or by `scale_factor` (one, or one per dimension).

    mode: "nearest", or "linear", "bilinear", "trilinear" for 1, 2, 3 dimensions; align_corners: whether the corner
    pixels' centres, rather than their outer edges, coincide.
    """
    count = x.ndim - 2
    if count not in (1, 2, 3):
        raise ValueError(f"interpolate: input must have 3 to 5 dimensions (N, C, ...), got shape {x.shape}")
    if mode != "nearest" and LINEAR.get(mode) != count:
        allowed = next(name for name, n in LINEAR.items() if n == count)
        raise ValueError(f'interpolate: mode must be "nearest" or "{allowed}" for shape {x.shape}, got {mode!r}')
    if mode == "nearest" and align_corners is not None:
        raise ValueError("interpolate: align_corners is for the linear modes only")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give one of size and scale_factor")
    sizes = x.shape[2:]
    factors: tuple = (None,) * count
    if size is not None:
        outs = ints("interpolate", "size", size, count, 1)
    else:
        given = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * count
        factors = tuple(float(f) for f in given)
        if len(factors) != count or min(factors) <= 0:
            raise ValueError(f"interpolate: scale_factor must be a number > 0 or {count} of them, got {scale_factor!r}")
        outs = tuple(int(n * f) for n, f in zip(sizes, factors))
        if min(outs) < 1:
            raise ValueError(f"interpolate: scale_factor {scale_factor!r} leaves nothing of {sizes}")
    kind = "nearest" if mode == "nearest" else "linear"
    if mode != "nearest" or count == 2:  # PyTorch ignores the factor for these sizes
        exact = (1, 2) if mode == "nearest" else (1,)
        factors = tuple(None if out in [k * n for k in exact] else f for n, out, f in zip(sizes, outs, factors))
    axes = tuple(
        windows.interpolation(n, out, factor, kind, bool(align_corners)) for n, out, factor in zip(sizes, outs, factors)
    )
    table = gather.separable(tuple(sizes), axes)
    return add_node(OPS["gather_sum"], [x], table=table, resize=(kind, bool(align_corners), factors))


@operation("x")
def pixel_shuffle(x, upscale_factor):
    """x (N, C*r*r, H, W) as (N, C, H*r, W*r): r*r channels become an r x r block (Shi et al., 2016)."""
    check_rank("pixel_shuffle", "input", x, 4, "(N, C, H, W)")
    n, c, h, w = x.shape
    (r,) = ints("pixel_shuffle", "upscale_factor", upscale_factor, 1, 1)
    if c % (r * r):
        raise ValueError(f"pixel_shuffle: {c} channels are not a multiple of upscale_factor squared ({r * r})")
    x = add_node(OPS["reshape"], [x], shape=(n, c // (r * r), r, r, h, w))
    return add_node(OPS["reshape"], [_shape.transpose(x, (0, 1, 4, 2, 5, 3))], shape=(n, c // (r * r), h * r, w * r))


@operation("x")
def pixel_unshuffle(x, downscale_factor):
    """The way back of pixel_shuffle: (N, C, H*r, W*r) as (N, C*r*r, H, W)."""
    check_rank("pixel_unshuffle", "input", x, 4, "(N, C, H, W)")
    n, c, h, w = x.shape
    (r,) = ints("pixel_unshuffle", "downscale_factor", downscale_factor, 1, 1)
    if h % r or w % r:
        raise ValueError(f"pixel_unshuffle: {h}x{w} is not a multiple of downscale_factor ({r})")
    x = add_node(OPS["reshape"], [x], shape=(n, c, h // r, r, w // r, r))
    return add_node(OPS["reshape"], [_shape.transpose(x, (0, 1, 3, 5, 2, 4))], shape=(n, c * r * r, h // r, w // r))
