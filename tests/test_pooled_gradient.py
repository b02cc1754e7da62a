"""Gradients of a convolution with 2x2 pooling, from the gradient of the maxima and their places, on every instruction set."""

import numpy as np
import pytest
from test_ops import isa, run, use_threads  # noqa: F401 - isa is a fixture

import fastcnn as fc
from fastcnn.graph import passes
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, add_node
from fastcnn.ops import OPS


@pytest.mark.parametrize("k", [1, 3, 5, 6, 7])
@pytest.mark.parametrize("size", [(8, 8), (9, 11), (12, 13)])
def test_weight_gradient_from_pooled_gradients(size, k, isa, monkeypatch):  # noqa: F811
    """The weights' and the bias' gradient do without that of the whole plane, with the same bits on any number of threads."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")
    rng = np.random.default_rng(k)
    fc.set_conv_algorithm("direct")
    for images, groups, outs in [(5, 1, 1), (9, 2, 14), (17, 1, 11)]:
        attrs = dict(stride=(1, 1), dilation=(1, 1), groups=groups, pads=(k // 2, k // 2, 1, 0))
        shapes = [(images, 2 * groups, *size), (outs, 2, k, k), (outs,), (3, outs, 1, 1)]
        arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        results = []
        for threads, eager in [(1, "0"), (2, "0"), (5, "0"), (1, "1")]:
            monkeypatch.setenv("FASTCNN_EAGER", eager)
            use_threads(monkeypatch, threads)
            x, *params = (Symbol(s) for s in shapes)
            y = add_node(OPS["map"], [add_node(OPS["conv2d"], [x, *params[:2]], **attrs)], kind="relu", alpha=0.0)
            y = add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0]
            y = add_node(OPS["conv2d"], [y, params[2]], stride=(1, 1), dilation=(1, 1), groups=1, pads=(0, 0, 0, 0))
            p = Program([x, *params], [y], params)
            assert any(s.kernel == "max_pool_bwd" for s in p.steps) == (eager == "1" or k in (1, 7))
            dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
            results.append(run(p, arrays, dy))
        for got in results[1:3]:
            assert all(a.tobytes() == c.tobytes() for a, c in zip(results[0], got, strict=True))
        for a, c in zip(results[0], results[3], strict=True):
            assert np.linalg.norm(a - c) <= 2e-6 * np.linalg.norm(c)


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
@pytest.mark.parametrize(
    "stride, size, computed", [(1, (13, 12), (10, 10)), (1, (12, 13), (10, 10)), (2, (15, 11), (6, 4))]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_no_window_meets_is_not_computed(elsewhere, stride, size, computed, algorithm, isa, monkeypatch):  # noqa: F811
    """Unless the convolution's result is read elsewhere too."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")
    fc.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(0)
    shapes, results = [(9, 6, *size), (7, 6, 3, 3), (7,)], []
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for eager in "01":
        monkeypatch.setenv("FASTCNN_EAGER", eager)
        inputs = [Symbol(s) for s in shapes]
        y = add_node(OPS["conv2d"], inputs, stride=(stride,) * 2, dilation=(1, 1), groups=1, pads=(0, 0, 0, 0))
        pooled = add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0]
        if elsewhere:
            window = dict(kernel=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=False)
            mean = add_node(OPS["avg_pool2d"], [y], **window, count_include_pad=True, divisor=None)
            pooled = add_node(OPS["zip"], [mean, pooled], kind="add")
        p = Program(inputs, [pooled], inputs)
        forward = [s.fields for s in p.steps if s.kernel in ("conv_lanes_n", "winograd_n") and s.phase == "forward"]
        assert ((forward[0]["oh"], forward[0]["ow"]) == computed) == (eager == "0" and not elsewhere)
        dy = np.random.default_rng(1).standard_normal(p.outputs[0].shape).astype(np.float32)
        results.append(run(p, arrays, dy))
    for a, b in zip(*results, strict=True):
        assert np.linalg.norm(a - b) <= 2e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
def test_pooling_after_pooling_is_not_taken_into_the_convolution(layout, algorithm, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(passes, "choose_layout", lambda *_: layout)
    fc.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(0)
    shapes, results = [(9, 4, 8, 8), (17, 4, 3, 3), (17,)], []
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for eager in "01":
        monkeypatch.setenv("FASTCNN_EAGER", eager)
        for trained in (True, False):
            inputs = [Symbol(s) for s in shapes]
            y = add_node(OPS["conv2d"], inputs, stride=(1, 1), dilation=(1, 1), groups=1, pads=(1, 1, 1, 1))
            for _ in range(2):
                y = add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0]
            if trained:
                dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
                results.append(run(Program(inputs, [y], inputs), arrays, dy))
            else:
                results.append(Program(inputs, [y]).forward(arrays))
    for fused, plain in zip(results[:2], results[2:], strict=True):
        for a, c in zip(fused, plain, strict=True):
            assert np.linalg.norm(a - c) <= 2e-5 * np.linalg.norm(c)
