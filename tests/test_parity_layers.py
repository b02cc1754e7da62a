"""Every function and layer beside PyTorch's: values, gradients, constructor defaults, state dicts."""

import functools

import numpy as np
import pytest
from layer_table import LAYERS

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn

torch = pytest.importorskip("torch")
TF = torch.nn.functional

# (function of the namespace (F or torch.nn.functional) and arrays, shapes of the float arrays)
CASES = {
    "conv1d": (lambda f, *a: f.conv1d(*a, 2, 1, 1, 2), [(3, 4, 11), (6, 2, 3), (6,)]),
    "conv1d dilated": (lambda f, *a: f.conv1d(*a, padding=2, dilation=2), [(2, 3, 9), (5, 3, 3)]),
    "conv3d": (lambda f, *a: f.conv3d(*a, padding=1), [(2, 3, 5, 6, 4), (4, 3, 3, 3, 3), (4,)]),
    "conv3d strided": (
        lambda f, *a: f.conv3d(*a, (2, 1, 2), (1, 0, 2), (2, 1, 1), 2),
        [(17, 4, 7, 5, 6), (6, 2, 2, 3, 3), (6,)],
    ),
    "conv_transpose1d": (lambda f, *a: f.conv_transpose1d(*a, 3, 1, 2, 1, 2), [(2, 4, 6), (4, 3, 3), (3,)]),
    "conv_transpose2d": (lambda f, *a: f.conv_transpose2d(*a, 2, 1, 1), [(3, 5, 6, 7), (5, 4, 3, 3), (4,)]),
    "conv_transpose2d groups": (
        lambda f, *a: f.conv_transpose2d(*a, (2, 3), (1, 0), (1, 2), 2, (2, 1)),
        [(17, 4, 5, 4), (4, 3, 3, 2), (6,)],
    ),
    "conv_transpose2d 1x1": (lambda f, *a: f.conv_transpose2d(*a), [(2, 9, 3, 3), (9, 17, 1, 1)]),
    "conv_transpose3d": (
        lambda f, *a: f.conv_transpose3d(*a, 2, 1, 1, 2),
        [(2, 4, 3, 4, 3), (4, 3, 3, 3, 3), (6,)],
    ),
    "conv_transpose3d plain": (lambda f, *a: f.conv_transpose3d(*a), [(1, 2, 3, 2, 3), (2, 3, 2, 2, 2)]),
    "max_pool1d": (lambda f, x: f.max_pool1d(x, 3, 2, 1), [(3, 4, 11)]),
    "max_pool1d ceil": (lambda f, x: f.max_pool1d(x, 3, 2, ceil_mode=True), [(9, 2, 10)]),
    "max_pool3d": (lambda f, x: f.max_pool3d(x, (2, 3, 2), (2, 1, 2), (1, 1, 0)), [(2, 9, 5, 6, 7)]),
    "avg_pool1d": (lambda f, x: f.avg_pool1d(x, 3, 2, 1), [(3, 4, 11)]),
    "avg_pool1d inside": (lambda f, x: f.avg_pool1d(x, 3, 2, 1, True, False), [(3, 4, 10)]),
    "avg_pool3d": (lambda f, x: f.avg_pool3d(x, 2, 2, 1, False, True), [(2, 3, 5, 6, 7)]),
    "avg_pool3d divisor": (lambda f, x: f.avg_pool3d(x, 2, divisor_override=3), [(2, 3, 4, 6, 7)]),
    "adaptive_avg_pool1d": (lambda f, x: f.adaptive_avg_pool1d(x, 4), [(2, 3, 10)]),
    "adaptive_avg_pool2d": (lambda f, x: f.adaptive_avg_pool2d(x, (3, 5)), [(2, 17, 7, 9)]),
    "adaptive_avg_pool2d global": (lambda f, x: f.adaptive_avg_pool2d(x, 1), [(2, 17, 7, 9)]),
    "adaptive_avg_pool2d larger": (lambda f, x: f.adaptive_avg_pool2d(x, (6, None)), [(17, 3, 4, 5)]),
    "adaptive_avg_pool3d": (lambda f, x: f.adaptive_avg_pool3d(x, (2, 3, 1)), [(2, 3, 5, 4, 3)]),
    "adaptive_max_pool1d": (lambda f, x: f.adaptive_max_pool1d(x, 4), [(2, 3, 10)]),
    "adaptive_max_pool2d": (lambda f, x: f.adaptive_max_pool2d(x, (3, 2)), [(2, 9, 7, 5)]),
    "adaptive_max_pool3d": (lambda f, x: f.adaptive_max_pool3d(x, 2), [(2, 3, 5, 4, 3)]),
    "nearest": (lambda f, x: f.interpolate(x, scale_factor=2), [(2, 3, 4, 5)]),
    "nearest 1d": (lambda f, x: f.interpolate(x, size=7), [(2, 3, 5)]),
    "nearest 3d": (lambda f, x: f.interpolate(x, scale_factor=(1, 2, 1.5)), [(1, 2, 3, 4, 5)]),
    "nearest down": (lambda f, x: f.interpolate(x, size=(3, 4)), [(2, 9, 7, 11)]),
    "bilinear": (lambda f, x: f.interpolate(x, scale_factor=2, mode="bilinear"), [(2, 3, 4, 5)]),
    "bilinear corners": (lambda f, x: f.interpolate(x, (7, 9), None, "bilinear", True), [(17, 3, 4, 5)]),
    "bilinear odd": (lambda f, x: f.interpolate(x, size=(5, 3), mode="bilinear"), [(2, 3, 8, 7)]),
    "bilinear factor": (lambda f, x: f.interpolate(x, scale_factor=1.7, mode="bilinear"), [(2, 3, 5, 6)]),
    "linear": (lambda f, x: f.interpolate(x, size=9, mode="linear", align_corners=True), [(2, 3, 5)]),
    "trilinear": (lambda f, x: f.interpolate(x, size=(4, 3, 5), mode="trilinear"), [(1, 2, 3, 4, 3)]),
    "pixel_shuffle": (lambda f, x: f.pixel_shuffle(x, 2), [(2, 12, 3, 4)]),
    "pixel_unshuffle": (lambda f, x: f.pixel_unshuffle(x, 3), [(2, 2, 6, 3)]),
    "pad reflect": (lambda f, x: f.pad(x, (2, 1, 0, 3), "reflect"), [(2, 3, 5, 4)]),
    "pad replicate": (lambda f, x: f.pad(x, (2, 1, 4, 0), "replicate"), [(2, 3, 3, 4)]),
    "pad circular": (lambda f, x: f.pad(x, (2, 4), "circular"), [(2, 3, 5)]),
    "pad replicate 3d": (lambda f, x: f.pad(x, (1, 1, 0, 2, 2, 0), "replicate"), [(1, 2, 3, 3, 2)]),
    "relu6": (lambda f, x: f.relu6(x * 4), [(5, 33)]),
    "hardtanh": (lambda f, x: f.hardtanh(x, -0.3, 0.7), [(5, 33)]),
    "hardsigmoid": (lambda f, x: f.hardsigmoid(x * 3), [(5, 33)]),
    "hardswish": (lambda f, x: f.hardswish(x * 3), [(5, 33)]),
    "leaky_relu turned": (lambda f, x: f.leaky_relu(x, -0.3), [(5, 33)]),
    "elu turned": (lambda f, x: f.elu(x * 3, -0.7), [(5, 33)]),
    "silu": (lambda f, x: f.silu(x * 5), [(5, 33)]),
    "gelu": (lambda f, x: f.gelu(x * 3), [(5, 33)]),
    "gelu tanh": (lambda f, x: f.gelu(x * 3, approximate="tanh"), [(5, 33)]),
    "mish": (lambda f, x: f.mish(x * 5), [(5, 33)]),
    "selu": (lambda f, x: f.selu(x), [(5, 33)]),
    "softplus": (lambda f, x: f.softplus(x * 10, 2.0, 5.0), [(5, 33)]),
    "logsigmoid": (lambda f, x: f.logsigmoid(x * 30), [(5, 33)]),
    "softsign": (lambda f, x: f.softsign(x), [(5, 33)]),
    "prelu": (lambda f, x, w: f.prelu(x, w), [(2, 5, 3, 4), (5,)]),
    "prelu one": (lambda f, x, w: f.prelu(x, w), [(3, 7), (1,)]),
    "layer_norm": (lambda f, x, w, b: f.layer_norm(x, (5, 6), w, b), [(3, 4, 5, 6), (5, 6), (5, 6)]),
    "layer_norm plain": (lambda f, x: f.layer_norm(x, (33,)), [(3, 33)]),
    "group_norm": (lambda f, x, w, b: f.group_norm(x, 3, w, b), [(2, 9, 4, 5), (9,), (9,)]),
    "instance_norm": (lambda f, x: f.instance_norm(x), [(2, 9, 4, 5)]),
    "local_response_norm": (lambda f, x: f.local_response_norm(x, 5, 2.0, 0.75, 2.0), [(2, 9, 4, 5)]),
    "local_response_norm even": (lambda f, x: f.local_response_norm(x, 4, 0.5), [(2, 7, 4, 3)]),
    "normalize": (lambda f, x: f.normalize(x), [(4, 7, 2)]),
    "l1_loss": (lambda f, x, t: f.l1_loss(x, t), [(4, 7), (4, 7)]),
    "mse_loss none": (lambda f, x, t: f.mse_loss(x, t, reduction="none"), [(4, 7), (4, 7)]),
    "smooth_l1_loss": (lambda f, x, t: f.smooth_l1_loss(x, t, beta=0.7), [(4, 7), (4, 7)]),
    "huber_loss": (lambda f, x, t: f.huber_loss(x, t, delta=0.7, reduction="sum"), [(4, 7), (4, 7)]),
    "gaussian_nll_loss": (lambda f, x, t, v: f.gaussian_nll_loss(x, t, v * v + 0.1, True), [(4, 7)] * 3),
    "kl_div log": (lambda f, x, t: f.kl_div(x, t, reduction="batchmean", log_target=True), [(4, 7), (4, 7)]),
}
ROUGH = {"local_response_norm": 1e-4, "local_response_norm even": 1e-4, "layer_norm": 5e-5, "group_norm": 5e-5}


