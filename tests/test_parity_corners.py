"""Corners of the layers' arguments where PyTorch has a rule of its own: values and gradients against its float64."""

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def compare(ours, theirs, *arrays, tolerance=2e-5):
    """Values, and gradients of all floats."""
    tensors = [torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a) for a in arrays]
    floats = [t.requires_grad_() for t in tensors if t.dtype == torch.float64]
    want = theirs(*tensors)
    y, pullback = fc.vjp(ours, *arrays)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-4, atol=tolerance)
    dy = normal(*want.shape)
    grads = pullback(dy) if len(arrays) > 1 else [pullback(dy)]
    grads = [g for g, a in zip(grads, arrays, strict=True) if a.dtype.kind == "f"]
    for grad, expected in zip(grads, torch.autograd.grad(want, floats, torch.tensor(dy)), strict=True):
        np.testing.assert_allclose(grad, expected.numpy(), rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(
    "dimensions, padding, output_padding, stride, dilation",
    [(1, 2, 2, 1, 3), (1, 0, 2, 2, 3), (2, (3, 0), (1, 2), (1, 2), (3, 3)), (3, (0, 2, 1), (2, 1, 1), (1, 1, 3), 3)],
)
def test_output_padding_up_to_the_dilation(dimensions, padding, output_padding, stride, dilation):
    x, w, b = normal(2, 4, *[3] * dimensions), normal(4, 3, *[3] * dimensions), normal(6)
    ours, theirs = (getattr(m, f"conv_transpose{dimensions}d") for m in (F, TF))
    rest = (stride, padding, output_padding, 2, dilation)
    compare(lambda *a: ours(*a, *rest), lambda *a: theirs(*a, *rest), x, w, b, tolerance=1e-4)
    with pytest.raises(ValueError, match=r"output_padding must be smaller than stride .* or dilation"):
        ours(x, w, b, stride, padding, 3, 2, dilation)
    layer = getattr(nn, f"ConvTranspose{dimensions}d")(4, 6, 3, stride, padding, output_padding, 2, dilation=dilation)
    assert np.shape(layer(x)) == tuple(theirs(*map(torch.tensor, (x, w, b)), *rest).shape)


@pytest.mark.parametrize("mode, sizes", [("linear", (5,)), ("bilinear", (5, 9)), ("trilinear", (9, 3, 2))])
def test_a_dimension_that_keeps_its_size_is_copied_whatever_the_factor(mode, sizes):
    for factor in (1.15, 1.3):
        kw = dict(scale_factor=factor, mode=mode, align_corners=False)
        compare(lambda x: F.interpolate(x, **kw), lambda x: TF.interpolate(x, **kw), normal(2, 3, *sizes))


@pytest.mark.parametrize("pad", [(-1, 1), (2, -1), (-2, 3), (0, -3), (-2, 4)])
def test_circular_padding_goes_around_what_is_kept(pad):
    compare(lambda x: F.pad(x, pad, "circular"), lambda x: TF.pad(x, pad, mode="circular"), normal(1, 2, 6))
    with pytest.raises(ValueError, match="cannot pad a dimension of size 6"):
        F.pad(normal(1, 2, 6), (5, -2), "circular")


@pytest.mark.parametrize("reduction", ["none", "batchmean"])
def test_kl_div_where_the_target_is_0(reduction):
    x, target = normal(4, 5), np.array([0, 0.25, 0, 0.75, 1e-40] * 4, np.float32).reshape(4, 5)
    target = torch.tensor(target)
    want = TF.kl_div(torch.tensor(x), target, reduction=reduction).numpy()
    np.testing.assert_allclose(F.kl_div(x, target.numpy(), reduction=reduction), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(8, 1), (8,), (8, 3, 4), (8, 3)])
def test_gaussian_nll_with_a_variance_for_each_item(shape):
    x, target = (normal(*shape, *([1] if len(shape) == 1 else [5])) for _ in range(2))
    for var_shape in (x.shape, x.shape[:-1], (*x.shape[:-1], 1)):
        var = np.abs(normal(*var_shape))  # some below eps, where PyTorch's gradient is that at eps
        for full in (False, True):
            both = [lambda x, t, v, m=m: m.gaussian_nll_loss(x, t, v, full, 0.3, "none") for m in (F, TF)]
            compare(*both, x, target, var, tolerance=1e-4)
    with pytest.raises(ValueError, match="gaussian_nll_loss: var must have shape"):
        F.gaussian_nll_loss(x, target, np.ones(2, np.float32))


def test_nll_loss_of_nothing_is_nan_with_a_gradient_of_0():
    x, target = normal(3, 4), np.full(3, -100)
    y, pullback = fc.vjp(lambda x: F.nll_loss(x, target), x)
    assert np.isnan(y)
    np.testing.assert_array_equal(pullback(np.float32(1))[0], 0)


def test_unpooling_to_nothing_is_an_error():
    with pytest.raises(ValueError, match="max_unpool1d: nothing is left"):
        F.max_unpool1d(normal(1, 1, 1), np.zeros((1, 1, 1), np.int64), 2, 3, 1)
