"""Winograd's algorithm with images in the lanes, against float64, at sizes around its tiles and the vector, on every
instruction set."""

import numpy as np
import pytest
import reference as ref
from test_ops import isa, run, use_threads  # noqa: F401 - isa is a fixture

import fastcnn as fc
from fastcnn.graph import passes
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, add_node
from fastcnn.ops import OPS, winograd_n

FORWARD, GRADIENT = 2e-5, 5e-5  # normwise errors that are allowed
ATTRS = dict(stride=(1, 1), dilation=(1, 1), groups=1)
KERNELS = {"winograd_n", "winograd_n_data", "winograd_n_wgrad", "winograd_n_weights", "winograd_n_unpack"}
KINDS = [(3, 6), (3, 7), (3, 8), (5, 8), (5, 9)]  # kernel, side


@pytest.fixture(autouse=True)
def algorithm(monkeypatch):
    fc.set_conv_algorithm("winograd")
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")


def error(value, want):
    return np.linalg.norm(value - want) / max(np.linalg.norm(want), 1e-30)


def program(kind, shapes, pads, threads, monkeypatch, relu=False, pool=False):
    monkeypatch.setattr(winograd_n, "SIDES", {(kind[0],) * 2: (kind[1],)})
    use_threads(monkeypatch, threads)
    inputs = [Symbol(s) for s in shapes]
    x = add_node(OPS["map"], inputs[:1], kind="relu", alpha=0.0) if relu else inputs[0]
    y = add_node(OPS["conv2d"], [x, *inputs[1:]], pads=pads, **ATTRS)
    y = add_node(OPS["map"], [y], kind="relu", alpha=0.0) if relu else y
    y = add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0] if pool else y
    return Program(inputs, [y], inputs)


def kernels(p):
    return {step.kernel for step in p.steps}


SIZES = [(1, 1), (2, 3), (3, 4), (4, 4), (5, 6), (6, 7), (7, 9), (8, 6), (10, 11), (13, 12)]
CHANNELS = [(5, 1), (7, 9), (1, 8), (9, 17), (6, 16), (17, 13), (3, 4), (33, 24)]
IMAGES = [1, 4, 5, 9, 16, 17]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", range(10))
def test_against_float64(case, kind, isa, monkeypatch):  # noqa: F811
    size, (channels, outputs), k = SIZES[case], CHANNELS[case % len(CHANNELS)], kind[0]
    pads = ((k // 2,) * 4, (0, k - 1, k - 1, 1), (0, 0, 0, 0))[case % 3]
    rng = np.random.default_rng(case)
    shapes = [(IMAGES[case % len(IMAGES)], channels, *size), (outputs, channels, k, k), (outputs,)]
    if size[0] + pads[0] + pads[1] < k or size[1] + pads[2] + pads[3] < k:
        shapes[0] = (*shapes[0][:2], size[0] + k, size[1] + k)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    first = program(kind, shapes, pads, 1, monkeypatch)
    assert kernels(first) >= KERNELS
    dy = rng.standard_normal(first.outputs[0].shape).astype(np.float32)
    got = run(first, arrays, dy)
    x, w, b = (a.astype(np.float64) for a in arrays)
    want = ref.conv2d(x, w, b, pads=pads, **ATTRS)
    grads = [*ref.conv2d_grads(x, w, dy.astype(np.float64), pads=pads, **ATTRS), dy.sum((0, 2, 3), dtype=np.float64)]
    assert error(got[0], want) < FORWARD
    for value, expected in zip(got[1:], grads, strict=True):
        assert error(value, expected) < GRADIENT
    for threads in (2, 3, 7):
        for a, c in zip(got, run(program(kind, shapes, pads, threads, monkeypatch), arrays, dy), strict=True):
            assert a.tobytes() == c.tobytes(), f"other bits at {threads} threads"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(9, 8), (13, 14)])
