"""Losses."""

from __future__ import annotations

from ..graph.trace import add_node
from ..ops import OPS
from ..ops.loss import check_reduction
from .call import operation


@operation("logits", "target", "weight")
def cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy of softmax(logits) (N, C, ...) with class indices target (N, ...), integers in [0, C)."""
    inputs = [logits, target] + ([weight] if weight is not None else [])
    check_reduction("cross_entropy", reduction)
    loss, _ = add_node(
        OPS["cross_entropy"],
        inputs,
        ignore_index=int(ignore_index),
        reduction=reduction,
        label_smoothing=float(label_smoothing),
    )
    return loss if reduction == "none" else add_node(OPS["sum_all"], [loss], alpha=1.0)


@operation("x", "target")
def mse_loss(x, target, reduction="mean"):
    """Squared difference of two arrays of one shape."""
    check_reduction("mse_loss", reduction)
    if x.shape != target.shape:
        raise ValueError(f"mse_loss: input {x.shape} and target {target.shape} must have one shape")
    difference = x - target
    square = difference * difference
    if reduction == "none":
        return square
    return add_node(OPS["sum_all"], [square], alpha=1.0 / square.size if reduction == "mean" else 1.0)