@pytest.mark.parametrize("name", CASES)
def test_function(name):
    call, shapes = CASES[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    want = call(TF, *tensors)
    dy = rng.standard_normal(tuple(want.shape)).astype(np.float32)
    want.backward(torch.tensor(dy))
    y, pullback = fc.vjp(lambda *a: call(F, *a), *arrays)
    grads = pullback(dy)
    grads = grads if isinstance(grads, tuple) else (grads,)
    tolerance = ROUGH.get(name, 2e-5)
    assert y.shape == tuple(want.shape)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=tolerance, atol=tolerance * max(1, np.abs(y).max()))
    for i, (grad, tensor) in enumerate(zip(grads, tensors)):
        expected = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        scale = max(1, np.abs(expected).max())
        np.testing.assert_allclose(grad, expected, rtol=tolerance, atol=tolerance * scale, err_msg=f"gradient {i}")
    np.testing.assert_array_equal(call(F, *arrays), y, err_msg="called on arrays")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["bce", "bce weighted", "logits", "logits pos_weight", "kl"])
def test_losses_of_probabilities(name, reduction):
    rng = np.random.default_rng(3)
    x, t = rng.uniform(0.01, 0.99, (2, 6, 5)).astype(np.float32)
    w = rng.uniform(0.5, 2, 5).astype(np.float32)
    x = x if name.startswith("bce") else np.log(x)
    x[0, 0] = 1.0 if name.startswith("bce") else x[0, 0]
    call = {
        "bce": lambda f, x, t, w: f.binary_cross_entropy(x, t, reduction=reduction),
        "bce weighted": lambda f, x, t, w: f.binary_cross_entropy(x, t, w, reduction=reduction),
        "logits": lambda f, x, t, w: f.binary_cross_entropy_with_logits(x, t, w, reduction=reduction),
        "logits pos_weight": lambda f, x, t, w: f.binary_cross_entropy_with_logits(
            x * 50, t, reduction=reduction, pos_weight=w
        ),
        "kl": lambda f, x, t, w: f.kl_div(x, t, reduction=reduction),
    }[name]
    leaf = torch.tensor(x, requires_grad=True)
    want = call(TF, leaf, torch.tensor(t), torch.tensor(w))
    want.sum().backward()
    y, pullback = fc.vjp(lambda x: call(F, x, t, w), x)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=2e-5, atol=1e-5)
    grad, expected = pullback(np.ones(np.shape(y), np.float32)), leaf.grad.numpy()
    inside = np.ones(x.shape, bool)
    inside[0, 0] = not name.startswith("bce")  # PyTorch clamps the denominator there, fastcnn the logarithm
    np.testing.assert_allclose(grad[inside], expected[inside], rtol=2e-5, atol=1e-5)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(6, 5), (2, 4, 3, 3)])