def test_activation_pooling_and_mask_are_fused(size, kind, isa, monkeypatch):  # noqa: F811
    """With gradients the pooling gives positions; without, only maxima."""
    rng = np.random.default_rng(0)
    k = kind[0]
    shapes, pads = [(9, 7, *size), (10, 7, k, k), (10,)], (1, 1, 1, 1)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    fused = program(kind, shapes, pads, 2, monkeypatch, relu=True, pool=True)
    in_two_tiles = kind in ((3, 7), (5, 9))  # a window
    assert ("max_pool" in kernels(fused)) == in_two_tiles and kernels(fused) >= KERNELS
    x, w, b = (a.astype(np.float64) for a in arrays)
    y = ref.conv2d(np.maximum(x, 0), w, b, pads=pads, **ATTRS)
    n, c, h, wide = y.shape
    windows = y[:, :, : h // 2 * 2, : wide // 2 * 2].reshape(n, c, h // 2, 2, wide // 2, 2)
    pooled = np.maximum(windows.max((3, 5)), 0)
    dy = rng.standard_normal(pooled.shape).astype(np.float32)
    got = run(fused, arrays, dy)
    d = np.zeros_like(y)
    largest = (windows == windows.max((3, 5), keepdims=True)) & (windows > 0)
    d[:, :, : h // 2 * 2, : wide // 2 * 2] = (largest * dy[:, :, :, None, :, None]).reshape(n, c, h // 2 * 2, -1)
    dx, dw = ref.conv2d_grads(np.maximum(x, 0), w, d, pads=pads, **ATTRS)
    assert error(got[0], pooled) < FORWARD
    for value, want in zip(got[1:], [np.where(x > 0, dx, 0), dw, d.sum((0, 2, 3))], strict=True):
        assert error(value, want) < GRADIENT
    inputs = [Symbol(s) for s in shapes]
    y = add_node(OPS["conv2d"], inputs, pads=pads, **ATTRS)
    only = Program(inputs, [add_node(OPS["max_pool2d"], [y], **passes.POOLING_2X2)[0]])
    full = ref.conv2d(x, w, b, pads=pads, **ATTRS)[:, :, : h // 2 * 2, : wide // 2 * 2]
    want = full.reshape(n, c, h // 2, 2, wide // 2, 2).max((3, 5))
    assert error(only.forward(arrays)[0], want) < FORWARD


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [64, 256])
def test_the_error_stays_within_its_bound_at_many_channels(channels, kind, isa, monkeypatch):  # noqa: F811
    check_error(kind, [(2, channels, 10, 9), (channels, channels, kind[0], kind[0])], monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_stays_within_its_bound_at_many_tiles(kind, isa, monkeypatch):  # noqa: F811
    """A weight gradient that sums over 1024 tiles of each image, some of them cut at the edges."""
    k, side = kind
    size = 32 * (side + 1 - k) - 1
    check_error(kind, [(3, 5, size, size), (6, 5, k, k)], monkeypatch)


def check_error(kind, shapes, monkeypatch):
    rng = np.random.default_rng(1)
    pads = (kind[0] // 2,) * 4
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    p = program(kind, shapes, pads, 2, monkeypatch)
    assert kernels(p) >= KERNELS
    dy = rng.standard_normal(p.outputs[0].shape).astype(np.float32)
    got = run(p, arrays, dy)
    x, w = (a.astype(np.float64) for a in arrays)
    assert error(got[0], ref.conv2d(x, w, pads=pads, **ATTRS)) < FORWARD
    for value, want in zip(got[1:], ref.conv2d_grads(x, w, dy.astype(np.float64), pads=pads, **ATTRS), strict=True):
        assert error(value, want) < GRADIENT


def test_groups_of_rows_of_tiles_give_the_same_as_all_at_once(isa, monkeypatch):  # noqa: F811
    rng = np.random.default_rng(2)
    for kind in KINDS:
        k = kind[0]
        shapes, pads = [(9, 6, 25, 17), (7, 6, k, k)], (k // 2,) * 4
        arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
        dy = rng.standard_normal((9, 7, 25, 17)).astype(np.float32)
        whole = run(program(kind, shapes, pads, 2, monkeypatch), arrays, dy)
        monkeypatch.setattr(winograd_n, "POINT_BYTES", 1)
        monkeypatch.setattr(winograd_n, "GRADIENT_BYTES", 1)
        parts = run(program(kind, shapes, pads, 2, monkeypatch), arrays, dy)
        monkeypatch.undo()
        monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")
        for a, b in zip(whole, parts, strict=True):
            assert error(a, b) < 1e-5


def test_auto_takes_what_is_less_work_and_direct_never_winograd(monkeypatch):
    kind, pads = (3, 8), (1, 1, 1, 1)
    large, small = [(16, 32, 12, 12), (64, 32, 3, 3)], [(16, 1, 12, 12), (8, 1, 3, 3)]
    fc.set_conv_algorithm("auto")
    assert kernels(program(kind, large, pads, 1, monkeypatch)) >= KERNELS
    assert not kernels(program(kind, small, pads, 1, monkeypatch)) & KERNELS
    fc.set_conv_algorithm("direct")
    assert not kernels(program(kind, large, pads, 1, monkeypatch)) & KERNELS
