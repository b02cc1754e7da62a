"""Every op x layout x instruction set x threads against the float64 reference, from a poisoned arena."""

import numpy as np
import pytest
import reference as ref

import fastcnn as fc
from fastcnn import _core, config
from fastcnn.graph import lower, passes, plan
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, add_node
from fastcnn.ops import OPS, geometry, linear

EPS = np.finfo(np.float32).eps
ISAS = [name for name, supported in _core.isas() if supported]
# Ops without cases of their own, and the op whose gradient or lowering covers them.
COVERED = {
    "conv2d_data": "conv2d", "conv2d_weight": "conv2d", "channel_sum": "conv2d", "linear_data": "linear",
    "linear_weight": "linear", "max_pool2d_bwd": "max_pool2d", "avg_pool2d_bwd": "avg_pool2d", "map_bwd": "map",
    "softmax_bwd": "softmax", "fill_like": "sum_all", "scale_items": "cross_entropy", "cross_entropy": "test_loss.py",
    "scale_by": "test_loss.py", "dropout": "test_loss.py", "strided_copy": "test_functional.py",
    "gather_max_bwd": "gather_max", "fold_depth": "unfold_depth", "gather": "test_parity_layers.py",
    "scatter": "test_parity_layers.py", "batch_moments": "test_norm.py", "batch_norm": "test_norm.py", "batch_norm_bwd": "test_norm.py",
    "fold_norm": "test_norm.py", "track_moments": "test_norm.py",
}  # fmt: skip


@pytest.fixture(params=ISAS)
def isa(request):
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(ISAS[-1])


def make_inputs(name, shapes, attrs, rng):
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    if name == "map" and attrs["kind"] in ("sigmoid", "tanh", "exp", "elu", "silu", "gelu", "mish", "hardswish"):
        arrays[0] *= 4
    if name == "map" and attrs["kind"] in ("log", "sqrt"):
        arrays[0] = np.abs(arrays[0]) + np.float32(0.1)
    if name == "zip" and attrs["kind"] == "div":
        arrays[1] = np.sign(arrays[1]) * (np.abs(arrays[1]) + 0.5)
    if name in ("max_pool2d", "gather_max"):  # all different: one maximum per window
        arrays[0] = rng.permutation(arrays[0].size).reshape(shapes[0]).astype(np.float32) - arrays[0].size / 2
    return arrays


