"""Parity with PyTorch: forward, gradients, ten training steps, weights both ways."""

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim

torch = pytest.importorskip("torch")
T = torch.nn.functional


def torch_model(name):
    t = torch.nn
    if name == "lenet5":
        layers = dict(conv1=t.Conv2d(1, 6, 5, padding=2), relu1=t.ReLU(), pool1=t.MaxPool2d(2), conv2=t.Conv2d(6, 16, 5),
                      relu2=t.ReLU(), pool2=t.MaxPool2d(2), flatten=t.Flatten(), fc1=t.Linear(400, 120),
                      relu3=t.ReLU(), fc2=t.Linear(120, 84), relu4=t.ReLU(), fc3=t.Linear(84, 10))  # fmt: skip
    else:
        layers = dict(conv1=t.Conv2d(1, 32, 3), relu1=t.ReLU(), pool1=t.MaxPool2d(2), conv2=t.Conv2d(32, 64, 3),
                      relu2=t.ReLU(), pool2=t.MaxPool2d(2), flatten=t.Flatten(), fc1=t.Linear(1600, 1024),
                      relu3=t.ReLU(), fc2=t.Linear(1024, 10))  # fmt: skip
    net = t.Sequential()
    for key, layer in layers.items():
        net.add_module(key, layer)
    return net


OPTIMIZERS = {
    "sgd": (lambda p: optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-3, nesterov=True)),
    "adam": (lambda p: optim.Adam(p, 1e-3, weight_decay=1e-2), lambda p: torch.optim.Adam(p, 1e-3, weight_decay=1e-2)),
    "adamw": (lambda p: optim.AdamW(p, 1e-3), lambda p: torch.optim.AdamW(p, 1e-3)),
}  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name, n", [("lenet5", 64), ("lenet5", 5), ("keras_cnn", 16)])
def test_ten_training_steps(name, n, optimizer):
    fc.set_conv_algorithm("direct")  # other rounding now and then moves a maximum to the pixel beside it
    torch.manual_seed(0)
    theirs, ours = torch_model(name), getattr(models, name)()
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    a, b = OPTIMIZERS[optimizer]
    our_opt, their_opt = a(ours.parameters()), b(theirs.parameters())
    step = fc.compile_step(ours, nn.CrossEntropyLoss(), our_opt)
    rng = np.random.default_rng(0)
    for _ in range(10):
        x, y = rng.standard_normal((n, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, n)
        loss = T.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y))
        their_opt.zero_grad()
        loss.backward()
        their_opt.step()
        np.testing.assert_allclose(step(x, y), loss.item(), rtol=2e-3 if optimizer != "sgd" else 2e-5)
    if optimizer == "sgd":  # Adam divides by gradients near zero: rounding moves such weights by whole steps
        for key, value in theirs.state_dict().items():
            np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-3, atol=2e-6)
    back = torch_model(name)
    back.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x = rng.standard_normal((n, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(ours.eval()(x), back(torch.from_numpy(x)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_random_convolutions_and_pools(seed):
    rng = np.random.default_rng(seed)
    n, groups = int(rng.integers(1, 20)), int(rng.choice([1, 1, 2, 3]))
    c, o = groups * int(rng.integers(1, 12)), groups * int(rng.integers(1, 12))
    h, w, kh, kw = *rng.integers(6, 15, 2), *rng.integers(1, 5, 2)
    stride, dilation, pad = (
        rng.integers(1, 4, 2).tolist(),
        rng.integers(1, 3, 2).tolist(),
        rng.integers(0, 3, 2).tolist(),
    )
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weight = rng.standard_normal((o, c // groups, kh, kw)).astype(np.float32)
    bias = rng.standard_normal(o).astype(np.float32)
    tx, tw, tb = (torch.from_numpy(a).requires_grad_() for a in (x, weight, bias))
    if dilation[0] * (kh - 1) >= h + 2 * pad[0] or dilation[1] * (kw - 1) >= w + 2 * pad[1]:
        dilation = [1, 1]
    want = T.conv2d(tx, tw, tb, stride, pad, dilation, groups)
    got, pullback = fc.vjp(lambda x, w, b: F.conv2d(x, w, b, stride, pad, dilation, groups), x, weight, bias)
    bound = np.finfo(np.float32).eps * (c * kh * kw + 8) * 16
    np.testing.assert_allclose(got, want.detach(), rtol=1e-5, atol=bound)
    dy = rng.standard_normal(got.shape).astype(np.float32)
    want.backward(torch.from_numpy(dy))
    for grad, t in zip(pullback(dy), (tx, tw, tb)):
        np.testing.assert_allclose(grad, t.grad, rtol=1e-4, atol=np.finfo(np.float32).eps * (dy.size + 8) * 16)
    kernel, pad = int(rng.integers(1, 5)), int(rng.integers(0, 2))
    pad, ceil_mode, step = min(pad, kernel // 2), bool(rng.integers(2)), int(rng.integers(1, 4))
    y, idx = F.max_pool2d(x, kernel, step, pad, ceil_mode=ceil_mode, return_indices=True)
    ty, ti = T.max_pool2d(torch.from_numpy(x), kernel, step, pad, ceil_mode=ceil_mode, return_indices=True)
    np.testing.assert_array_equal(y, ty)
    np.testing.assert_array_equal(idx, ti)
    include = bool(rng.integers(2))
    y = F.avg_pool2d(x, kernel, step, pad, ceil_mode, include)
    np.testing.assert_allclose(
        y, T.avg_pool2d(torch.from_numpy(x), kernel, step, pad, ceil_mode, include), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kwargs", [dict(), dict(reduction="sum"), dict(reduction="none"), dict(label_smoothing=0.2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(kwargs, weighted):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((9, 5, 3)).astype(np.float32), rng.integers(0, 5, (9, 3))
    y[0, 0] = -100
    weight = rng.random(5).astype(np.float32) if weighted else None
    tx = torch.from_numpy(x).requires_grad_()
    want = T.cross_entropy(tx, torch.from_numpy(y), torch.from_numpy(weight) if weighted else None, **kwargs)
    got, pullback = fc.vjp(lambda x: F.cross_entropy(x, y, weight, **kwargs), x)
    np.testing.assert_allclose(got, want.detach(), rtol=1e-5, atol=1e-6)
    want.sum().backward()
    np.testing.assert_allclose(pullback(np.ones(np.shape(got), np.float32)), tx.grad, rtol=1e-4, atol=1e-6)
