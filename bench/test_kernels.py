"""Kernel benches for pytest-benchmark: pytest bench/test_kernels.py [-k forward]. Each checks its numbers first."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from frameworks import fastcnn_ops, problems

import fastcnn as fc

LAYERS = problems.convolutions(quick=True)


@pytest.mark.parametrize("kind", problems.PASSES)
@pytest.mark.parametrize("problem", LAYERS, ids=[p.name for p in LAYERS])
def test_convolution(problem, kind, benchmark):
    fc.set_num_threads(1)
    given = problem.arrays()
    program, arrays = fastcnn_ops.conv_program(kind, problem, given)
    io = (*arrays, *program.forward(arrays))
    assert problem.error(kind, given, io[len(arrays)]) <= 5e-5
    benchmark.extra_info["GFLOP"] = problem.flops * 1e-9
    spans = fastcnn_ops.spans_of(program)
    program.plan.run(io, 0, spans[-1][1], 1)
    benchmark(lambda: [program.plan.run(io, first, end, 1) for first, end in spans])


@pytest.mark.parametrize("name, n", problems.sgemm_sizes(quick=True))
def test_sgemm(name, n, benchmark):
    fc.set_num_threads(1)
    a, b = problems.matrices(n)
    np.testing.assert_allclose(fc.matmul(a, b), a.astype(np.float64) @ b, rtol=1e-3, atol=1e-3)
    benchmark.extra_info["GFLOP"] = 2e-9 * n**3
    benchmark(lambda: fc.matmul(a, b))
