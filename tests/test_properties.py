"""Any shape: hypothesis draws sizes, strides and paddings; on small integers, sums in any order are exact."""

import numpy as np
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn as fc
import fastcnn.functional as F

SIZES = st.integers(1, 20)


def integers(seed, shape):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


@settings(max_examples=120)
@given(st.data())
def test_convolution_of_any_shape(data):
    draw = data.draw
    n, c, o = draw(SIZES), draw(SIZES), draw(SIZES)
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride, dilation = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    h = draw(st.integers(dilation[0] * (kernel[0] - 1) + 1, 14))
    w = draw(st.integers(dilation[1] * (kernel[1] - 1) + 1, 14))
    x, weight, bias = integers(0, (n, c, h, w)), integers(1, (o, c, *kernel)), integers(2, o)
    attrs = dict(stride=stride, pads=pads, dilation=dilation, groups=1)

    def reference(x, weight, bias, dy):
        grads = ref.conv2d_grads(x, weight, dy, **attrs)
        return ref.conv2d(x, weight, bias, **attrs), *grads, dy.sum((0, 2, 3))

    arrays = [a.astype(float) for a in (x, weight, bias)]
    dy = integers(3, ref.conv2d(*arrays, **attrs).shape)
    want = reference(*arrays, dy.astype(float))
    terms = reference(*map(np.abs, arrays), np.abs(dy).astype(float))  # a sum that cancels rounds as its terms do
    for algorithm, bound in (("direct", 0), ("winograd", 5e-5)):  # Winograd's transforms round thirds
        fc.set_conv_algorithm(algorithm)
        y, pullback = fc.vjp(lambda x, w, b: F.conv2d(x, w, b, stride, pads, dilation), x, weight, bias)
        for got, expected, size in zip((y, *pullback(dy)), want, terms, strict=True):
            assert got.shape == expected.shape
            assert np.linalg.norm(got - expected) <= bound * np.linalg.norm(size), algorithm


@settings(max_examples=80)
@given(st.data())
def test_pooling_of_any_shape(data):
    draw = data.draw
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    ceil_mode, include = draw(st.booleans()), draw(st.booleans())
    shape = (draw(SIZES), draw(SIZES), draw(st.integers(4, 12)), draw(st.integers(4, 12)))
    x = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    attrs = dict(kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)
    y, pullback = fc.vjp(lambda x: F.max_pool2d(x, kernel, stride, padding, 1, ceil_mode), x)
    np.testing.assert_array_equal(y, ref.max_pool2d(x, **attrs)[0])
    dy = integers(1, y.shape)
    np.testing.assert_array_equal(pullback(dy), ref.max_pool2d_grad(x, dy, **attrs))
    attrs |= dict(count_include_pad=include, divisor=None)
    y, pullback = fc.vjp(lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil_mode, include), x)
    np.testing.assert_allclose(y, ref.avg_pool2d(x.astype(float), **attrs), rtol=1e-5)
    np.testing.assert_allclose(pullback(dy), ref.avg_pool2d_grad(x.astype(float), dy, **attrs), rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70))
def test_linear_of_any_shape(n, k, outs):
    x, w, b = integers(0, (n, k)), integers(1, (outs, k)), integers(2, outs)
    y, pullback = fc.vjp(F.linear, x, w, b)
    np.testing.assert_array_equal(y, x @ w.T + b)
    dy = integers(3, y.shape)
    for got, want in zip(pullback(dy), (dy @ w, dy.T @ x, dy.sum(0))):
        np.testing.assert_array_equal(got, want)
