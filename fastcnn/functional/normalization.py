"""Normalisation."""

from __future__ import annotations

import numpy as np

from ..graph.trace import Symbol, add_node, leaf
from ..ops import OPS
from .call import operation


def normalize(x, mean, var, weight, bias, eps, running=None, layer="batch_norm"):
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
def _normalize(x, mean, var, weight, bias, eps):
    return normalize(x, mean, var, weight, bias, eps)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """x (N, C, ...) normalised per channel.

    training: with its own mean and biased variance, which move the arrays running_mean and running_var (unbiased),
    if given, by `momentum`, in place; else with running_mean and running_var.
    """
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: running_mean and running_var are needed where training is False")
    if not training:
        return _normalize(x, running_mean, running_var, weight, bias, eps)[0]
    y, mean, var = _normalize(x, None, None, weight, bias, eps)
    if running_mean is not None and not isinstance(x, Symbol):
        count = np.size(x) // np.shape(x)[1]
        for running, new in ((running_mean, np.asarray(mean)), (running_var, np.asarray(var) * (count / (count - 1)))):
            running[...] = (1 - momentum) * np.asarray(running) + momentum * new
    return y