@pytest.mark.parametrize("ignore", [-100, 0, 2])
def test_nll_loss(shape, ignore, reduction):
    rng = np.random.default_rng(4)
    x = rng.standard_normal(shape).astype(np.float32)
    t = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    t.flat[0] = ignore
    w = rng.uniform(0.5, 2, shape[1]).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    want = TF.nll_loss(leaf, torch.tensor(t), torch.tensor(w), ignore_index=ignore, reduction=reduction)
    want.sum().backward()
    y, pullback = fc.vjp(lambda x: F.nll_loss(x, t, w, ignore, reduction), x)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pullback(np.ones(np.shape(y))), leaf.grad.numpy(), rtol=1e-5, atol=1e-6)
    t.flat[1] = shape[1]
    with pytest.raises(ValueError, match=f"nll_loss: target {shape[1]} is not a class"):
        F.nll_loss(x, t, w, ignore, reduction)


@pytest.mark.parametrize("ignore", [-100, 1])
def test_cross_entropy_over_pixels(ignore):
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((3, 4, 5, 6)).astype(np.float32), rng.integers(0, 4, (3, 5, 6))
    t[0, 0] = ignore
    w = rng.uniform(0.5, 2, 4).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    want = TF.cross_entropy(leaf, torch.tensor(t), torch.tensor(w), ignore_index=ignore, label_smoothing=0.1)
    want.backward()
    y, pullback = fc.vjp(lambda x: F.cross_entropy(x, t, w, ignore, label_smoothing=0.1), x)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(pullback(np.ones(())), leaf.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_unpooling(count):
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 3, *(5, 4, 6)[:count])).astype(np.float32)
    ours, theirs = (getattr(m, f"max_pool{count}d") for m in (F, TF))
    y, idx = ours(x, 2, 2, return_indices=True)
    ty, tidx = theirs(torch.tensor(x), 2, 2, return_indices=True)
    np.testing.assert_array_equal(idx, tidx.numpy())
    unpool = getattr(F, f"max_unpool{count}d")
    want = getattr(TF, f"max_unpool{count}d")(ty, tidx, 2, 2, output_size=x.shape[2:])
    got, pullback = fc.vjp(lambda y: unpool(y, idx, 2, 2, output_size=x.shape[2:]), y)
    np.testing.assert_array_equal(got, want.numpy())
    dy = rng.standard_normal(got.shape).astype(np.float32)
    flat = np.take_along_axis(dy.reshape(2, 3, -1), idx.reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(pullback(dy), flat.reshape(y.shape))


SHAPED = {
    "cat": (lambda m, a, b: m.cat([a, b, a], 1), [(2, 3, 4, 5), (2, 2, 4, 5)]),
    "cat wide": (lambda m, a, b: m.cat([a, b], 1), [(2, 32, 3, 3), (2, 16, 3, 3)]),
    "stack": (lambda m, a, b: m.stack([a, b], 2), [(2, 3, 4), (2, 3, 4)]),
    "broadcast": (lambda m, a, b: a * b + a / (b * b + 1.0) - b, [(2, 3, 4, 5), (3, 1, 1)]),
    "channel scale": (lambda m, a, b: a * b, [(2, 17, 4, 5), (2, 17, 1, 1)]),
    "scalar first": (lambda m, a, b: 2.0 - a + 1.0 / (b * b + 1.0), [(2, 3), (3,)]),
    "mean dims": (lambda m, a: a.mean((2, 3)), [(2, 17, 4, 5)]),
    "mean keep": (lambda m, a: a - a.mean((0, 2), True), [(3, 4, 5)]),
    "sum dim": (lambda m, a: a.sum(1), [(3, 4, 5)]),
    "var": (lambda m, a: a.var(1), [(3, 4, 5)]),
    "slice": (lambda m, a: a[:, 1:3, ::2, -1], [(3, 4, 5, 6)]),
    "slice ellipsis": (lambda m, a: a[..., None, 2:], [(3, 4, 5)]),
    "permute": (lambda m, a: a.permute(2, 0, 1) * 2.0, [(3, 4, 5)]),
    "transpose": (lambda m, a: a.transpose(0, 2), [(3, 4, 5)]),
    "squeeze": (lambda m, a: a.squeeze(1).unsqueeze(0), [(3, 1, 5)]),
    "split": (lambda m, a: a.split([1, 3], 1)[1] * a.chunk(4, 1)[0], [(2, 4, 3)]),
    "expand": (lambda m, a: a.expand(2, -1, 4), [(3, 1)]),
    "flatten": (lambda m, a: a.flatten(1).reshape(-1, 6), [(2, 3, 4)]),
}


@pytest.mark.parametrize("name", SHAPED)
def test_shapes_and_arithmetic(name):
    call, shapes = SHAPED[name]
    rng = np.random.default_rng(len(name))
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    want = call(torch, *tensors)
    dy = rng.standard_normal(tuple(want.shape)).astype(np.float32)
    want.backward(torch.tensor(dy))
    y, pullback = fc.vjp(functools.partial(call, F), *arrays)
    grads = pullback(dy)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-5, atol=1e-5)
    for grad, tensor in zip(grads if isinstance(grads, tuple) else (grads,), tensors):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, args, options, shape", LAYERS, ids=lambda v: str(v) if isinstance(v, str) else "")
