"""Winograd's algorithm against float64, at sizes around its tile and the vector, on every instruction set."""

import numpy as np
import pytest
import reference as ref
from test_ops import isa, run, use_threads  # noqa: F401 - isa is a fixture

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, nn
from fastcnn.graph import passes
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, add_node
from fastcnn.ops import OPS, winograd
from fastcnn.ops.arithmetic import arithmetic
from fastcnn.ops.geometry import geometry

FORWARD, GRADIENT = 2e-5, 5e-5  # normwise errors that are allowed
ATTRS = dict(stride=(1, 1), dilation=(1, 1), groups=1)
STRIDED = {**ATTRS, "stride": (2, 2)}
KERNELS = {"winograd", "winograd_weights", "winograd_wgrad", "winograd_unpack"}


@pytest.fixture(autouse=True)
def algorithm():
    fc.set_conv_algorithm("winograd")


@pytest.fixture(params=[4, 6, 9])
def side(request, monkeypatch):
    """Of the tiles of inputs, where they are not of another by the convolution's stride or a pooling."""
    sides = {2: (6,), 3: (4, 6, 9), 5: (6, 9)}
    assert sides == winograd.SIDES
    monkeypatch.setattr(winograd, "SIDES", {**sides, 3: (request.param,), 5: (max(6, request.param),)})
    return request.param


def few_tiles(monkeypatch, most):
    monkeypatch.setattr(winograd, "TILES", dict.fromkeys((4, 6, 9), most))
    monkeypatch.setattr(winograd, "most_tiles", lambda *_: most)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 3)


def error(value, want):
    return np.linalg.norm(value - want) / max(np.linalg.norm(want), 1e-30)


def program(shapes, pads, threads, monkeypatch, relu=False, attrs=ATTRS):
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    use_threads(monkeypatch, threads)
    inputs = [Symbol(s) for s in shapes]
    x = add_node(OPS["map"], inputs[:1], kind="relu", alpha=0.0) if relu else inputs[0]
    y = add_node(OPS["conv2d"], [x, *inputs[1:]], pads=pads, **attrs)
    y = add_node(OPS["map"], [y], kind="relu", alpha=0.0) if relu else y
    return Program(inputs, [y], inputs)


def kernels(p):
    return {step.kernel for step in p.steps}


SIZES = [
    (1, 1),
    (2, 3),
    (3, 4),
    (4, 4),
    (4, 5),
    (5, 8),
    (7, 9),
    (8, 6),
    (12, 13),
    (7, 14),
    (13, 10),
    (11, 15),
    (23, 14),
]
CHANNELS = [(5, 1), (7, 9), (8, 8), (9, 17), (16, 33), (17, 16), (33, 24), (150, 9)]


def shapes_of(case, sizes, k, pads):
    """Those of the input, the weight and the bias; skips what has no output."""
    size, (channels, outputs) = sizes[case % len(sizes)], CHANNELS[case % len(CHANNELS)]
    if size[0] + pads[0] + pads[1] < k or size[1] + pads[2] + pads[3] < k:
        pytest.skip("no output")
    return [(1 + case % 3, channels, *size), (outputs, channels, k, k), (outputs,)]


def check_against_float64(shapes, pads, attrs, most, monkeypatch):
    """The program, whose results, at any number of threads, are right."""
    if most:
        few_tiles(monkeypatch, most)
    rng = np.random.default_rng(shapes[0][2])
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    first = program(shapes, pads, 1, monkeypatch, attrs=attrs)
    dy = rng.standard_normal(first.outputs[0].shape).astype(np.float32)
    got = run(first, arrays, dy)
    x, w, b = (a.astype(np.float64) for a in arrays)
    want = ref.conv2d(x, w, b, pads=pads, **attrs)
    grads = [*ref.conv2d_grads(x, w, dy.astype(np.float64), pads=pads, **attrs), dy.sum((0, 2, 3), dtype=np.float64)]
    assert error(got[0], want) < FORWARD
    for value, expected in zip(got[1:], grads, strict=True):
        assert error(value, expected) < GRADIENT
    for threads in (2, 3, 7):
        other = run(program(shapes, pads, threads, monkeypatch, attrs=attrs), arrays, dy)
        for a, c in zip(got, other, strict=True):
            assert a.tobytes() == c.tobytes(), f"other bits at {threads} threads"
    return first


