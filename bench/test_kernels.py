"""Kernel benches for pytest-benchmark: pytest bench/test_kernels.py [-k forward]. Each checks its numbers first."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import reference as ref
from frameworks import common, fastcnn_

import fastcnn as fc

LAYERS = common.convolutions(quick=True)


@pytest.mark.parametrize("kind", ["forward", "data gradient", "weight gradient"])
@pytest.mark.parametrize("problem", LAYERS, ids=[p.name for p in LAYERS])
def test_convolution(problem, kind, benchmark):
    fc.set_num_threads(1)
    program, arrays = fastcnn_.conv_program(kind, problem)
    y = program.forward(arrays)[0]
    _check(problem, kind, y)
    io = (*arrays, y)
    benchmark.extra_info["GFLOP"] = problem.flops * 1e-9
    benchmark(lambda: program.plan.run(io, 0, len(program.plan), 1))


def _check(p, kind, y):
    """One output channel (or the first image's gradient, or one filter's gradient) in float64."""
    x, w, dy = (a.astype(np.float64) for a in p.arrays())
    attrs = dict(stride=(p.stride,) * 2, pads=(p.padding,) * 4, dilation=(1, 1), groups=1)
    if kind == "forward":
        want, got = ref.conv2d(x[:1], w[:2], **attrs), y[:1, :2]
    elif kind == "data gradient":
        want, got = ref.conv2d_grads(x[:1], w, dy[:1], **attrs)[0], y[:1]
    else:
        want, got = ref.conv2d_grads(x, w[:1], dy[:, :1], **attrs)[1], y[:1]
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("name, n", common.sgemm_sizes(quick=True))
def test_sgemm(name, n, benchmark):
    fc.set_num_threads(1)
    a, b = common.matrices(n)
    np.testing.assert_allclose(fc.matmul(a, b), a.astype(np.float64) @ b, rtol=1e-3, atol=1e-3)
    benchmark.extra_info["GFLOP"] = 2e-9 * n**3
    benchmark(lambda: fc.matmul(a, b))
