"""Normalisation."""

from __future__ import annotations

import math

import numpy as np

from ..graph.trace import Symbol, add_node, leaf
from ..ops import OPS
from ..ops import shape as _shape
from .activation import map_
from .call import dimension, operation
from .conv import conv2d


def channel_norm(x, mean, var, weight, bias, eps, running=None, layer="batch_norm"):
    """(x - mean) / sqrt(var + eps) * weight + bias per channel, of symbols. mean None: x's own moments, and `running`
    (see ops.norm.BatchNorm) is brought up to date. Returns (y, mean, var)."""
    training = mean is None
    if training:
        mean, var = add_node(OPS["batch_moments"], [x], layer=layer)
    affine: list = []
    if weight is not None or bias is not None:
        channels = x.shape[1]
        affine = [np.ones(channels) if weight is None else weight, np.zeros(channels) if bias is None else bias]
    mean, var, *affine = (v if isinstance(v, Symbol) else leaf(v) for v in (mean, var, *affine))
    y = add_node(
        OPS["batch_norm"],
        [x, mean, var, *affine],
        eps=float(eps),
        training=training,
        affine=bool(affine),
        running=running,
    )
    return y, mean, var


@operation("x", "mean", "var", "weight", "bias")
def _channel_norm(x, mean, var, weight, bias, eps):
    return channel_norm(x, mean, var, weight, bias, eps)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, ...) normalised per channel.

    training: with its own mean and biased variance, which move the arrays running_mean and running_var (unbiased),
    if given, by `momentum`, in place; else with running_mean and running_var.
    """
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: running_mean and running_var are needed where training is False")
    if not training:
        return _channel_norm(x, running_mean, running_var, weight, bias, eps)[0]
    y, mean, var = _channel_norm(x, None, None, weight, bias, eps)
    if running_mean is not None and not isinstance(x, Symbol):
        count = np.size(x) // np.shape(x)[1]
        for running, new in ((running_mean, np.asarray(mean)), (running_var, np.asarray(var) * (count / (count - 1)))):
            running[...] = (1 - momentum) * np.asarray(running) + momentum * new
    return y


def _standardize(x, axes, eps):
    """x minus its mean over axes, over the root of its (biased) variance plus eps."""
    count = math.prod(x.shape[a] for a in axes)
    centred = x - _shape.reduce_sum(x, axes, 1.0 / count)
    variance = _shape.reduce_sum(map_(centred, "square"), axes, 1.0 / count)
    return centred * (1.0 / map_(variance + eps, "sqrt"))


def _scaled(x, weight, bias, shape):
    """x * weight + bias, the two as `shape`; either may be None."""
    if weight is not None:
        x = x * add_node(OPS["reshape"], [weight], shape=shape)
    return x if bias is None else x + add_node(OPS["reshape"], [bias], shape=shape)


@operation("x", "weight", "bias")
def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """x with its last dimensions (of shape normalized_shape) brought to mean 0 and variance 1, times weight, plus bias
    (Ba et al., 2016)."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"layer_norm: the last dimensions of input {x.shape} must be normalized_shape {shape}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != shape:
            raise ValueError(f"layer_norm: {name} must have shape {shape}, got {value.shape}")
    return _scaled(_standardize(x, range(x.ndim - len(shape), x.ndim), eps), weight, bias, shape)


