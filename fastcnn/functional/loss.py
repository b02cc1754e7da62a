"""Losses."""

from __future__ import annotations

import math

import numpy as np

from ..graph.trace import add_node, leaf
from ..ops import OPS
from ..ops.loss import check_reduction
from ..ops.shape import reduce_sum
from ..ops.shape import transpose as _transpose
from .activation import log_softmax, map_
from .call import operation


@operation("logits", "target", "weight")
def cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy of softmax(logits) (N, C, ...) with target: class indices (N, ...), integers in [0, C), or
    floats of the logits' shape, the probabilities of the classes.

    "mean" divides by the sum of the weights of the targets that count; for probabilities, by their number.
    """
    check_reduction("cross_entropy", reduction)
    if target.dtype == "float32" and target.shape == logits.shape and logits.ndim > 1:
        return _soft_cross_entropy(logits, target, weight, ignore_index, reduction, float(label_smoothing))
    inputs = [logits, target] + ([weight] if weight is not None else [])
    loss, _ = add_node(
        OPS["cross_entropy"],
        inputs,
        ignore_index=int(ignore_index),
        reduction=reduction,
        label_smoothing=float(label_smoothing),
    )
    return loss if reduction == "none" else add_node(OPS["sum_all"], [loss], alpha=1.0)


def _soft_cross_entropy(logits, target, weight, ignore_index, reduction, label_smoothing):
    classes = logits.shape[1]
    if ignore_index >= 0:
        raise ValueError(f"cross_entropy: ignore_index ({ignore_index}) is for class indices, not for probabilities")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing}")
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"cross_entropy: weight must have shape ({classes},), got {weight.shape}")
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        target = target * add_node(OPS["reshape"], [weight], shape=(1, classes, *[1] * (logits.ndim - 2)))
    shape = (logits.shape[0], *logits.shape[2:])
    loss = -add_node(OPS["reshape"], [reduce_sum(target * log_softmax(logits, 1), [1])], shape=shape)
    return _reduced("cross_entropy", loss, reduction)


def _same(op, x, target):
    if x.shape != target.shape:
        raise ValueError(f"{op}: input {x.shape} and target {target.shape} must have one shape")


def _reduced(op, loss, reduction):
    check_reduction(op, reduction)
    if reduction == "none":
        return loss
    return add_node(OPS["sum_all"], [loss], alpha=1.0 / loss.size if reduction == "mean" else 1.0)


@operation("x", "target")
def mse_loss(x, target, reduction="mean"):
    """Squared difference of two arrays of one shape."""
    _same("mse_loss", x, target)
    return _reduced("mse_loss", map_(x - target, "square"), reduction)


@operation("x", "target")
def l1_loss(x, target, reduction="mean"):
    """Absolute difference of two arrays of one shape."""
    _same("l1_loss", x, target)
    return _reduced("l1_loss", map_(x - target, "abs"), reduction)


def _huber(x, target, bound):
    """d^2 / 2 up to a distance d of `bound`, bound * (d - bound / 2) beyond (Huber, 1964)."""
    distance = map_(x - target, "abs")
    near = map_(distance, "clamp", 0.0, bound)
    return near * (distance - near * 0.5)


@operation("x", "target")
def huber_loss(x, target, reduction="mean", delta=1.0):
    """Half the squared difference up to `delta`, delta * (difference - delta / 2) beyond."""
    _same("huber_loss", x, target)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be > 0, got {delta}")
    return _reduced("huber_loss", _huber(x, target, delta), reduction)


@operation("x", "target")
def smooth_l1_loss(x, target, reduction="mean", beta=1.0):
    """huber_loss with delta=beta, over beta; beta 0 is l1_loss."""
    _same("smooth_l1_loss", x, target)
    if not beta >= 0:
        raise ValueError(f"smooth_l1_loss: beta must be >= 0, got {beta}")
    loss = map_(x - target, "abs") if beta == 0 else _huber(x, target, beta) * (1 / beta)
    return _reduced("smooth_l1_loss", loss, reduction)


@operation("x", "target", "weight", "pos_weight")
def binary_cross_entropy_with_logits(x, target, weight=None, reduction="mean", pos_weight=None):
    """-(pos_weight * t * log(s) + (1 - t) * log(1 - s)) * weight for s = sigmoid(x), without its overflow."""
    _same("binary_cross_entropy_with_logits", x, target)
    positive = map_(-x, "softplus", 1, math.inf)  # -log(s)
    if pos_weight is None:
        loss = positive + (1.0 - target) * x
    else:
        loss = (1.0 - target) * x + (1.0 + (pos_weight - 1.0) * target) * positive
    return _reduced("binary_cross_entropy_with_logits", loss if weight is None else loss * weight, reduction)


@operation("x", "target", "weight")
def binary_cross_entropy(x, target, weight=None, reduction="mean"):
    """-(t * log(x) + (1 - t) * log(1 - x)) * weight for probabilities x; logarithms are at least -100."""
    _same("binary_cross_entropy", x, target)
    yes, no = (map_(map_(p, "log"), "clamp", -100.0, math.inf) for p in (x, 1.0 - x))
    loss = -(target * yes + (1.0 - target) * no)
    return _reduced("binary_cross_entropy", loss if weight is None else loss * weight, reduction)


@operation("x", "target")
def kl_div(x, target, reduction="mean", log_target=False):
    """target * (log(target) - x) for log-probabilities x; with log_target the target is given as its logarithm.

    reduction: "mean" (over elements), "batchmean" (the sum over the first dimension's size), "sum" or "none".
    """
    _same("kl_div", x, target)
    if log_target:
        loss = map_(target, "exp") * (target - x)
    else:
        loss = target * (map_(map_(target, "clamp", 1e-37, math.inf), "log") - x)
    if reduction == "batchmean":
        return add_node(OPS["sum_all"], [loss], alpha=1.0 / x.shape[0])
    return _reduced("kl_div", loss, reduction)


@operation("x", "target", "var")
def gaussian_nll_loss(x, target, var, full=False, eps=1e-6, reduction="mean"):
    """(log(v) + (x - target)^2 / v) / 2 for v = max(var, eps); full adds log(2 pi) / 2 (Nix and Weigend, 1994).

    var: of the input's shape, or without its last dimension or with 1 there: one for all of an item's outputs. Its
    gradient is that of v, also where it is below eps.
    """
    _same("gaussian_nll_loss", x, target)
    if not eps > 0:
        raise ValueError(f"gaussian_nll_loss: eps must be > 0, got {eps}")
    one = (*x.shape[:-1], 1)
    if var.shape not in (x.shape, x.shape[:-1], one):
        raise ValueError(f"gaussian_nll_loss: var must have shape {x.shape}, {x.shape[:-1]} or {one}, got {var.shape}")
    if var.shape != x.shape:
        var = add_node(OPS["reshape"], [var], shape=one)
    variance = add_node(OPS["map"], [var], kind="clamp", alpha=float(eps), beta=math.inf, straight=True)
    loss = (map_(variance, "log") + map_(x - target, "square") / variance) * 0.5
    return _reduced("gaussian_nll_loss", loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


@operation("x", "target", "weight")
def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    """-x[n, target[n]] for log-probabilities x (N, C, ...) and class indices target (N, ...), times weight[target[n]].

    "mean" divides by the sum of those weights; targets equal to ignore_index do not count.
    """
    check_reduction("nll_loss", reduction)
    if x.ndim < 2 or target.shape != (x.shape[0], *x.shape[2:]):
        raise ValueError(
            f"nll_loss: target must have shape {(x.shape[0], *x.shape[2:])} for input {x.shape}, got {target.shape}"
        )
    if target.dtype != "int64":
        raise TypeError(f"nll_loss: target must be class indices (integers), got {target.dtype}")
    classes, items = x.shape[1], target.size
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"nll_loss: weight must have shape ({classes},), got {weight.shape}")
    order = (0, *range(2, x.ndim), 1)
    scores = add_node(OPS["reshape"], [_transpose(x, order) if x.ndim > 2 else x], shape=(items, 1, classes))
    if weight is None:
        weight = leaf(np.ones(classes, np.float32))
    weights = add_node(OPS["reshape"], [weight], shape=(1, 1, classes))
    weights = add_node(OPS["expand"], [weights], shape=(items, 1, classes))
    index = add_node(OPS["reshape"], [target], shape=(items, 1, 1))
    attrs = dict(spatial=(1,), classes=classes, ignore_index=int(ignore_index), name="nll_loss")
    picked, counted = (add_node(OPS["gather"], [v, index], **attrs) for v in (scores, weights))
    loss = -(picked * counted)
    if reduction == "none":
        return add_node(OPS["reshape"], [loss], shape=target.shape)
    total = add_node(OPS["sum_all"], [loss], alpha=1.0)
    if reduction == "sum":
        return total
    count = add_node(OPS["sum_all"], [counted], alpha=1.0)
    # where nothing counts, NaN, as PyTorch, but with a gradient of 0 rather than NaN
    return total / map_(count, "clamp", 1e-37, math.inf) + (count / count - 1.0)


@operation("x", "target")
def dice_loss(x, target, smooth=1.0):
    """1 - (2 * sum(x * target) + smooth) / (sum(x) + sum(target) + smooth), the mean over the items of the batch.

    x: probabilities; target: 0 and 1, of the same shape (Milletari et al., 2016, with plain sums).
    """
    _same("dice_loss", x, target)
    axes = tuple(range(1, x.ndim))
    overlap, ours, theirs = (reduce_sum(v, axes) for v in (x * target, x, target))
    ratio = (overlap * 2.0 + smooth) / (ours + theirs + smooth)
    return 1.0 - add_node(OPS["sum_all"], [ratio], alpha=1.0 / ratio.size)