def expected(name, arrays, attrs, dy):
    """(y, gradients, length of the longest sum) in float64."""
    x, *rest = (a.astype(np.float64) for a in arrays)
    if name == "conv2d":
        y = ref.conv2d(x, *rest, **attrs)
        dx, dw = ref.conv2d_grads(x, rest[0], dy, **attrs)
        grads = [dx, dw] + ([dy.sum((0, 2, 3))] if len(rest) > 1 else [])
        return y, grads, max(rest[0].size, dy.size)
    if name == "linear":
        y = x @ rest[0].T + (rest[1] if len(rest) > 1 else 0)
        return y, [dy @ rest[0], dy.T @ x] + ([dy.sum(0)] if len(rest) > 1 else []), max(x.shape + dy.shape)
    if name == "matmul":
        return x @ rest[0], [dy @ rest[0].T, x.T @ dy], max(x.shape + dy.shape)
    if name == "max_pool2d":
        return ref.max_pool2d(x, **attrs)[0], [ref.max_pool2d_grad(x, dy, **attrs)], 16
    if name == "avg_pool2d":
        return ref.avg_pool2d(x, **attrs), [ref.avg_pool2d_grad(x, dy, **attrs)], 16
    if name == "map":
        return ref.map_(x, **attrs), [ref.map_grad(x, dy, **attrs)], 8
    if name == "zip":
        return ref.zip_(x, *rest, **attrs), list(ref.zip_grads(x, *rest, dy, **attrs)), 4
    if name == "sum_all":
        return attrs["alpha"] * x.sum(), [np.full(x.shape, attrs["alpha"] * dy)], x.size
    if name == "softmax":
        return ref.softmax(x, **attrs), [ref.softmax_grad(x, dy, **attrs)], 4 * x.shape[1]
    if name == "reshape":
        return x.reshape(attrs["shape"]), [dy.reshape(x.shape)], 1
    if name == "expand":
        lead = dy.ndim - x.ndim
        axes = tuple(i for i, d in enumerate(dy.shape) if i < lead or x.shape[i - lead] != d)
        return np.broadcast_to(x, attrs["shape"]), [dy.sum(axes, keepdims=True).reshape(x.shape)], dy.size
    if name == "reduce_sum":
        return attrs["alpha"] * x.sum(1), [attrs["alpha"] * np.broadcast_to(dy[:, None], x.shape)], x.shape[1]
    if name == "cat":
        parts = [x, *rest]
        ends = np.cumsum([p.shape[attrs["dim"]] for p in parts])
        return np.concatenate(parts, attrs["dim"]), np.split(dy, ends[:-1], attrs["dim"]), 1
    if name == "narrow":
        at = (slice(None),) * attrs["dim"] + (slice(attrs["start"], attrs["start"] + attrs["size"]),)
        dx = np.zeros(x.shape)
        dx[at] = dy
        return x[at], [dx], 1
    if name == "gather_sum":
        matrix = attrs["table"].dense()
        flat, dflat = (v.reshape(*v.shape[:2], -1) for v in (x, dy))
        return (flat @ matrix.T).reshape(dy.shape), [(dflat @ matrix).reshape(x.shape)], 8
    if name == "gather_max":
        reads = attrs["table"].dense() != 0
        flat, dflat = (v.reshape(*v.shape[:2], -1) for v in (x, dy))
        windows = np.where(reads, flat[:, :, None, :], -np.inf)
        dx = (np.eye(reads.shape[1])[windows.argmax(-1)] * dflat[..., None]).sum(2)
        return windows.max(-1).reshape(dy.shape), [dx.reshape(x.shape)], 8
    if name == "unfold_depth":
        k, s, d = attrs["kernel"], attrs["stride"], attrs["dilation"]
        (n, c, _, h, w), outs = x.shape, dy.shape[0] // x.shape[0]
        where = np.arange(outs)[:, None] * s + np.arange(k) * d
        dx = np.zeros(x.shape)
        np.add.at(dx, (slice(None), slice(None), where), dy.reshape(n, outs, c, k, h, w).transpose(0, 2, 1, 3, 4, 5))
        return x[:, :, where].transpose(0, 2, 1, 3, 4, 5).reshape(dy.shape), [dx], 8
    raise AssertionError(f"no reference for {name}: write it in reference.py")


def use_threads(monkeypatch, threads):
    """So many threads for every step, however small."""
    monkeypatch.setattr(config, "_threads", threads)
    monkeypatch.setattr(plan, "SERIAL_PROGRAM", 0)
    monkeypatch.setattr(lower, "SERIAL_WORK", 1e-9)


def build(name, shapes, attrs, layout, threads, monkeypatch):
    monkeypatch.setattr(passes, "choose_layout", lambda *_: layout)
    use_threads(monkeypatch, threads)
    inputs = [Symbol(s) for s in shapes]
    out = add_node(OPS[name], inputs, **attrs)
    return Program(inputs, [out[0] if isinstance(out, tuple) else out], inputs)


def run(program, arrays, dy):
    program.arena.poison()
    (y,), token = program.forward_token(arrays)
    return [y, *program.backward(token, 0, arrays, [dy])]


CASES = [pytest.param(name, i, id=f"{name}-{i}") for name, op in OPS.items() for i in range(len(op.cases()))]


