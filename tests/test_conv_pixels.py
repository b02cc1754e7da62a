"""First layers with few outputs, pixels in the lanes, against float64 on every instruction set."""

import numpy as np
import pytest
import reference as ref
from test_ops import isa, use_threads  # noqa: F401 - isa is a fixture

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, nn
from fastcnn.graph import passes
from fastcnn.graph.describe import algorithm
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol
from fastcnn.ops import conv_pixels

LAYERS = [  # channels, outputs, kernel, padding (top, bottom, left, right), dilation
    (1, 1, (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 6, (5, 5), (2, 2, 2, 2), (1, 1)),
    (3, 2, (3, 3), (1, 1, 1, 1), (1, 1)),
    (2, 5, (2, 4), (0, 1, 3, 0), (2, 1)),
    (4, 3, (3, 2), (2, 0, 0, 2), (1, 2)),
]
HEIGHTS = (5, 2, 1, 7, 4)


def program(layer, n, oh, ow, act, pool, bias=True):
    """relu of a convolution with oh x ow outputs, its 2x2 maxima."""
    c, o, kernel, pads, dilation = layer
    reach = [d * (k - 1) - before - after for d, k, before, after in zip(dilation, kernel, pads[::2], pads[1::2])]
    inputs = [Symbol(s) for s in [(n, c, oh + reach[0], ow + reach[1]), (o, c, *kernel), *[(o,)] * bias]]
    y = F.conv2d(*inputs, padding=pads, dilation=dilation)
    y = F.relu(y) if act else y
    return Program(inputs, [F.max_pool2d(y, 2) if pool else y])


def expected(p, arrays, layer, act, pool):
    x, w, *bias = (a.astype(np.float64) for a in arrays)
    attrs = dict(stride=(1, 1), pads=layer[3], dilation=layer[4], groups=1)
    y = ref.conv2d(x, w, bias[0] if bias else None, **attrs)
    y = np.maximum(y, 0) if act else y
    n, o, oh, ow = y.shape
    return y[:, :, : oh // 2 * 2, : ow // 2 * 2].reshape(n, o, oh // 2, 2, ow // 2, 2).max((3, 5)) if pool else y


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("case", range(len(LAYERS)))
def test_against_float64(case, pool, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    monkeypatch.setattr(conv_pixels, "MOST", 1e9)
    layer, vw = LAYERS[case], _core.isa()["vw"]
    for i, ow in enumerate([vw, vw + 1, 2 * vw - 1, 3 * vw, 63, 64, 65, 127, 128, 131, 191, 319]):
        oh, n, act, bias = max(HEIGHTS[(i + case) % 5], 1 + pool), 1 + i % 3, i % 2, i % 4 < 3
        rng, results = np.random.default_rng(ow), []
        for threads in (1, 2, 5):
            use_threads(monkeypatch, threads)
            p = program(layer, n, oh, ow, act, pool, bias)
            fits = ow // 2 * 2 >= vw or not pool
            assert [s.kernel for s in p.steps].count("conv_pixels") == fits
            assert not fits or not {"max_pool", "conv_lanes_c"} & {s.kernel for s in p.steps}
            if not results:
                arrays = [rng.standard_normal(s.shape).astype(np.float32) for s in p.inputs]
            p.arena.poison()
            results.append(p.forward(arrays)[0])
        want = expected(p, arrays, layer, act, pool)
        terms = layer[0] * layer[2][0] * layer[2][1]
        assert np.abs(results[0] - want).max() <= 2.0**-24 * (terms + 2) * 16 * terms, (ow, oh)
        assert all(r.tobytes() == results[0].tobytes() for r in results[1:])


@pytest.mark.parametrize("outputs", [7, 12, 13, 17, 20, 33])
def test_outputs_around_tiles_and_vectors(outputs, isa, monkeypatch):  # noqa: F811
    """Lanes past the last channel are 0: what reads whole vectors, a second convolution, adds nothing."""
    monkeypatch.setattr(conv_pixels, "MOST", 1e9)
    fc.manual_seed(outputs)
    model = nn.Sequential(nn.Conv2d(2, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(outputs, 3, 3))
    x = np.random.default_rng(0).standard_normal((2, 2, 10, 38)).astype(np.float32)
    model.eval()
    got = model(x)
    monkeypatch.setattr(conv_pixels, "MOST", 0)
    again = nn.Sequential(nn.Conv2d(2, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(outputs, 3, 3))
    again.load_state_dict(model.state_dict())
    want = again.eval()(x)
    assert got.shape == want.shape and np.abs(got - want).max() <= 1e-5


def test_a_nan_is_pooled_and_stays_where_it_is(isa):  # noqa: F811
    vw = _core.isa()["vw"]
    x = np.ones((1, 1, 4, 2 * vw), np.float32)
    x[0, 0, 1, 3] = np.nan
    y = np.empty((1, 2, vw, vw), np.float32)
    fields = dict(terms=np.zeros(1, np.int64), n=1, oh=4, ow=2 * vw, nterms=1, outs=1, x_n=x.size, x_h=2 * vw)
    fields |= dict(y_n=y.size, y_c=y.size, y_h=vw * vw, act=1, pool=1)
    _core.run_kernel("conv_pixels", x=x, w=np.full(1, 2, np.float32), y=y, **fields)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, 0]]
    assert np.nansum(y) == 2 * (2 * vw - 1)


@pytest.mark.parametrize("outputs", [6, 16])
def test_who_takes_it(outputs, isa):  # noqa: F811
    """LeNet-5's first layer, not one whose channels fill vectors; with gradients, its pooling stays apart."""
    taken = outputs == 6
    for wanted in (0, 1):
        x, w = Symbol((1, 1, 28, 28)), Symbol((outputs, 1, 5, 5))
        y = F.max_pool2d(F.relu(F.conv2d(x, w, padding=2)), 2)
        algorithms = {step.kernel: algorithm(step) for step in Program([x, w], [y], [w][:wanted]).steps}
        assert algorithms.get("conv_pixels") == ("direct" if taken else None)
        assert ("max_pool" in algorithms) == (wanted or not taken)


@pytest.mark.parametrize("outputs", [3, 16])
def test_weights_that_are_a_padded_input_too(outputs, isa):  # noqa: F811
    """They are read from a copy without the frame of zeros, forward and backward."""
    rng = np.random.default_rng(outputs)
    shapes = [(2, 2, 12, 20), (outputs, 2, 3, 3), (2, 2, 3, 3)]
    x, w, v = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    want, plain = fc.vjp(lambda x, w: F.conv2d(x, w), x, w)
    dy = np.ones_like(want)
    for order in (slice(None), slice(None, None, -1)):
        values, pullback = fc.vjp(lambda x, w, v: (F.conv2d(x, w), F.conv2d(w, v, padding=1))[order], x, w, v)
        y, other = values[order]
        assert np.abs(y - want).max() < 1e-4
        assert np.abs(pullback([dy, np.zeros_like(other)][order])[0] - plain(dy)[0]).max() < 1e-4