def test_layer(name, args, options, shape):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(np.asarray(ours(x)), want, rtol=2e-5, atol=2e-5)
    again = nn.registry.build(nn.registry.describe(ours))
    again.load_state_dict(state)
    np.testing.assert_array_equal(np.asarray(again(x)), np.asarray(ours(x)))


LOSSES = ["L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss", "BCEWithLogitsLoss", "KLDivLoss"]


@pytest.mark.parametrize("name", LOSSES)
def test_loss_layer(name):
    x, t = np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 3)).astype(np.float32)
    want = getattr(torch.nn, name)()(torch.tensor(x), torch.tensor(t))
    np.testing.assert_allclose(float(getattr(nn, name)()(x, t)), float(want), rtol=1e-5)


def test_more_loss_layers():
    x, t = np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 3)).astype(np.float32)
    tx, tt = torch.tensor(x), torch.tensor(t)
    np.testing.assert_allclose(
        float(nn.BCELoss([1, 2, 3])(x, t)), float(torch.nn.BCELoss(torch.tensor([1.0, 2, 3]))(tx, tt)), rtol=1e-5
    )
    np.testing.assert_allclose(
        float(nn.GaussianNLLLoss()(x, t, x)), float(torch.nn.GaussianNLLLoss()(tx, tt, tx)), rtol=1e-5
    )
    target = np.array([0, 2, 1, 1])
    weight = [1.0, 2.0, 0.5]
    want = torch.nn.NLLLoss(torch.tensor(weight))(tx, torch.tensor(target))
    np.testing.assert_allclose(float(nn.NLLLoss(weight)(x, target)), float(want), rtol=1e-5)