@pytest.mark.parametrize("most", [None, 5])  # with 5, most sizes are several blocks of tiles
@pytest.mark.parametrize("r, pads", [(3, (1, 1, 1, 1)), (3, (0, 2, 2, 1)), (5, (2, 2, 2, 2)), (5, (4, 0, 1, 3))])
@pytest.mark.parametrize("case", range(max(len(SIZES), len(CHANNELS))))
def test_against_float64(case, r, pads, most, side, isa, monkeypatch):  # noqa: F811
    shapes = shapes_of(case, SIZES, r, pads)
    assert kernels(check_against_float64(shapes, pads, ATTRS, most, monkeypatch)) >= KERNELS


def test_a_small_scratch_changes_no_bits(side, monkeypatch):
    """Its share of a thread is smaller where there are more of them; sums are cut as before."""
    few_tiles(monkeypatch, 48)
    monkeypatch.setattr(winograd, "SCRATCH_BYTES", 1 << 18)
    check_against_float64([(3, 33, 23, 34), (17, 33, 3, 3), (17,)], (1, 1, 1, 1), ATTRS, None, monkeypatch)


STRIDED_SIZES = [(2, 4), (3, 5), (4, 9), (8, 10), (10, 2), (12, 20), (11, 20), (22, 13), (24, 22)]
STRIDED_KERNELS = [
    (3, (1, 1, 1, 1)),
    (3, (0, 1, 2, 0)),
    (4, (1, 1, 1, 1)),
    (4, (2, 1, 0, 3)),
    (5, (2, 2, 2, 2)),
    (5, (1, 4, 3, 2)),
    (6, (2, 2, 2, 2)),
    (6, (1, 3, 3, 1)),
]


@pytest.mark.parametrize("most", [None, 5])
@pytest.mark.parametrize("k, pads", STRIDED_KERNELS)
@pytest.mark.parametrize("case", range(max(len(STRIDED_SIZES), len(CHANNELS))))
def test_strided_against_float64(case, k, pads, most, isa, monkeypatch):  # noqa: F811
    shapes = shapes_of(case, STRIDED_SIZES, k, pads)
    p = check_against_float64(shapes, pads, STRIDED, most, monkeypatch)
    assert kernels(p) >= KERNELS
    even = shapes[0][2] % 2 == shapes[0][3] % 2 == 0 and (k, pads[0]) != (6, 1)  # else the gradient takes 4 taps
    assert [step.kernel for step in p.steps].count("winograd") == (2 if even else 1)


def test_strided_data_gradients_of_unlike_paddings_are_direct(monkeypatch):
    p = check_against_float64([(2, 8, 12, 12), (8, 8, 4, 4), (8,)], (1, 1, 2, 2), STRIDED, 5, monkeypatch)
    assert [step.kernel for step in p.steps].count("winograd") == 1


@pytest.mark.parametrize("k", [3, 4])
def test_strided_gradients_are_added_and_masked_in_the_store(k, isa, monkeypatch):  # noqa: F811
    """dx of two strided convolutions of one ReLU."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    use_threads(monkeypatch, 2)
    rng = np.random.default_rng(3)
    inputs = [Symbol(s) for s in [(3, 9, 14, 12), (17, 9, k, k), (17, 9, 1, 1)]]
    arrays = [rng.standard_normal(i.shape).astype(np.float32) for i in inputs]
    positive, wide, narrow = np.maximum(arrays[0], 0).astype(float), *(a.astype(float) for a in arrays[1:])
    framed, bare = {**STRIDED, "pads": (1, 1, 1, 1)}, {**STRIDED, "pads": (0, 0, 0, 0)}
    for last in (1, 2):
        x = add_node(OPS["map"], inputs[:1], kind="relu", alpha=0.0)
        parts = {i: add_node(OPS["conv2d"], [x, inputs[i]], **(framed if i == 1 else bare)) for i in (3 - last, last)}
        p = Program(inputs, [arithmetic("add", parts[1], parts[2])], inputs)
        assert not {"zip", "map_bwd"} & kernels(p)
        dy = rng.standard_normal(p.outputs[0].shape).astype(np.float32)
        got = run(p, arrays, dy)
        assert error(got[0], ref.conv2d(positive, wide, **framed) + ref.conv2d(positive, narrow, **bare)) < FORWARD
        one, two = (ref.conv2d_grads(positive, w, dy.astype(float), **a) for w, a in ((wide, framed), (narrow, bare)))
        for value, want in zip(got[1:], [np.where(positive > 0, one[0] + two[0], 0), one[1], two[1]], strict=True):
            assert error(value, want) < GRADIENT


def check_between_relus(shapes, pads, attrs, monkeypatch):
    """The program of a ReLU, the convolution and a ReLU, whose results are right."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    fused = program(shapes, pads, 2, monkeypatch, relu=True, attrs=attrs)
    x, w, b = (a.astype(np.float64) for a in arrays)
    y = ref.conv2d(np.maximum(x, 0), w, b, pads=pads, **attrs)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    got = run(fused, arrays, dy)
    d = np.where(y > 0, dy.astype(np.float64), 0)
    dx, dw = ref.conv2d_grads(np.maximum(x, 0), w, d, pads=pads, **attrs)
    assert error(got[0], np.maximum(y, 0)) < FORWARD
    for value, want in zip(got[1:], [np.where(x > 0, dx, 0), dw, d.sum((0, 2, 3))], strict=True):
        assert error(value, want) < GRADIENT
    return fused