@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
@pytest.mark.parametrize("name, index", CASES)
def test_op(name, index, layout, isa, monkeypatch):
    shapes, attrs = OPS[name].cases()[index]
    rng = np.random.default_rng(index)
    arrays = make_inputs(name, shapes, attrs, rng)
    first = build(name, shapes, attrs, layout, 1, monkeypatch)
    dy = rng.standard_normal(first.outputs[0].shape).astype(np.float32)
    got = run(first, arrays, dy)
    y, grads, terms = expected(name, arrays, attrs, dy.astype(np.float64))
    biggest = max(1.0, *(float(np.abs(a).max()) for a in [*arrays, dy]))
    for what, value, want in zip(["y", *(f"gradient {i}" for i in range(9))], got, [y, *grads]):
        bound = EPS * (terms + 8) * biggest * biggest + 4 * EPS * np.abs(want)
        if name == "map" and attrs["kind"] == "exp":
            bound = 8 * EPS * np.abs(want) + 1e-30
        assert value.shape == np.shape(want), what
        worst = np.max(np.abs(value - want) - bound)
        assert worst <= 0, f"{name} {attrs} {shapes} {what}: error {np.abs(value - want).max():.3g}"
    for threads in (2, 3, 7):
        program = build(name, shapes, attrs, layout, threads, monkeypatch)
        assert all(step.threads == threads or not step.work for step in program.steps)
        again = run(program, arrays, dy)
        for a, b in zip(got, again):
            assert a.tobytes() == b.tobytes(), f"{name}: other bits at {threads} threads"


