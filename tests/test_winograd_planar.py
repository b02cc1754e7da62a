"""First layers of stride 2 and more by Winograd's algorithm, against float64, on every instruction set."""

import numpy as np
import pytest
from test_ops import isa  # noqa: F401 - a fixture
from test_winograd import FORWARD, check_against_float64, check_between_relus, error, kernels, program

import fastcnn as fc
from fastcnn import nn
from fastcnn.ops import winograd_planar


@pytest.fixture(autouse=True)
def algorithm():
    fc.set_conv_algorithm("winograd")


# kernel, stride, padding: 3, 4 and 5 taps a phase; frames that are wider than a phase, unlike, or none
LAYERS = [
    (7, 2, (3, 3, 3, 3)),
    (7, 2, (2, 4, 1, 0)),
    (5, 2, (2, 2, 2, 2)),
    (8, 2, (0, 0, 0, 0)),
    (10, 2, (5, 4, 4, 6)),
    (9, 3, (4, 4, 4, 4)),
    (11, 4, (2, 2, 2, 2)),
    (13, 4, (12, 0, 0, 12)),
]
SIZES = [(1, 2), (7, 9), (12, 11), (16, 23), (26, 13), (31, 32), (45, 29)]
CHANNELS = [(3, 17), (1, 8), (4, 5), (2, 33)]


CASES = [
    (size, case, *layer)
    for layer in LAYERS
    for case, size in enumerate(SIZES)
    if CHANNELS[case % 4][0] * layer[0] ** 2 <= winograd_planar.MOST_WEIGHTS
    and min(size[0] + sum(layer[2][:2]), size[1] + sum(layer[2][2:])) >= layer[0]
]


@pytest.mark.parametrize("most", [None, 5])
@pytest.mark.parametrize("size, case, k, step, pads", CASES)
def test_against_float64(size, case, k, step, pads, most, isa, monkeypatch):  # noqa: F811
    (h, w), (channels, outputs) = size, CHANNELS[case % len(CHANNELS)]
    shapes = [(1 + case % 3, channels, h, w), (outputs, channels, k, k), (outputs,)]
    attrs = dict(stride=(step, step), dilation=(1, 1), groups=1)
    p = check_against_float64(shapes, pads, attrs, most, monkeypatch)
    names = [step.kernel for step in p.steps]
    assert names.count("pack_phases") == 2 and {"winograd", "winograd_wgrad"} <= set(names)


@pytest.mark.parametrize(
    "shape, k, attrs",
    [
        ((2, 3, 20, 20), 7, dict(stride=(2, 1))),
        ((2, 3, 20, 20), 4, dict(stride=(2, 2))),  # 2 taps
        ((2, 3, 20, 20), 12, dict(stride=(2, 2))),  # 6
        ((2, 3, 40, 40), 12, dict(stride=(4, 4))),  # 432 weights
        ((2, 3, 40, 40), 5, dict(stride=(2, 2), dilation=(2, 2))),
        ((2, 5, 40, 40), 7, dict(stride=(2, 2))),
    ],
)
def test_others_are_left_to_other_kernels(shape, k, attrs, monkeypatch):
    attrs = {**dict(stride=(1, 1), dilation=(1, 1), groups=1), **attrs}
    assert "pack_phases" not in kernels(
        program([shape, (8, shape[1], k, k)], (0, 0, 0, 0), 1, monkeypatch, attrs=attrs)
    )


def test_auto_takes_what_is_less_work(monkeypatch):
    fc.set_conv_algorithm("auto")
    attrs = dict(stride=(2, 2), dilation=(1, 1), groups=1)
    for size, shape, packs in [(64, (64, 3, 7, 7), 2), (8, (64, 3, 7, 7), 0)]:
        p = program([(1, 3, size, size), shape], (3, 3, 3, 3), 1, monkeypatch, attrs=attrs)
        assert [step.kernel for step in p.steps].count("pack_phases") == packs
    fc.set_conv_algorithm("direct")
    p = program([(1, 3, 64, 64), (64, 3, 7, 7)], (3, 3, 3, 3), 1, monkeypatch, attrs=attrs)
    assert "pack_phases" not in kernels(p)


@pytest.mark.parametrize("taken", [False, True])
def test_one_of_the_two_passes_may_be_direct(taken, monkeypatch):
    """And then reads a frame, which the other does not need."""
    choose = winograd_planar.choose

    def choose_one(vw, g, weight=False):
        return choose(vw, g, weight) if weight == taken else None

    monkeypatch.setattr(winograd_planar, "choose", choose_one)
    attrs = dict(stride=(2, 2), dilation=(1, 1), groups=1)
    p = check_against_float64([(2, 3, 21, 18), (17, 3, 7, 7), (17,)], (3, 3, 3, 3), attrs, None, monkeypatch)
    assert [step.kernel for step in p.steps].count("pack_phases") == 1
    assert ("wgrad_lanes_c" in kernels(p)) != taken


def test_activation_is_fused_and_a_relu_before_is_not_lost(isa, monkeypatch):  # noqa: F811
    attrs = dict(stride=(2, 2), dilation=(1, 1), groups=1)
    check_between_relus([(2, 3, 21, 18), (17, 3, 7, 7), (17,)], (3, 3, 3, 3), attrs, monkeypatch)


def test_a_layer_gives_the_same_by_both_algorithms_and_keeps_up_with_its_weights():
    rng = np.random.default_rng(1)
    layer = nn.Conv2d(3, 16, 7, stride=2, padding=3).eval()
    x = rng.standard_normal((2, 3, 33, 40)).astype(np.float32)
    by_winograd = np.asarray(layer(x)).copy()
    layer.weight[...] = 2 * np.asarray(layer.weight)
    layer.bias[...] = 2 * np.asarray(layer.bias)
    np.testing.assert_allclose(layer(x), 2 * by_winograd, rtol=1e-6)
    fc.set_conv_algorithm("direct")
    direct = np.asarray(layer(x))
    assert error(2 * by_winograd, direct.astype(np.float64)) < FORWARD
    assert direct.tobytes() != (2 * by_winograd).tobytes()