@pytest.mark.parametrize("r", [3, 5])
def test_activation_and_mask_are_fused(r, side, isa, monkeypatch):  # noqa: F811
    fused = check_between_relus([(2, 9, 7, 6), (17, 9, r, r), (17,)], (r // 2,) * 4, ATTRS, monkeypatch)
    assert [step.kernel for step in fused.steps].count("map_bwd") == 1  # of the outer ReLU; the inner is a mask


@pytest.mark.parametrize("k, attrs", [(3, ATTRS), (5, ATTRS), *((k, STRIDED) for k in (3, 4, 5, 6))])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (4, 4), (5, 9), (8, 7), (10, 11), (13, 12)])
def test_pooling_in_the_store_has_the_bits_of_a_pass_of_its_own(size, k, attrs, isa, monkeypatch):  # noqa: F811
    """Maxima, with their places where there are gradients, of whole numbers with many ties, and with NaN among them."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    few_tiles(monkeypatch, 5)
    monkeypatch.setattr(winograd, "SIDES", dict.fromkeys((2, 3, 5), (6,)))  # with a pooling of its own it may be 9
    fuse_pooling, rng = passes.fuse_pooling, np.random.default_rng(size[0])
    inner = [attrs["stride"][0] * side for side in size]
    shapes = [(3, 9, *inner), (17, 9, k, k), (17,), (3, 17, *size)]
    arrays = [rng.integers(-1, 2, s).astype(np.float32) for s in shapes]
    poisoned = [arrays[0].copy(), *arrays[1:]]
    poisoned[0][1, 3, -2, 0] = np.nan
    for act, gradient in [(True, True), (True, False), (False, True), (False, False)]:
        results = []
        for threads, fused in [(1, False), (1, True), (2, True), (5, True)]:
            monkeypatch.setattr(passes, "fuse_pooling", fuse_pooling if fused else lambda *_: None)
            use_threads(monkeypatch, threads)
            inputs = [Symbol(s) for s in shapes]
            y = add_node(OPS["conv2d"], inputs[:3], pads=((k - 1) // 2,) * 4, **attrs)
            y = add_node(OPS["map"], [y], kind="relu", alpha=0.0) if act else arithmetic("add", y, inputs[3])
            y = add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0]
            p = Program(inputs, [y], inputs[: 3 + (not act)] if gradient else [])
            apart = not fused or attrs is STRIDED and k < 5  # tiles of 2 taps have 5 outputs a side
            assert {"max_pool", "zip", "winograd"} & kernels(p) == {"winograd", *(["max_pool"] if apart else [])}
            dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
            one = [run(p, a, dy) if gradient else p.forward(a) for a in (arrays, poisoned)]
            results.append([np.array(value) for values in one for value in values])
        assert np.isnan(results[0][len(results[0]) // 2]).any() and not np.isnan(results[0][0]).any()
        for got in results[1:]:
            assert all(a.tobytes() == c.tobytes() for a, c in zip(results[0], got, strict=True))


def test_pooling_is_fused_only_where_its_positions_stay_inside(monkeypatch):
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    inputs = [Symbol((2, 16, 8, 8)), Symbol((16, 16, 3, 3))]
    for outputs, change in [(1, {}), (2, {}), (1, {"stride": (1, 1)})]:
        y = add_node(OPS["conv2d"], inputs, pads=(1, 1, 1, 1), **ATTRS)
        pooled = add_node(OPS["max_pool2d"], [y], **{**passes.POOLING_2X2, **change})
        p = Program(inputs, list(pooled[:outputs]))
        assert ("max_pool" in kernels(p)) == (outputs == 2 or bool(change))


@pytest.mark.parametrize(
    "side, r, attrs, size",
    [
        (4, 3, ATTRS, (10, 9)),
        (6, 3, ATTRS, (10, 9)),
        (6, 5, ATTRS, (10, 9)),
        (9, 3, ATTRS, (14, 9)),
        (9, 5, ATTRS, (10, 9)),
        (6, 3, STRIDED, (14, 12)),
        (6, 4, STRIDED, (14, 12)),
    ],
)
@pytest.mark.parametrize("channels", [64, 256, 512])
def test_the_error_stays_within_its_bound_at_many_channels(channels, side, r, attrs, size, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(winograd, "SIDES", dict.fromkeys((2, 3, 5), (side,)))
    check_error([(1, channels, *size), (channels, channels, r, r)], attrs, monkeypatch)


def check_error(shapes, attrs, monkeypatch):
    """The program, whose results have an error within the bounds."""
    rng = np.random.default_rng(1)
    pads = ((shapes[1][2] - 1) // 2,) * 4
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    p = program(shapes, pads, 2, monkeypatch, attrs=attrs)
    dy = rng.standard_normal(p.outputs[0].shape).astype(np.float32)
    got = run(p, arrays, dy)
    x, w = (a.astype(np.float64) for a in arrays)
    assert error(got[0], ref.conv2d(x, w, pads=pads, **attrs)) < FORWARD
    for value, want in zip(got[1:], ref.conv2d_grads(x, w, dy.astype(np.float64), pads=pads, **attrs), strict=True):
        assert error(value, want) < GRADIENT
    return p


@pytest.mark.parametrize("units", [winograd.UNITS, 1])  # 1: no slots, all tiles are summed in one go
@pytest.mark.parametrize(
    "side, r, attrs",
    [(4, 3, ATTRS), (6, 3, ATTRS), (6, 5, ATTRS), (9, 3, ATTRS), (9, 5, ATTRS), (6, 3, STRIDED), (6, 6, STRIDED)],
)
def test_the_error_stays_within_its_bound_at_many_tiles(side, r, attrs, units, isa, monkeypatch):  # noqa: F811
    """A weight gradient that sums over 1024 tiles, some of them cut at the edges."""
    monkeypatch.setattr(winograd, "SIDES", dict.fromkeys((2, 3, 5), (side,)))
    monkeypatch.setattr(winograd, "UNITS", units)
    step = attrs["stride"][0]
    outputs = 16 * (side + 1 - -(-r // step)) - 1
    p = check_error([(4, 8, outputs * step, outputs * step), (9, 8, r, r)], attrs, monkeypatch)
    (gradient,) = [s.fields for s in p.steps if s.kernel == "winograd_wgrad"]
    assert (gradient["oh"], gradient["ow"]) == (outputs, outputs) and (gradient["slots"] == 1) == (units == 1)


@pytest.mark.parametrize(
    "side, r, rows, cols, points",
    [
        (4, 3, 14, 7, 28 * 15),
        (6, 3, 14, 7, 22 * 11),
        (6, 3, 1, 4, 3 * 6),
        (6, 3, 13, 2, 21 * 4),
        (6, 5, 27, 5, 83 * 17),
        (9, 3, 14, 7, 18 * 9),
        (9, 3, 1, 15, 3 * 21),
        (9, 5, 27, 3, 51 * 7),
    ],
)
def test_tiles_at_the_edges_have_fewer_points(side, r, rows, cols, points, monkeypatch):
    monkeypatch.setattr(winograd, "SIDES", {r: (side,)})
    pads = (r // 2,) * 4
    (step,) = [
        s
        for s in program([(2, 8, rows, cols), (8, 8, r, r)], pads, 1, monkeypatch).steps
        if s.kernel == "winograd_wgrad"
    ]
    lanes = -(-8 // _core.isa()["vw"]) * _core.isa()["vw"]
    assert step.work == 2 * points * lanes**2


def test_auto_takes_what_is_less_work_and_direct_never_winograd(monkeypatch):
    large, small = [(2, 64, 28, 28), (64, 64, 3, 3)], [(1, 64, 3, 3), (64, 64, 3, 3)]
    fc.set_conv_algorithm("auto")
    assert kernels(program(large, (1, 1, 1, 1), 1, monkeypatch)) >= KERNELS
    assert not kernels(program(small, (1, 1, 1, 1), 1, monkeypatch)) & KERNELS
    assert not kernels(program([(2, 3, 28, 28), (64, 3, 3, 3)], (1, 1, 1, 1), 1, monkeypatch)) & KERNELS
    assert kernels(program([(2, 64, 27, 27), (192, 64, 5, 5)], (2, 2, 2, 2), 1, monkeypatch)) >= KERNELS
    sides = {  # where tiles of 7x7 outputs fit, where most are cut, where the larger weights are more work, with 5x5
        (8, 3, 64, 28): 9,
        (8, 3, 64, 8): 6,
        (16, 3, 256, 7): 6,
        (8, 5, 64, 27): 9,
    }
    for (images, k, channels, size), side in sides.items():
        p = program([(images, channels, size, size), (channels, channels, k, k)], (k // 2,) * 4, 1, monkeypatch)
        assert {s.fields["side"] for s in p.steps if s.kernel in KERNELS} == {side}
    strided = program([(4, 64, 56, 56), (64, 64, 3, 3)], (1, 1, 1, 1), 1, monkeypatch, attrs=STRIDED)
    assert [step.kernel for step in strided.steps].count("winograd") == 2
    wide = program([(32, 512, 14, 14), (512, 512, 3, 3)], (1, 1, 1, 1), 1, monkeypatch, attrs=STRIDED)  # 150 MB of u
    assert not kernels(wide) & KERNELS
    fc.set_conv_algorithm("direct")
    assert not kernels(program(large, (1, 1, 1, 1), 1, monkeypatch)) & KERNELS


@pytest.mark.parametrize("r", [3, 5])
def test_a_residual_is_added_in_the_store(r, side, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    use_threads(monkeypatch, 2)
    rng = np.random.default_rng(2)
    inputs = [Symbol(s) for s in [(2, 9, 7, 6), (9, 9, r, r)]]
    x = add_node(OPS["map"], inputs[:1], kind="relu", alpha=0.0)
    y = add_node(OPS["conv2d"], [x, inputs[1]], pads=(r // 2,) * 4, **ATTRS)
    p = Program(inputs, [arithmetic("add", y, x)], inputs)
    arrays = [rng.standard_normal(i.shape).astype(np.float32) for i in inputs]
    dy = rng.standard_normal(p.outputs[0].shape).astype(np.float32)
    got = run(p, arrays, dy)
    assert "zip" not in kernels(p)
    x, w = (a.astype(np.float64) for a in arrays)
    positive, pads = np.maximum(x, 0), (r // 2,) * 4
    dx, dw = ref.conv2d_grads(positive, w, dy.astype(np.float64), pads=pads, **ATTRS)
    assert error(got[0], ref.conv2d(positive, w, pads=pads, **ATTRS) + positive) < FORWARD
    for value, want in zip(got[1:], [np.where(x > 0, dx + dy, 0), dw], strict=True):
        assert error(value, want) < GRADIENT


def test_the_choice_reaches_functions_and_models_at_once():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 16, 12, 12)).astype(np.float32)
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    layer = nn.Conv2d(16, 16, 3, padding=1, bias=False).eval()
    layer.weight[...] = w
    by_winograd = [F.conv2d(x, w, padding=1), np.asarray(layer(x))]
    fc.set_conv_algorithm("direct")
    assert fc.get_conv_algorithm() == "direct"
    direct = [F.conv2d(x, w, padding=1), np.asarray(layer(x))]
    want = ref.conv2d(x.astype(float), w.astype(float), pads=(1, 1, 1, 1), **ATTRS)
    for a, b in zip(by_winograd, direct, strict=True):
        assert a.tobytes() != b.tobytes()
        assert error(b, want) < 1e-6 and error(a, want) < FORWARD
    with pytest.raises(ValueError, match="must be one of auto, direct, winograd, got 'fft'"):
        fc.set_conv_algorithm("fft")


def test_transformed_weights_are_kept_in_inference_and_made_anew_when_they_change():
    layer = nn.Conv2d(16, 8, 3, padding=1).eval()
    x = np.random.default_rng(0).standard_normal((1, 16, 9, 9)).astype(np.float32)
    before = np.asarray(layer(x)).copy()
    np.testing.assert_array_equal(layer(x), before)
    layer.weight[...] = 2 * np.asarray(layer.weight)
    layer.bias[...] = 2 * np.asarray(layer.bias)
    np.testing.assert_allclose(layer(x), 2 * before, rtol=1e-6)


@pytest.mark.parametrize("k, padding", [(3, 1), (4, 1), (4, 2), (5, 2), (6, 2)])
def test_transposed_convolutions_of_stride_2(k, padding, isa, monkeypatch):  # noqa: F811
    """As the data gradient, with a bias: values and gradients as of the direct kernels."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    use_threads(monkeypatch, 2)
    rng = np.random.default_rng(k)
    shapes = [(2, 9, 7, 6), (9, 17, k, k), (17,)]
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    results = {}
    for algorithm in ("direct", "winograd"):
        fc.set_conv_algorithm(algorithm)
        inputs = [Symbol(s) for s in shapes]
        y = F.conv_transpose2d(*inputs, stride=2, padding=padding, output_padding=k % 2)
        p = Program(inputs, [y], inputs)
        dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
        results[algorithm] = run(p, arrays, dy)
    assert [step.kernel for step in p.steps].count("winograd") == 2
    for value, want in zip(results["winograd"], results["direct"], strict=True):
        assert error(value, want.astype(np.float64)) < GRADIENT