@pytest.mark.parametrize("size, dilation", [(1, 2), (5, 6), (2, 3)])
def test_max_pool_windows_that_see_only_padding_are_minus_infinity(size, dilation):
    x = np.random.default_rng(0).normal(size=(2, 9, size)).astype(np.float32)
    expected = TF.max_pool1d(torch.tensor(x), 2, 1, 1, dilation).numpy()
    assert np.isneginf(expected).any()
    np.testing.assert_array_equal(F.max_pool1d(x, 2, 1, 1, dilation), expected)
    cube = x[..., None, None]
    assert np.isneginf(F.max_pool3d(cube, (2, 1, 1), 1, (1, 0, 0), (dilation, 1, 1))[..., 0, 0]).sum() > 0


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.3, 1.5, 2.2, 2.5])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_nearest_takes_the_pixels_that_pytorch_takes(size, factor):
    for shape in [(1, 1, size), (1, 1, size, size), (1, 1, size, size, size)]:
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        expected = TF.interpolate(torch.tensor(x), scale_factor=factor).numpy()
        np.testing.assert_array_equal(F.interpolate(x, scale_factor=factor), expected)


@pytest.mark.parametrize("slope", [0.3, -0.7])
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_activations_at_the_edges(name, slope):
    """Zeros, infinities and NaN. At NaN PyTorch's gradient of elu is NaN in its vectors and dy in the values left over:
    32 values leave none over, and for the turned elu, composed here, either will do."""
    x = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, 1e-30, -1e-30, 3, -2], np.float32), 32)
    leaf = torch.tensor(x, requires_grad=True)
    want = getattr(TF, name)(leaf, slope)
    want.backward(torch.full((32,), 3.0))
    y, pullback = fc.vjp(lambda x: getattr(F, name)(x, slope), x)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-6)
    dx, wanted = pullback(np.full(32, 3, np.float32)), leaf.grad.numpy()
    if name == "elu" and slope < 0:
        dx, wanted = dx[~np.isnan(x)], wanted[~np.isnan(x)]
    np.testing.assert_allclose(dx, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="must be a number, got nan"):
        getattr(F, name)(x, float("nan"))