def test_a_weight_gradient_that_is_small_beside_what_it_reads_is_summed_by_images(isa, monkeypatch):
    attrs = dict(stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    program = build("conv2d", [(5, 72, 22, 22), (56, 72, 1, 1)], attrs, "lanes_c", 2, monkeypatch)
    (step,) = [s for s in program.steps if s.kernel == "wgrad_lanes_c"]
    assert step.fields["slots"] in (3, 4)


def test_a_weight_gradient_of_three_columns_of_taps_of_an_image_takes_four_vectors_a_panel(isa, monkeypatch):
    attrs = dict(stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=1)
    program = build("conv2d", [(2, 3, 9, 11), (50, 3, 3, 3)], attrs, "lanes_c", 2, monkeypatch)
    (step,) = [s for s in program.steps if s.kernel == "wgrad_lanes_c"]
    assert step.fields["nv"] == 4


GROUPS = [  # images, channels, rows, columns, outputs, taps a side, what is not usual
    (2, 64, 9, 10, 32, 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    (2, 64, 8, 7, 64, 5, {"groups": 4, "pads": (2, 2, 2, 2)}),
    (3, 32, 7, 9, 64, 1, {"groups": 2}),
    (2, 48, 9, 9, 48, 3, {"groups": 3, "stride": (2, 2), "pads": (1, 1, 1, 1)}),
    (2, 32, 8, 8, 96, 1, {"groups": 2, "stride": (2, 2)}),
    (1, 32, 11, 9, 32, 3, {"groups": 2, "dilation": (2, 2), "pads": (2, 0, 1, 2)}),
    (2, 16, 12, 13, 32, 7, {"groups": 4, "stride": (2, 2), "pads": (3, 3, 3, 3)}),  # 4 channels: not one by one
    (2, 48, 7, 9, 64, 3, {"groups": 2, "pads": (1, 1, 1, 1)}),  # 24: not of AVX-512's blocks
    (2, 64, 7, 9, 40, 3, {"groups": 2, "pads": (1, 1, 1, 1)}),  # 20: of no more than 4's
]


@pytest.mark.parametrize("n, c, h, w, o, k, change", GROUPS)
@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd"])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_that_fill_blocks_are_convolutions_of_their_own(
    n, c, h, w, o, k, change, algorithm, threads, isa, monkeypatch
):
    """Whole numbers: sums over a wrong group would show."""
    monkeypatch.setattr(geometry, "ALONE_WORK", 0)
    config.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(c)
    attrs = dict(stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1) | change
    shapes = [(n, c, h, w), (o, c // attrs["groups"], k, k), (o,)]
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in shapes]
    program = build("conv2d", shapes, attrs, "lanes_c", threads, monkeypatch)
    products = [s for s in program.steps if s.kernel in ("conv_lanes_c", "winograd") and s.phase == "forward"]
    inputs, outputs, vw = c // attrs["groups"], o // attrs["groups"], _core.isa()["vw"]
    apart = inputs > 4 and inputs % vw == outputs % vw == 0
    assert len(products) == (attrs["groups"] if apart else 1)
    dy = rng.integers(-4, 5, program.outputs[0].shape).astype(np.float32)
    y, grads, _ = expected("conv2d", arrays, attrs, dy.astype(np.float64))
    for value, want in zip(run(program, arrays, dy), [y, *grads], strict=True):
        np.testing.assert_allclose(
            value, want, rtol=0, atol=2e-5 * np.linalg.norm(want) if algorithm != "direct" else 0
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_groups_of_their_own_add_and_mask_what_they_do_together(algorithm, threads, isa, monkeypatch):
    """relu(conv(z) + z), z = relu(x): a residual in the pass, and in the data gradient a sum and a mask."""
    use_threads(monkeypatch, threads)
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    config.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((2, 64, 7, 9)).astype(np.float32) for _ in range(2))
    w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((64, 32, 3, 3), (64,)))

    def block(x, w, bias):
        z = fc.functional.relu(x)
        return fc.functional.relu(fc.functional.conv2d(z, w, bias, padding=1, groups=2) + z)

    def transposed(x, w, bias):
        return fc.functional.conv_transpose2d(x, w, bias, padding=1, groups=2)

    for function in (block, transposed):
        results = []
        for work in (0, np.inf):
            monkeypatch.setattr(geometry, "ALONE_WORK", work)
            y, pullback = fc.vjp(lambda *a, function=function: function(*a), x, w, bias)
            results.append([np.array(y), *map(np.array, pullback(dy))])
        for alone, together in zip(*results, strict=True):
            assert np.linalg.norm(alone - together) < 2e-6 * np.linalg.norm(together)


@pytest.mark.parametrize("images, alone", [(1, False), (16, True)])
def test_groups_stay_together_where_one_is_little_work(images, alone, monkeypatch):
    attrs = dict(stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=32)
    program = build("conv2d", [(images, 512, 14, 14), (512, 16, 3, 3)], attrs, "lanes_c", 2, monkeypatch)
    products = [s for s in program.steps if s.kernel in ("conv_lanes_c", "winograd") and s.phase == "forward"]
    assert len(products) == (32 if alone else 1)


@pytest.mark.parametrize(
    "k, stride, dilation, runs",
    [(3, 1, 1, (3, 3)), (5, 2, 1, (5, 5)), (2, 1, 1, (2, 2)), (7, 1, 1, (49, 1)), (3, 3, 1, (9, 1)), (3, 1, 2, (9, 1))],
)
def test_depthwise_takes_taps_side_by_side(k, stride, dilation, runs, isa, monkeypatch):
    """And each of them alone where there is no loop for so many, or such a stride."""
    attrs = dict(stride=(stride,) * 2, pads=(0, 0, 0, 0), dilation=(dilation,) * 2, groups=9)
    program = build("conv2d", [(1, 9, 20, 20), (9, 1, k, k)], attrs, "lanes_c", 1, monkeypatch)
    steps = [s for s in program.steps if s.kernel.startswith("depthwise") and s.phase == "forward"]
    steps += [s for s in program.steps if s.kernel == "depthwise_wgrad"]
    assert [(s.fields["nruns"], s.fields["run_len"]) for s in steps] == [runs] * 2


def test_every_op_is_covered():
    without = {name for name, op in OPS.items() if not op.cases()}
    assert without == set(COVERED)


@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
@pytest.mark.parametrize("channels, outputs", [(c, 34 - c) for c in range(1, 34, 4)])
def test_conv_is_exact_on_integers(channels, outputs, layout, isa, monkeypatch):
    """Small integers leave no rounding: any wrong tap or lane shows, around every vector width."""
    config.set_conv_algorithm("direct")
    rng = np.random.default_rng(channels)
    attrs = dict(stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=1)
    shapes = [(3, channels, 5, 6), (outputs, channels, 3, 3), (outputs,)]
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in shapes]
    program = build("conv2d", shapes, attrs, layout, 2, monkeypatch)
    dy = rng.integers(-4, 5, program.outputs[0].shape).astype(np.float32)
    y, grads, _ = expected("conv2d", arrays, attrs, dy.astype(np.float64))
    for value, want in zip(run(program, arrays, dy), [y, *grads]):
        np.testing.assert_array_equal(value, want)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(2, 2), (5, 9), (8, 13)])
