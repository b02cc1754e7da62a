"""Losses."""

from __future__ import annotations

from typing import Any

from ... import functional as F
from ...graph.trace import Symbol, leaf
from .call import Call, operator


def _nll(call: Call, log_probabilities: Any, target: Any, weight: Any) -> Any:
    target = target if isinstance(target, Symbol) else leaf(target)
    reduction, ignored = call.get("reduction", "mean"), call.get("ignore_index", -100)
    return F.nll_loss(log_probabilities, target, weight, ignored, reduction)


@operator("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(call: Call, x: Any, target: Any, weight: Any = None) -> Any:
    return _nll(call, x, target, weight)


@operator("SoftmaxCrossEntropyLoss")
def _softmax_cross_entropy(call: Call, x: Any, target: Any, weight: Any = None) -> Any:
    scores = F.log_softmax(x, 1)
    return _nll(call, scores, target, weight), scores