@operation("x", "weight", "bias")
def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """x (N, C, ...), each item's num_groups groups of channels brought to mean 0 and variance 1, times weight (C), plus
    bias (C) (Wu and He, 2018)."""
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ValueError(f"group_norm: num_groups ({num_groups}) must divide the channels of input {x.shape}")
    n, c = x.shape[:2]
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.shape != (c,):
            raise ValueError(f"group_norm: {name} must have shape ({c},), got {value.shape}")
    flat = add_node(OPS["reshape"], [x], shape=(n, num_groups, x.size // (n * num_groups)))
    y = add_node(OPS["reshape"], [_standardize(flat, (2,), eps)], shape=x.shape)
    return _scaled(y, weight, bias, (1, c, *[1] * (x.ndim - 2)))


def _spatial(x):
    """How many values a channel of an item of x (N, C, ...) has, at least 2."""
    if len(x.shape) < 3:
        raise ValueError(f"instance_norm: input must have at least 3 dimensions (N, C, ...), got shape {x.shape}")
    count = math.prod(x.shape[2:])
    if count < 2:
        raise ValueError(f"instance_norm: a channel needs more than 1 value to have a variance, got input {x.shape}")
    return count


def tracked_instance_norm(x, running, weight, bias, eps):
    """As instance_norm, of symbols; `running` (see ops.norm.TrackMoments) moves to the means over the items of their
    channels' means and unbiased variances."""
    (n, c), count = x.shape[:2], _spatial(x)
    flat = add_node(OPS["reshape"], [x], shape=(1, n * c, *x.shape[2:]))
    mean, var = add_node(OPS["batch_moments"], [flat], layer="instance_norm")
    items = (add_node(OPS["reshape"], [moment], shape=(n, c)) for moment in (mean, var))
    mean = add_node(OPS["track_moments"], [mean, *(_mean_of_items(m) for m in items)], running=running, count=count)
    y = add_node(OPS["batch_norm"], [flat, mean, var], eps=float(eps), training=True, affine=False, running=None)
    weight, bias = (None if v is None else v if isinstance(v, Symbol) else leaf(v) for v in (weight, bias))
    return _scaled(add_node(OPS["reshape"], [y], shape=x.shape), weight, bias, (1, c, *[1] * (x.ndim - 2)))


def _mean_of_items(moment):
    return add_node(OPS["reshape"], [_shape.reduce_sum(moment, [0], 1.0 / moment.shape[0])], shape=moment.shape[1:])


@operation("x", "running_mean", "running_var", "weight", "bias")
def _instance_norm(x, running_mean, running_var, weight, bias, eps):
    if running_mean is not None:
        return channel_norm(x, running_mean, running_var, weight, bias, eps)[0]
    _spatial(x)
    return group_norm(x, x.shape[1], weight, bias, eps)


def instance_norm(
    x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, eps=1e-5
):
    """x (N, C, ...), each item's channels brought to mean 0 and variance 1, times weight (C), plus bias (C)
    (Ulyanov et al., 2016).

    The arrays running_mean and running_var, if given, move by `momentum`, in place, to the means over the items of
    their channels' means and unbiased variances; with use_input_stats False they are used instead.
    """
    if (running_mean is None) != (running_var is None) or running_mean is None and not use_input_stats:
        raise ValueError("instance_norm: give running_mean and running_var both, or, with use_input_stats, neither")
    if not use_input_stats:
        return _instance_norm(x, running_mean, running_var, weight, bias, eps)
    y = _instance_norm(x, None, None, weight, bias, eps)
    if running_mean is not None and not isinstance(x, Symbol):
        values = np.asarray(x, np.float64).reshape(*np.shape(x)[:2], -1)
        for running, new in ((running_mean, values.mean(2)), (running_var, values.var(2, ddof=1))):
            running[...] = (1 - momentum) * np.asarray(running) + momentum * new.mean(0)
    return y


@operation("x")
def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    """x / (k + alpha * m)^beta, m the mean of x^2 over `size` neighbouring channels, zeros beyond the ends.

    Krizhevsky et al. (2012) take the sum for m: their alpha is PyTorch's over size.
    """
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"local_response_norm: size must be an int >= 1, got {size!r}")
    if x.ndim < 3:
        raise ValueError(f"local_response_norm: input must have at least 3 dimensions (N, C, ...), got {x.shape}")
    n, c = x.shape[:2]
    place = np.arange(c)
    near = place[None, :] - place[:, None]  # channel o sees channels o - size // 2 ... o + (size - 1) // 2
    window = ((near >= -(size // 2)) & (near <= (size - 1) // 2)).astype(np.float32).reshape(c, c, 1, 1)
    squares = add_node(OPS["reshape"], [map_(x, "square")], shape=(n, c, 1, x.size // (n * c)))
    sums = add_node(OPS["reshape"], [conv2d(squares, window)], shape=x.shape)
    return x * map_(map_(map_(sums * (alpha / size) + k, "log"), "scale", -beta), "exp")


@operation("x")
def normalize(x, p=2.0, dim=1, eps=1e-12):
    """x over its Euclidean norm along dim, at least eps."""
    if p != 2:
        raise ValueError(f"normalize: only p=2 is supported, got {p}")
    length = map_(_shape.reduce_sum(map_(x, "square"), [dimension("normalize", dim, x.ndim)]), "sqrt")
    return x / map_(length, "clamp", eps, math.inf)
