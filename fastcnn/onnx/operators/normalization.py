"""Normalisations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ... import functional as F
from ...functional.normalization import channel_norm
from ...nn.module import Buffer
from ...ops.shape import reduce_sum
from .call import Call, operator


@operator("BatchNormalization")
def _batch_norm(call: Call, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    call.only(spatial=1)
    eps, momentum = call.get("epsilon", 1e-5), call.get("momentum", 0.9)
    moves = call.training and not any(call.wanted[1:])  # as without training_mode: the statistics are moved in place
    if call.get("training_mode", 0) and not moves:  # the file's own: the moved statistics are outputs
        y, batch_mean, batch_var = channel_norm(x, None, None, weight, bias, eps)
        moved = [old * momentum + new * (1 - momentum) for old, new in ((mean, batch_mean), (var, batch_var))]
        return y, *moved
    if not call.training:
        return channel_norm(x, mean, var, weight, bias, eps)[0]
    state = [call.raw[3], call.raw[4]]
    if not all(isinstance(s, Buffer) for s in state):
        return channel_norm(x, None, None, weight, bias, eps)[0]
    running = (state[0].storage, state[1].storage, np.zeros((), np.int64), np.array([1 - momentum]))
    return channel_norm(x, None, None, weight, bias, eps, running)[0]


@operator("InstanceNormalization")
def _instance_norm(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    return F.instance_norm(x, None, None, weight, bias, eps=call.get("epsilon", 1e-5))


@operator("GroupNormalization")
def _group_norm(call: Call, x: Any, weight: Any, bias: Any) -> Any:
    groups, eps = call.need("num_groups"), call.get("epsilon", 1e-5)
    if call.opset >= 21:
        return F.group_norm(x, groups, weight, bias, eps)
    y = F.reshape(F.group_norm(x, groups, None, None, eps), (x.shape[0], groups, x.size // (x.shape[0] * groups)))
    weight, bias = (F.reshape(v, (1, groups, 1)) for v in (weight, bias))  # one number per group until opset 20
    return F.reshape(y * weight + bias, x.shape)


def _moments(x: Any, axes: list[int], eps: float) -> tuple[Any, Any, Any]:
    """x less its mean, the mean, 1 / sqrt(variance + eps)."""
    part = 1.0 / math.prod(x.shape[a] for a in axes)
    mean = reduce_sum(x, axes, part)
    centred = x - mean
    return centred, mean, 1.0 / F.sqrt(reduce_sum(F.square(centred), axes, part) + eps)


@operator("LayerNormalization")
def _layer_norm(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    axes, eps = list(range(call.axis(call.get("axis", -1), x.ndim), x.ndim)), call.get("epsilon", 1e-5)
    if not any(call.wanted[1:]) and tuple(weight.shape) == x.shape[axes[0] :]:
        return F.layer_norm(x, x.shape[axes[0] :], weight, bias, eps)
    centred, mean, scale = _moments(x, axes, eps)
    y = centred * scale * weight
    return (y if bias is None else y + bias), mean, scale


@operator("RMSNormalization")
def _rms_norm(call: Call, x: Any, weight: Any) -> Any:
    axes = list(range(call.axis(call.get("axis", -1), x.ndim), x.ndim))
    mean = reduce_sum(F.square(x), axes, 1.0 / math.prod(x.shape[a] for a in axes))
    return x / F.sqrt(mean + call.get("epsilon", 1e-5)) * weight


@operator("MeanVarianceNormalization")
def _mean_variance(call: Call, x: Any) -> Any:
    axes = [call.axis(a, x.ndim) for a in call.get("axes", [0, 2, 3])]
    part = 1.0 / math.prod(x.shape[a] for a in axes)
    centred = x - reduce_sum(x, axes, part)
    return centred / (F.sqrt(reduce_sum(F.square(centred), axes, part)) + 1e-9)


@operator("LpNormalization")
def _lp_normalization(call: Call, x: Any) -> Any:
    axes = [call.axis(call.get("axis", -1), x.ndim)]
    if call.get("p", 2) == 1:
        length = reduce_sum(F.abs(x), axes)
    else:
        length = F.sqrt(reduce_sum(F.square(x), axes))
    return x / F.clamp(length, float(np.finfo(np.float32).tiny), math.inf)


@operator("LRN")
def _local_response(call: Call, x: Any) -> Any:
    if call.need("size") % 2 == 0:
        raise ValueError(f"{call.place}: size={call.get('size')} is not supported, only odd ones")
    return F.local_response_norm(
        x, call.need("size"), call.get("alpha", 1e-4), call.get("beta", 0.75), call.get("bias", 1.0)
    )