@pytest.mark.parametrize("outputs", [2, 6, 18])
def test_pooling_inside_the_convolution(groups, size, outputs, isa, monkeypatch):
    """conv2d + ReLU + 2x2 max pooling as one kernel: value, positions and gradients, exact on integers, NaN kept."""
    config.set_conv_algorithm("direct")
    rng = np.random.default_rng(outputs)
    conv = dict(stride=(1, 1), pads=(1, 1, 1, 1), dilation=(1, 1), groups=groups)
    pool = passes.POOLING_2X2
    n = 17
    arrays = [
        rng.integers(-4, 5, s).astype(np.float32) for s in [(n, 4, *size), (outputs, 4 // groups, 3, 3), (outputs,)]
    ]

    def program(threads):
        monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")
        use_threads(monkeypatch, threads)
        inputs = [Symbol(a.shape) for a in arrays]
        relu = add_node(OPS["map"], [add_node(OPS["conv2d"], inputs, **conv)], kind="relu", alpha=0.0)
        return Program(inputs, list(add_node(OPS["max_pool2d"], [relu], **pool)), inputs)

    want = np.maximum(ref.conv2d(*(a.astype(np.float64) for a in arrays), **conv), 0)
    y, where = ref.max_pool2d(want, **pool)
    dy = rng.integers(-4, 5, y.shape).astype(np.float32)
    dconv = ref.max_pool2d_grad(want, dy.astype(np.float64), **pool) * (want > 0)
    grads = [*ref.conv2d_grads(arrays[0].astype(np.float64), arrays[1].astype(np.float64), dconv, **conv)]
    for threads in (1, 3):
        p = program(threads)
        assert "max_pool" not in [step.kernel for step in p.steps]
        p.arena.poison()
        (got, positions), token = p.forward_token(arrays)
        np.testing.assert_array_equal(got, y)
        np.testing.assert_array_equal(positions, where)
        for value, expect in zip(p.backward(token, 0, arrays, [dy, None]), [*grads, dconv.sum((0, 2, 3))]):
            np.testing.assert_array_equal(value, expect)
    inputs = [Symbol(a.shape) for a in arrays]
    maxima = add_node(OPS["max_pool2d"], [add_node(OPS["conv2d"], inputs, **conv)], **pool)[0]
    plain = ref.conv2d(*(a.astype(np.float64) for a in arrays), **conv)
    np.testing.assert_array_equal(Program(inputs, [maxima]).forward(arrays)[0], ref.max_pool2d(plain, **pool)[0])
    arrays[0][3, 1, 1, 0] = np.nan
    assert np.isnan(program(2).forward_token(arrays)[0][0][3, :, 0, 0]).any()


@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
@pytest.mark.parametrize("size", [(1, 2), (2, 1), (3, 3), (4, 9), (9, 8), (13, 18)])
@pytest.mark.parametrize("relu", [False, True])
def test_max_pooling_of_ties_nan_and_infinities(relu, size, layout, isa, monkeypatch):
    """Values, and by the gradient of whole numbers every position; with a ReLU before it, folded into the gradient."""
    rng = np.random.default_rng(sum(size))
    x = rng.choice(np.float32([-np.inf, -1, -0.0, 0, 1, 1, 2]), (19, 5, *size))
    x[::3, 1::2] = np.abs(rng.choice(np.float32([0, 1, np.inf, np.nan]), x[::3, 1::2].shape, p=[0.5, 0.4, 0.05, 0.05]))
    x[1] = -np.inf
    for (k, stride, pad, ceil) in [
        (2, 2, 0, 0), (2, 2, 1, 0), (2, 2, 0, 1), (3, 1, 1, 0), (3, 1, 0, 0), (3, 2, 1, 0), (3, 2, 0, 0), (3, 2, 0, 1),
        (3, 2, 1, 1), (2, 1, 0, 0), (3, 3, 1, 0), (5, 1, 2, 0),
    ]:  # fmt: skip
        if min(size) + 2 * pad < k:
            continue
        attrs = dict(kernel=(k, k), stride=(stride,) * 2, padding=(pad,) * 2, dilation=(1, 1), ceil_mode=bool(ceil))
        inside = np.where(x <= 0, 0.0, x.astype(np.float64)) if relu else x.astype(np.float64)
        want = ref.max_pool2d(inside, **attrs)[0]
        dy = rng.integers(-9, 10, want.shape).astype(np.float32)
        dx = ref.max_pool2d_grad(inside, dy.astype(np.float64), **attrs)
        for threads in (1, 3):
            monkeypatch.setattr(passes, "choose_layout", lambda *_: layout)
            use_threads(monkeypatch, threads)
            source = Symbol(x.shape)
            pooled = add_node(OPS["map"], [source], kind="relu", alpha=0.0) if relu else source
            program = Program([source], [add_node(OPS["max_pool2d"], [pooled], **attrs)[0]], [source])
            y, got = run(program, [x], dy)
            np.testing.assert_array_equal(y, want)
            at = np.s_[:] if not relu else ~np.isnan(x) & (x > 0)  # what passes at a NaN is another question
            np.testing.assert_array_equal(got[at], dx[at])


@pytest.mark.parametrize("rows, k, n", [(1, 1025, 1003), (2, 513, 2049), (4, 130, 77), (7, 1025, 333)])
def test_products_have_the_same_bits_at_any_thread_count(rows, k, n, isa, monkeypatch):
    rng = np.random.default_rng(rows)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in [(rows, k), (n, k), (n,)]]
    dy = rng.standard_normal((rows, n)).astype(np.float32)
    shapes = [a.shape for a in arrays]
    first = run(build("linear", shapes, {}, "lanes_c", 1, monkeypatch), arrays, dy)
    for threads in (2, 3, 5, 7):
        for a, b in zip(first, run(build("linear", shapes, {}, "lanes_c", threads, monkeypatch), arrays, dy)):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("rows", [5, 8, 15, 16, 17, 31, 32, 64])
@pytest.mark.parametrize("k, hidden, outs", [(65, 66, 67), (300, 257, 13), (257, 271, 4), (600, 259, 256)])
def test_few_rows_of_far_weights(rows, k, hidden, outs, isa, monkeypatch):
    """The transposed products, with bias and activation forward and the mask backward, exact on integers; with few outputs
    the second layer's weight gradient too."""
    monkeypatch.setattr(linear, "FAR_FLOATS", 0)
    rng = np.random.default_rng(rows + k)
    arrays = [
        rng.integers(-2, 3, s).astype(np.float32)
        for s in [(rows, k), (hidden, k), (hidden,), (outs, hidden), (outs,), (rows, outs)]
    ]
    *arrays, dy = arrays
    x, w1, b1, w2, b2 = (a.astype(np.float64) for a in arrays)
    middle = np.maximum(x @ w1.T + b1, 0)
    d_middle = np.where(middle > 0, dy.astype(np.float64) @ w2, 0)
    want = [
        middle @ w2.T + b2,
        d_middle @ w1,
        d_middle.T @ x,
        d_middle.sum(0),
        dy.astype(np.float64).T @ middle,
        dy.sum(0),
    ]
    for threads in (1, 2, 3):
        use_threads(monkeypatch, threads)
        monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
        inputs = [Symbol(a.shape) for a in arrays]
        first = add_node(OPS["linear"], inputs[:3])
        second = add_node(OPS["linear"], [add_node(OPS["map"], [first], kind="relu", alpha=0.0), *inputs[3:]])
        program = Program(inputs, [second], inputs)
        few = 4 * rows <= min(k, hidden) and rows <= 2 * _core.isa()["gemm_n"]
        assert few == ("transpose" in [s.kernel for s in program.steps if s.node and s.node.op.name == "linear"][:4])
        for value, exact in zip(run(program, arrays, dy), want):
            np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize(
    "m, k, n", [(1, 64, 257), (3, 530, 12), (16, 65, 64), (17, 257, 70), (32, 128, 131), (64, 513, 256)]
)
def test_few_rows_of_a_far_matrix(m, k, n, isa, monkeypatch):
    monkeypatch.setattr(linear, "FAR_FLOATS", 0)
    rng = np.random.default_rng(m)
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in [(m, k), (k, n)]]
    for threads in (1, 2, 3):
        use_threads(monkeypatch, threads)
        inputs = [Symbol(a.shape) for a in arrays]
        program = Program(inputs, [add_node(OPS["matmul"], inputs)])
        assert ("transpose" in [step.kernel for step in program.steps]) == (m <= 2 * _core.isa()["gemm_n"])
        np.testing.assert_array_equal(program.forward(arrays)[0], arrays[0].astype(np.float64) @ arrays[1])


