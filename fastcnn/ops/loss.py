"""Losses: softmax cross-entropy with its gradient in one kernel. (The squared error is built from arithmetic.)"""

from __future__ import annotations

from ..graph.lower import LANES_N, PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float

REDUCTIONS = ("none", "mean", "sum")  # in the order of kernels.def


def check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f'{op}: reduction must be "mean", "sum" or "none", got {reduction!r}')


class CrossEntropy(Op):
    """inputs logits (n, c, ...), target int64 (n, ...), optionally weight[c].

    Outputs: each item's loss (n, ...), already divided by the normaliser for reduction mean, and its gradient with
    respect to the logits.
    """

    name = "cross_entropy"

    def infer(self, inputs, attrs):
        x, target = inputs[:2]
        check_float("cross_entropy", "logits", x)
        if len(x.shape) < 2:
            raise ValueError(f"cross_entropy: logits must have shape (N, C, ...), got {x.shape}")
        if target.shape != (x.shape[0], *x.shape[2:]):
            raise ValueError(
                f"cross_entropy: target must have shape {(x.shape[0], *x.shape[2:])} for logits {x.shape}, "
                f"got {target.shape}"
            )
        if target.dtype != "int64":
            raise TypeError(
                f"cross_entropy: target must be class indices (integers), or probabilities of shape {x.shape}, "
                f"got {target.dtype} {target.shape}"
            )
        if len(inputs) > 2 and inputs[2].shape != (x.shape[1],):
            raise ValueError(f"cross_entropy: weight must have shape ({x.shape[1]},), got {inputs[2].shape}")
        check_reduction("cross_entropy", attrs["reduction"])
        if not 0 <= attrs["label_smoothing"] <= 1:
            raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {attrs['label_smoothing']}")
        return [(target.shape, "float32"), (x.shape, "float32")]

    def grad(self, node, douts, needs):
        if needs[2:3] == [True]:
            raise NotImplementedError(
                "cross_entropy: no gradient with respect to the class weights; use nll_loss for one"
            )
        return [add_node(OPS["scale_items"], [node.outputs[1], douts[0]]), None, None]

    def lower(self, node, b):
        x = b.get(node.inputs[0], LANES_N, dense=True)
        target = b.get(node.inputs[1], PLAIN)
        weight = b.get(node.inputs[2], PLAIN) if len(node.inputs) > 2 else None
        loss = b.out(node.outputs[0], PLAIN)
        dx = b.out(node.outputs[1], LANES_N)
        b.emit(
            "cross_entropy",
            x.floats * 10.0,
            x=x.at(),
            target=target.at(),
            weight=weight.at() if weight else None,
            loss=loss.at(),
            dx=dx.at(),
            images=x.images,
            c=x.c,
            inner=x.sc // b.vw,
            ignore_index=node.attrs["ignore_index"],
            reduction=REDUCTIONS.index(node.attrs["reduction"]),
            label_smoothing=node.attrs["label_smoothing"],
        )


class ScaleItems(Op):
    """The gradient of each item's loss times the gradient that reached the item."""

    name = "scale_items"

    def infer(self, inputs, attrs):
        return [(inputs[0].shape, "float32")]

    def lower(self, node, b):
        fill = node.inputs[1].node
        if fill is not None and fill.op.name == "fill_like" and _is_one(fill):
            b.stored[node.outputs[0].id] = {LANES_N: b.get(node.inputs[0], LANES_N, dense=True)}
            return
        x, s = b.get(node.inputs[0], LANES_N, dense=True), b.get(node.inputs[1], PLAIN, dense=True)
        y = b.out(node.outputs[0], LANES_N)
        b.emit("scale_items", x.floats, x=x.at(), s=s.at(), y=y.at(), images=x.images, c=x.c, inner=x.sc // b.vw)


def _is_one(fill) -> bool:
    """The gradient of a program's own loss: one for every item."""
    array = fill.inputs[0].array
    return fill.attrs["alpha"] == 1 and array is not None and array.size == 1 and float(array) == 1