def test_weights_that_are_kept_make_it_pay_earlier():
    """The Keras example's second layer at batch 1: with its pooling where the weights serve many runs, not where each
    run transforms them."""
    fc.set_conv_algorithm("auto")
    model, x = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)), np.ones((1, 32, 13, 13), np.float32)
    names = {}
    for mode in ("eval", "train"):
        getattr(model, mode)()(x)
        call = model._programs._latest[1]
        names[mode] = {step.kernel for step in call.program.steps}
    assert "winograd" in names["eval"] and not {"max_pool", "conv_lanes_c"} & names["eval"]
    assert "max_pool" in names["train"]
    second_of_lenet = geometry((1, 6, 14, 14), (16, 6, 5, 5), dict(ATTRS, pads=(0, 0, 0, 0)))
    assert winograd.choose(16, second_of_lenet, kept=True) is None  # the direct one leaves out 10 of 16 lanes
    last_of_resnet = geometry((1, 512, 7, 7), (512, 512, 3, 3), dict(ATTRS, pads=(1, 1, 1, 1)))
    assert winograd.choose(16, last_of_resnet, kept=True).side == 4
    before_it = geometry((1, 512, 14, 14), (512, 512, 3, 3), dict(ATTRS, pads=(1, 1, 1, 1)))
    assert winograd.choose(16, before_it, kept=True).side == 6
    pooled = geometry((1, 128, 8, 8), (128, 128, 3, 3), dict(ATTRS, pads=(1, 1, 1, 1)))
    assert [winograd.choose(16, pooled, kept=True, pool=pool).side for pool in (False, True)] == [4, 6]


