"""Strided convolutions that work on some images at a time, 1x1 ones on pixels brought side by side, against float64 on
every instruction set."""

import numpy as np
import pytest
import reference as ref
from test_ops import isa, run, use_threads  # noqa: F401 - isa is a fixture

import fastcnn as fc
from fastcnn.graph import passes
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, add_node
from fastcnn.ops import OPS, conv_taps, panels
from fastcnn.ops.arithmetic import arithmetic


def program(shapes, attrs):
    """Two convolutions of relu(x), one added to the other: the sums and the mask are taken into their steps."""
    x, *params = (Symbol(s) for s in shapes)
    relu = add_node(OPS["map"], [x], kind="relu", alpha=0.0)
    y = add_node(OPS["conv2d"], [relu, *params[:2]], **attrs)
    y = arithmetic("add", y, add_node(OPS["conv2d"], [relu, params[2]], **attrs))
    return Program([x, *params], [y], [x, *params])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("bytes_", [1, panels.PART_BYTES])  # with 1, image by image
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize(
    "case",
    [
        (1, 1, 1, 8, 8, 1),
        (3, 7, 9, 17, 9, 1),
        (2, 12, 13, 16, 33, 1),
        (5, 5, 6, 20, 18, 2),
        (3, 9, 21, 19, 19, 19),
        (2, 7, 19, 3, 12, 1),
        (2, 7, 19, 12, 2, 1),
    ],
)
def test_against_float64(case, stride, bytes_, k, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    monkeypatch.setattr(panels, "PART_BYTES", bytes_)
    n, h, w, channels, outputs, groups = case
    attrs = dict(stride=stride, dilation=(1, 1), groups=groups, pads=(k // 2,) * 4)
    weight = (outputs, channels // groups, k, k)
    shapes = [(n, channels, h, w), weight, (outputs,), weight]
    rng = np.random.default_rng(h)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    results = []
    for threads in (1, 2, 5):
        use_threads(monkeypatch, threads)
        p = program(shapes, attrs)
        kernels = [step.kernel for step in p.steps]
        times = n if bytes_ == 1 else 1
        if min(channels, outputs) > conv_taps.FEW:
            depthwise, picks = groups > 2, k == 1 and groups <= 2
            moves = (2 * times + 2, 2 * times) if picks else (0, 0)
            assert (kernels.count("pick_pixels"), kernels.count("place_pixels")) == moves
            phases = 1 if picks else min(stride[0], h) * min(stride[1], w)
            convolutions = (2 * times if picks else 2) + 2 * times * phases
            assert kernels.count("depthwise" if depthwise else "conv_lanes_c") == convolutions
        else:
            assert "conv_few" in kernels
        assert channels <= conv_taps.FEW or not {"zip", "map", "map_bwd"} & set(kernels[1:])
        dy = np.random.default_rng(1).standard_normal(p.outputs[0].shape).astype(np.float32)
        results.append(run(p, arrays, dy))
    for got in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], got, strict=True))
    x, first, bias, second = (a.astype(np.float64) for a in arrays)
    relu = np.maximum(x, 0)
    want = [ref.conv2d(relu, first, bias, **attrs) + ref.conv2d(relu, second, None, **attrs)]
    grads = [ref.conv2d_grads(relu, k, dy.astype(np.float64), **attrs) for k in (first, second)]
    want += [(grads[0][0] + grads[1][0]) * (x > 0), grads[0][1], dy.sum((0, 2, 3), dtype=np.float64), grads[1][1]]
    for value, expected in zip(results[0], want, strict=True):
        assert np.linalg.norm(value - expected) <= 1e-6 * max(np.linalg.norm(expected), 1e-30)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 1), (1, 3)])
def test_steps_stay_within_their_tables(kernel, isa, monkeypatch):  # noqa: F811
    """With images in the lanes, phases that no tap or no column of taps reaches have tables of one run: no row says more."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_n")
    fc.set_conv_algorithm("direct")
    shapes = [(17, 6, 9, 8), (5, 6, *kernel)]
    inputs = [Symbol(s) for s in shapes]
    y = add_node(OPS["conv2d"], inputs, stride=(3, 3), dilation=(1, 1), groups=1, pads=(0, 0, 0, 0))
    p = Program(inputs, [y], inputs)
    tables = [step.fields for step in p.steps if step.fields.get("rows") is not None]
    assert tables
    for fields in tables:
        assert fields["rows"].storage.base.max() <= fields["nruns"] <= len(fields["runs"].storage.base)
