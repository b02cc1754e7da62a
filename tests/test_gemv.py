"""The product of few rows with a matrix whose rows lie along memory, at sizes around the vector width."""

import numpy as np
import pytest
from test_ops import isa  # noqa: F401 - a fixture

from fastcnn import _core


def product(x, w, bias, act, threads):
    y = np.full((len(x), len(w)), np.nan, np.float32)
    (m, k), n = x.shape, len(w)
    _core.run_kernel("gemv", threads, x=x, w=w, y=y, bias=bias, m=m, n=n, k=k, x_m=k, w_n=k, y_m=n, act=act)
    return y


@pytest.mark.parametrize("m, n", [(1, 1), (1, 8), (2, 12), (3, 23), (4, 3), (5, 49)])
def test_against_float64(isa, m, n):  # noqa: F811
    rng = np.random.default_rng(m * n)
    for k in [*range(1, 36), 63, 64, 65]:
        x, w = (rng.standard_normal((rows, k)).astype(np.float32) for rows in (m, n))
        bias = rng.standard_normal(n).astype(np.float32)
        want = x.astype(np.float64) @ w.T
        bound = 2.0**-24 * (k + 2) * (np.abs(x).astype(np.float64) @ np.abs(w).T + np.abs(bias))
        plain = product(x, w, None, 0, 1)
        assert np.all(np.abs(plain - want) <= bound), k
        finished = product(x, w, bias, 1, 1)
        assert np.all(np.abs(finished - np.maximum(want + bias, 0)) <= bound), k
        for threads in (2, 3):
            assert np.array_equal(product(x, w, bias, 1, threads), finished), k


def test_what_is_read_twice_counts_once(isa):  # noqa: F811
    """The last vector of a row overlaps the one before: an infinity there is no NaN."""
    k = 2 * _core.isa()["vw"] - 1
    x, w = np.ones((1, k), np.float32), np.ones((9, k), np.float32)
    w[1, :] = np.arange(k) == k - 1
    w[2, k - 2], x[0, 0] = np.inf, 3
    assert product(x, w, None, 0, 1).tolist() == [[k + 2, 1, np.inf, *[k + 2] * 6]]
    x[0, 1] = -np.inf
    assert np.isnan(product(x, w, None, 0, 1)[0, 1:3]).all() and product(x, w, None, 0, 1)[0, 0] == -np.inf