@pytest.mark.parametrize("images, sides", [(1, (4, 4, 4)), (2, (4, 4, 4)), (6, (4, 4, 4)), (16, (6, 6, 6))])
def test_few_tiles_of_many_weights_are_small_ones(images, sides):
    """Of 512 channels @7: forward, data gradient, weight gradient."""
    fc.set_conv_algorithm("auto")
    g = geometry((images, 512, 7, 7), (512, 512, 3, 3), dict(ATTRS, pads=(1, 1, 1, 1)))
    passes = {}, {"data": True}, {"weight": True}
    assert tuple(winograd.choose(16, g, **one).side for one in passes) == sides


def test_the_frame_of_a_group_of_its_own_is_as_wide_as_its_tiles_reach():
    """Of stride 2 and 3x3 taps, one more below and on the right; together the groups go without Winograd's algorithm."""
    attrs = dict(STRIDED, pads=(1, 1, 1, 1))
    one = add_node(OPS["conv2d"], [Symbol((2, 64, 64, 64)), Symbol((64, 64, 3, 3))], **attrs)
    grouped = add_node(OPS["conv2d"], [Symbol((2, 128, 64, 64)), Symbol((128, 64, 3, 3))], **{**attrs, "groups": 2})
    frames = [OPS["conv2d"].halo(y.node, "lanes_c") for y in (one, grouped)]
    assert frames[0] == frames[1]
    fc.set_conv_algorithm("direct")
    assert OPS["conv2d"].halo(grouped.node, "lanes_c") != frames[1]