@pytest.mark.parametrize(
    "m, k, n", [(193, 255, 33), (192, 257, 96), (47, 511, 65), (25, 512, 130), (13, 513, 31), (205, 1025, 40)]
)
def test_products_around_the_blocks(m, k, n, isa, monkeypatch):
    """A's rows along memory and A's columns (of a weight gradient), exact on integers: sums of 256 or 512 terms are added up."""
    monkeypatch.setattr(linear, "FAR_FLOATS", 1 << 40)
    rng = np.random.default_rng(k)
    a, w = (rng.integers(-4, 5, s).astype(np.float32) for s in [(m, k), (k, n)])
    want = a.astype(np.float64) @ w
    columns = np.ascontiguousarray(a.T)
    for threads in (1, 2, 3):
        use_threads(monkeypatch, threads)
        inputs = [Symbol(a.shape), Symbol(w.shape)]
        program = Program(inputs, [add_node(OPS["matmul"], inputs)])
        np.testing.assert_array_equal(program.forward([a, w])[0], want)
        inputs = [Symbol(w.shape), Symbol(columns.shape)]
        program = Program(inputs, [add_node(OPS["linear_weight"], inputs, shape=(m, n))])
        assert "gemm" in [step.kernel for step in program.steps]
        np.testing.assert_array_equal(program.forward([w, columns])[0], want)