ONE_ITEM = {
    "conv1d": (lambda f, x, w: f.conv1d(x, w, padding=1), [(4, 9), (5, 4, 3)]),
    "conv2d": (lambda f, x, w, b: f.conv2d(x, w, b, 2, 1), [(4, 9, 7), (6, 4, 3, 3), (6,)]),
    "conv3d": (lambda f, x, w: f.conv3d(x, w), [(2, 4, 5, 6), (3, 2, 2, 3, 3)]),
    "conv_transpose1d": (lambda f, x, w: f.conv_transpose1d(x, w, None, 2), [(4, 6), (4, 3, 3)]),
    "conv_transpose2d": (lambda f, x, w: f.conv_transpose2d(x, w, None, 2), [(4, 5, 6), (4, 3, 3, 3)]),
    "conv_transpose3d": (lambda f, x, w: f.conv_transpose3d(x, w), [(2, 3, 4, 3), (2, 3, 2, 2, 2)]),
    "max_pool1d": (lambda f, x: f.max_pool1d(x, 2), [(3, 8)]),
    "max_pool2d": (lambda f, x: f.max_pool2d(x, 3, 2, 1), [(3, 8, 9)]),
    "max_pool3d": (lambda f, x: f.max_pool3d(x, 2), [(3, 4, 6, 5)]),
    "avg_pool1d": (lambda f, x: f.avg_pool1d(x, 2), [(3, 8)]),
    "avg_pool2d": (lambda f, x: f.avg_pool2d(x, 3, 2, 1), [(3, 8, 9)]),
    "avg_pool3d": (lambda f, x: f.avg_pool3d(x, 2), [(3, 4, 6, 5)]),
    "adaptive_avg_pool1d": (lambda f, x: f.adaptive_avg_pool1d(x, 3), [(3, 8)]),
    "adaptive_avg_pool2d": (lambda f, x: f.adaptive_avg_pool2d(x, (2, 3)), [(3, 8, 9)]),
    "adaptive_max_pool2d": (lambda f, x: f.adaptive_max_pool2d(x, (2, 3)), [(3, 8, 9)]),
    "adaptive_avg_pool3d": (lambda f, x: f.adaptive_avg_pool3d(x, 2), [(3, 4, 6, 5)]),
    "linear": (lambda f, x, w, b: f.linear(x, w, b), [(9,), (5, 9), (5,)]),
}


@pytest.mark.parametrize("name", ONE_ITEM)
def test_one_item_without_its_batch(name):
    function, shapes = ONE_ITEM[name]
    rng = np.random.default_rng(11)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    want = function(TF, *leaves)
    dy = rng.standard_normal(tuple(want.shape)).astype(np.float32)
    want.backward(torch.tensor(dy))
    y, pullback = fc.vjp(lambda *a: function(F, *a), *arrays)
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=1e-4, atol=1e-5)
    grads = pullback(dy)
    for grad, leaf in zip(grads if len(arrays) > 1 else [grads], leaves):
        np.testing.assert_allclose(grad, leaf.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(function(F, *arrays), y, rtol=1e-6)


def test_modules_and_indices_of_one_item():
    x = np.random.default_rng(12).standard_normal((4, 8, 6)).astype(np.float32)
    y, where = F.max_pool2d(x, 2, return_indices=True)
    want, theirs = TF.max_pool2d(torch.tensor(x), 2, return_indices=True)
    np.testing.assert_array_equal(where, theirs.numpy())
    np.testing.assert_array_equal(F.max_unpool2d(y, where, 2), TF.max_unpool2d(want, theirs, 2).numpy())
    layer, reference = nn.InstanceNorm2d(4), torch.nn.InstanceNorm2d(4)
    np.testing.assert_allclose(layer(x), reference(torch.tensor(x)).numpy(), rtol=1e-4, atol=1e-5)
    model = nn.Sequential(nn.Conv2d(4, 3, 3), nn.ReLU(), nn.MaxPool2d(2))
    np.testing.assert_allclose(model(x), model(x[None])[0], rtol=1e-5, atol=1e-6)
