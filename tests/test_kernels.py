"""Kernels that no op's cases bring to every instruction set and thread count, called by themselves: against float64, at sizes
around the vector width, the same bits at any number of threads, nothing written beside the result."""

import numpy as np
import pytest
from test_ops import isa  # noqa: F401 - a fixture

from fastcnn import _core

HALF = 2.0**-24  # of the last place: what rounding to float32 loses of a number, relative to it
BESIDE = 40  # floats before and after a result that must stay as they were


def sizes():
    """Around the vector's width, one less and one more than a few of them."""
    vw = _core.isa()["vw"]
    return sorted({1, vw - 1 or 2, vw, vw + 1, 3 * vw - 1, 4 * vw + 3})


def computed(kernel, results, **fields):
    """What a kernel leaves in `results`, {field: its shape, if it begins as NaN, or what it holds before}."""
    runs = []
    for threads in (1, 2):
        rooms = {}
        for name, of in results.items():
            before = of if isinstance(of, np.ndarray) else np.full(of, np.nan, np.float32)
            rooms[name] = np.full(before.size + 2 * BESIDE, 77, before.dtype)
            rooms[name][BESIDE:-BESIDE] = before.ravel()
        inside = {name: room[BESIDE:-BESIDE] for name, room in rooms.items()}
        _core.run_kernel(kernel, threads, **fields, **inside)
        for name, room in rooms.items():
            assert (room[:BESIDE] == 77).all() and (room[-BESIDE:] == 77).all(), f"{kernel} writes beside {name}"
        runs.append(
            [inside[name].reshape(np.shape(of) if isinstance(of, np.ndarray) else of) for name, of in results.items()]
        )
        for a, b in zip(runs[0], runs[-1]):
            assert a.tobytes() == b.tobytes(), f"{kernel}: other bits at {threads} threads"
    return runs[0] if len(results) > 1 else runs[0][0]


def whole(rng, *shape):
    """Whole numbers, never 0, that float32 adds and multiplies without rounding."""
    return (rng.integers(1, 9, shape) * rng.choice([-1, 1], shape)).astype(np.float32)


# ---- scatter and gather --------------------------------------------------------------------------------------------
def places(index, wide):
    return {"wide": index} if wide else {"narrow": index.astype(np.int32)}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("planes", [1, 2, 7])
def test_scatter_and_gather(planes, wide, isa):  # noqa: F811
    """With places that come twice, the last of which stays, and places outside, which are left out or give 0."""
    rng = np.random.default_rng(planes)
    for size in sizes():
        for count in (size, 2 * size + 3):
            index = rng.integers(-2, size + 2, (planes, count))
            fields = dict(planes=planes, **places(index, wide))
            x, dense, skip = whole(rng, planes, count), whole(rng, planes, size), int(rng.integers(size))
            put, inside = np.zeros((planes, size)), (index >= 0) & (index < size)
            for plane in range(planes):
                put[plane, index[plane, inside[plane]]] = x[plane, inside[plane]]
            taken = np.take_along_axis(dense, np.clip(index, 0, size - 1), 1) * (inside & (index != skip))
            scattered = computed("scatter", {"y": put.shape}, x=x, ins=count, outs=size, **fields)
            gathered = computed("gather", {"y": x.shape}, x=dense, ins=size, outs=count, skip=skip, **fields)
            np.testing.assert_array_equal(scattered, put)
            np.testing.assert_array_equal(gathered, taken)