@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
@pytest.mark.parametrize("k, far", [(1024, True), (1020, False)])
def test_which_weights_are_far(k, far, layout, monkeypatch):
    """From 1 MB on they are read once, along their rows."""
    program = build("linear", [(16, k), (256, k), (256,)], {}, layout, 2, monkeypatch)
    of = lambda op: {s.kernel for s in program.steps if s.node and s.node.op.name == op}
    if layout == "lanes_n":
        assert ("gemm" in of("linear_data")) == far
    else:
        assert ("transpose" in of("linear")) == ("transpose" in of("linear_data")) == far


@pytest.mark.parametrize("shape", [(16, 13, 9), (32, 5, 70), (48, 300, 33)])
def test_linear_data_of_far_weights(shape, isa, monkeypatch):
    """What lanes_n takes for weights beyond the cache: the transposed gradient, exact on integers."""
    n, k, outs = shape
    monkeypatch.setattr(linear, "FAR_FLOATS", 0)
    rng = np.random.default_rng(n)
    shapes = [(n, k), (outs, k), (outs,)]
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in shapes]
    dy = rng.integers(-4, 5, (n, outs)).astype(np.float32)
    for threads in (1, 3):
        program = build("linear", shapes, {}, "lanes_n", threads, monkeypatch)
        assert [s.kernel for s in program.steps if s.node and s.node.op.name == "linear_data"].count("gemm") == 1
        np.testing.assert_array_equal(run(program, arrays, dy)[1], dy.astype(np.float64) @ arrays[1])
