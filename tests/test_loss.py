"""Cross-entropy, dropout and the optimizers' kernels against the reference."""

import numpy as np
import pytest
import reference as ref
from test_ops import ISAS, isa, use_threads  # noqa: F401 - a fixture

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn, optim

EPS = np.finfo(np.float32).eps


@pytest.mark.parametrize("shape", [(1, 2), (5, 10), (64, 10), (17, 3), (3, 4, 2, 5)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted, smoothing", [(False, 0.0), (True, 0.0), (True, 0.3), (False, 0.1)])
def test_cross_entropy(shape, reduction, weighted, smoothing, isa):  # noqa: F811
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(shape) * 6).astype(np.float32)
    target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    if target.size > 2:
        target.flat[1] = -100
    weight = rng.uniform(0.5, 2, shape[1]).astype(np.float32) if weighted else None
    kwargs = dict(ignore_index=-100, reduction=reduction, label_smoothing=smoothing)
    want, dx = ref.cross_entropy(x.astype(np.float64), target, weight, **kwargs)
    loss, pullback = fc.vjp(lambda x: F.cross_entropy(x, target, weight, **kwargs), x)
    np.testing.assert_allclose(loss, want, rtol=32 * EPS, atol=64 * EPS)
    dy = np.ones(np.shape(want), np.float32) * 2
    np.testing.assert_allclose(pullback(dy), 2 * dx, rtol=64 * EPS, atol=64 * EPS)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2, 5)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted, smoothing", [(False, 0.0), (True, 0.0), (True, 0.3), (False, 1.0)])
def test_cross_entropy_with_probabilities(shape, reduction, weighted, smoothing):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    x = (rng.standard_normal(shape) * 4).astype(np.float32)
    target = rng.random(shape).astype(np.float32)
    target /= target.sum(1, keepdims=True)
    weight = rng.uniform(0.5, 2, shape[1]).astype(np.float32) if weighted else None
    options = dict(reduction=reduction, label_smoothing=smoothing)
    exact, soft = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, target))
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    want = torch.nn.functional.cross_entropy(exact, soft, w, **options)
    want.sum().backward()
    loss, pullback = fc.vjp(lambda x, t: F.cross_entropy(x, t, weight, **options), x, target)
    np.testing.assert_allclose(loss, want.detach().numpy(), rtol=64 * EPS, atol=64 * EPS)
    dx, dt = pullback(np.ones(np.shape(loss), np.float32))
    np.testing.assert_allclose(dx, exact.grad.numpy(), rtol=64 * EPS, atol=64 * EPS)
    np.testing.assert_allclose(dt, soft.grad.numpy(), rtol=64 * EPS, atol=64 * EPS)
    layer = nn.CrossEntropyLoss(weight, **options)
    np.testing.assert_array_equal(layer(x, target), F.cross_entropy(x, target, weight, **options))


def test_probabilities_are_refused_where_they_mean_nothing():
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match=r"ignore_index \(1\) is for class indices"):
        F.cross_entropy(x, x, ignore_index=1)
    with pytest.raises(ValueError, match="label_smoothing must be in"):
        F.cross_entropy(x, x, label_smoothing=2.0)
    with pytest.raises(TypeError, match=r"or probabilities of shape \(2, 3\), got float32 \(2,\)"):
        F.cross_entropy(x, x[:, 0])


def test_cross_entropy_of_extreme_logits():
    x = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], np.float32)
    loss, pullback = fc.vjp(lambda x: F.cross_entropy(x, np.array([1, 1])), x)
    assert loss == 1e4 and np.isfinite(pullback(np.float32(1))).all()


def test_cross_entropy_without_a_valid_target_is_nan():
    assert np.isnan(F.cross_entropy(np.ones((2, 3), np.float32), np.array([-100, -100])))


@pytest.mark.parametrize("target", [[3, 0], [-1, 0]])
def test_cross_entropy_names_a_wrong_target(target):
    with pytest.raises(ValueError, match=rf"target {target[0]} .*0 to 2"):
        F.cross_entropy(np.zeros((2, 3), np.float32), np.array(target))


def test_dropout_keeps_the_right_share_and_scale(isa):  # noqa: F811
    x = np.ones((50, 20, 10, 10), np.float32)
    fc.manual_seed(1)
    y = F.dropout(x, 0.3)
    kept = y != 0
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.21 / x.size)
    np.testing.assert_allclose(y[kept], 1 / 0.7, rtol=2 * EPS)
    assert np.ptp(kept.mean((1, 2, 3))) < 0.1, "images share a pattern"
    assert (F.dropout(x, 0.3, training=False) == x).all()


def test_dropout_mask_is_the_same_in_every_layout_isa_and_thread_count(monkeypatch):
    from fastcnn import _core
    from fastcnn.graph import passes
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol

    x = np.random.default_rng(0).standard_normal((19, 5, 6, 7)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((5, 5, 1, 1)).astype(np.float32)
    masks = set()
    for name in ISAS:
        _core.select_isa(name)
        for layout in ("lanes_c", "lanes_n"):
            for threads in (1, 2):
                monkeypatch.setattr(passes, "choose_layout", lambda *_, layout=layout: layout)
                use_threads(monkeypatch, threads)
                sx, sw = Symbol(x.shape), Symbol(w.shape)
                program = Program([sx, sw], [F.dropout(F.conv2d(sx, sw), 0.5)])
                masks.add((program.forward([x, w], 1234)[0] != 0).tobytes())
    assert len(masks) == 1


def test_dropout_gradient_uses_the_mask_of_its_forward_run():
    x = np.ones((4, 3, 8, 8), np.float32)
    y, pullback = fc.vjp(lambda x: F.dropout(x, 0.4), x)
    np.testing.assert_array_equal(pullback(np.ones_like(y)), y)
    np.testing.assert_array_equal(pullback(np.ones_like(y)), y)


@pytest.mark.parametrize("kwargs", [
    dict(lr=0.1), dict(lr=0.1, momentum=0.9), dict(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    dict(lr=0.05, momentum=0.8, dampening=0.5),
])  # fmt: skip
def test_sgd(kwargs, isa):  # noqa: F811
    rng = np.random.default_rng(0)
    p = nn.Parameter(rng.standard_normal(37).astype(np.float32))
    sgd, want, buf = optim.SGD([p], **kwargs), p.numpy().astype(np.float64), None
    for _ in range(4):
        g = rng.standard_normal(37).astype(np.float32)
        p.grad = g
        sgd.step()
        want, buf = ref.sgd(want, g.astype(np.float64), buf, **kwargs)
    np.testing.assert_allclose(p.numpy(), want, rtol=16 * EPS, atol=16 * EPS)


@pytest.mark.parametrize("kind, weight_decay", [("Adam", 0.0), ("Adam", 0.1), ("AdamW", 0.1)])
def test_adam(kind, weight_decay, isa):  # noqa: F811
    rng = np.random.default_rng(0)
    p = nn.Parameter(rng.standard_normal(37).astype(np.float32))
    adam = getattr(optim, kind)([p], lr=0.01, weight_decay=weight_decay)
    want, m, v = p.numpy().astype(np.float64), 0.0, 0.0
    for step in range(1, 6):
        g = rng.standard_normal(37).astype(np.float32)
        p.grad = g
        adam.step()
        want, m, v = ref.adam(
            want, g.astype(np.float64), m, v, step, lr=0.01, weight_decay=weight_decay, decoupled=kind == "AdamW"
        )
    np.testing.assert_allclose(p.numpy(), want, rtol=32 * EPS, atol=32 * EPS)