def test_scatter_is_the_adjoint_of_gather(isa):  # noqa: F811
    """Of places that differ, exactly: <gather(a), b> = <a, scatter(b)>."""
    rng = np.random.default_rng(0)
    for inside in sizes():
        for wide in (False, True):
            count = -(-inside // 2)
            index = np.stack([rng.permutation(inside)[:count] for _ in range(5)])
            a, b = whole(rng, 5, inside), whole(rng, 5, count)
            fields = dict(planes=5, **places(index, wide))
            there = computed("gather", {"y": b.shape}, x=a, ins=inside, outs=count, skip=-1, **fields)
            back = computed("scatter", {"y": a.shape}, x=b, ins=count, outs=inside, **fields)
            assert (there * b).sum(dtype=np.float64) == (a * back).sum(dtype=np.float64) != 0


# ---- gather_u8 -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1 / 255, 0.0), (1 / 127.5, -1.0), (-0.3, 1e4)])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_gather_u8(count, scale, shift, isa):  # noqa: F811
    """Items that come twice, in any order, the last one too; of numbers of float32, the sum is rounded once or twice."""
    rng = np.random.default_rng(count)
    for size in [*sizes(), 64, 131]:
        x = rng.integers(0, 256, (9, size), np.uint8)
        index = rng.integers(0, 9, count)
        index[-1] = 8
        y = computed(
            "gather_u8", {"y": (count, size)}, x=x, index=index, count=count, size=size, scale=scale, shift=shift
        )
        products = x[index] * np.float64(np.float32(scale))
        want = products + np.float64(np.float32(shift))
        assert (np.abs(y - want) <= HALF * (np.abs(products) + np.abs(y))).all()


# ---- scale_items ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("c, inner", [(1, 1), (3, 1), (2, 6), (10, 3)])
def test_scale_items(c, inner, isa):  # noqa: F811
    """A product is exact in float64, so its rounding is the only right answer; the lanes past the last image hold 0."""
    vw, rng = _core.isa()["vw"], np.random.default_rng(c)
    for images in sizes():
        blocks = -(-images // vw)
        x = rng.standard_normal((blocks, c, inner, vw)).astype(np.float32)
        s = rng.standard_normal((images, inner)).astype(np.float32)
        factors = np.zeros((blocks * vw, inner))
        factors[:images] = s
        factors = factors.reshape(blocks, vw, inner).transpose(0, 2, 1)[:, None]
        y = computed("scale_items", {"y": x.shape}, x=x, s=s, images=images, c=c, inner=inner)
        np.testing.assert_array_equal(y, (x * factors).astype(np.float32))


# ---- clip_norm -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.0, 1e-6, 0.3, 0.999, 1.001, 1e30])
def test_clip_norm(share, isa):  # noqa: F811
    """Chunks apart from each other, and what lies between them as it was; the factor and the product are each rounded."""
    rng = np.random.default_rng(0)
    lengths = [*sizes(), 150]
    starts = np.cumsum([3, *(length + 1 + i % 3 for i, length in enumerate(lengths))])
    chunks = np.array([(a, a + length) for a, length in zip(starts, lengths)])
    g = rng.standard_normal(starts[-1] + 2).astype(np.float32)
    clipped = np.zeros(g.size, bool)
    for a, b in chunks:
        clipped[a:b] = True
    sums = np.array([np.square(g[a:b].astype(np.float64)).sum() for a, b in chunks])
    norm = np.sqrt(sums.sum())
    counts = dict(count=len(chunks), total=len(sums), max_norm=share * norm)
    got = computed("clip_norm", {"g": g}, chunks=chunks, sums=sums, **counts)
    if share > 1:
        assert got.tobytes() == g.tobytes()
        return
    assert got[~clipped].tobytes() == g[~clipped].tobytes()
    want = g[clipped] * (share * norm / (norm + 1e-6))
    assert (np.abs(got[clipped] - want) <= 2.001 * HALF * np.abs(want)).all()


@pytest.mark.parametrize("total", [np.nan, np.inf])
def test_clip_norm_of_what_is_not_finite(total, isa):  # noqa: F811
    """A norm that is NaN makes all NaN; an infinite one zeros, and NaN of infinities."""
    for size in sizes():
        g = np.arange(1, size + 1, dtype=np.float32)
        g[-1] = np.inf
        sums, chunks = np.array([1.0, total]), np.array([[0, size]])
        got = computed("clip_norm", {"g": g}, chunks=chunks, sums=sums, count=1, total=2, max_norm=1.0)
        np.testing.assert_array_equal(got[:-1], 0 * got[:-1] if np.isinf(total) else np.nan)
        assert np.isnan(got[-1])


# ---- fold_norm -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_fold_norm(affine, with_bias, isa):  # noqa: F811
    """Worked out in double and rounded once; a variance of 0 is held up by eps."""
    rng, eps = np.random.default_rng(0), 1e-5
    for channels in sizes():
        for size in (1, 9, _core.isa()["vw"] + 1):
            w = rng.standard_normal((channels, size)).astype(np.float32)
            mean, w_bias, weight, bias = rng.standard_normal((4, channels)).astype(np.float32) * np.float32(3)
            var = rng.uniform(0, 4, channels).astype(np.float32)
            var[-1] = 0
            y, y_bias = computed(
                "fold_norm",
                {"y": w.shape, "y_bias": (channels,)},
                w=w,
                w_bias=w_bias if with_bias else None,
                mean=mean,
                var=var,
                weight=weight if affine else None,
                bias=bias if affine else None,
                channels=channels,
                size=size,
                eps=eps,
            )
            scale = (weight.astype(np.float64) if affine else 1.0) / np.sqrt(var.astype(np.float64) + eps)
            moved = ((w_bias.astype(np.float64) if with_bias else 0.0) - mean) * scale
            want, want_bias = w * scale[:, None], moved + (bias if affine else 0.0)
            assert (np.abs(y - want) <= 1.0001 * HALF * np.abs(want)).all()
            loss = 2.0**-50 * (np.abs(moved) + np.abs(bias) + 10 * np.abs(scale))
            assert (np.abs(y_bias - want_bias) <= HALF * np.abs(want_bias) + loss).all()


# ---- batch_norm_running --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "momentum, tracked", [*((m, t) for m in (0.0, 0.1, 1.0) for t in (None, 6)), (-1.0, 0), (-1.0, 6)]
)
def test_batch_norm_running(momentum, tracked, isa):  # noqa: F811
    """Worked out in double and rounded once. Below 0 the momentum is that of the average of all runs."""
    rng, count = np.random.default_rng(0), 5
    for channels in sizes():
        mean, before_mean = rng.standard_normal((2, channels)).astype(np.float32)
        var, before_var = rng.uniform(0.5, 4, (2, channels)).astype(np.float32)
        counter = {} if tracked is None else {"tracked": np.array([tracked])}
        new_mean, new_var, *counted = computed(
            "batch_norm_running",
            {"running_mean": before_mean, "running_var": before_var, **counter},
            mean=mean,
            var=var,
            hyper=np.array([momentum]),
            channels=channels,
            count=count,
        )
        assert [int(c[0]) for c in counted] == ([] if tracked is None else [tracked + 1])
        m = momentum if momentum >= 0 else 1 / (tracked + 1)
        for got, before, batch in [(new_mean, before_mean, mean), (new_var, before_var, var * np.float64(1.25))]:
            parts = (1 - m) * before.astype(np.float64), m * batch.astype(np.float64)
            want = sum(parts)
            assert (np.abs(got - want) <= HALF * np.abs(want) + 2.0**-50 * sum(map(np.abs, parts))).all()
