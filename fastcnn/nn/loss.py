"""Losses: modules called as loss(output, target)."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register

REDUCTIONS = ("mean", "sum", "none")


@register
class CrossEntropyLoss(Configured, Module):
    """Cross-entropy of logits [N, C] (or [N, C, ...]) with class indices [N] (or [N, ...]), softmax included; or with
    probabilities of the classes, floats of the logits' shape.

    weight: one factor per class, [C], or None. Targets equal to ignore_index do not count. "mean" divides by the sum of
    the weights of the targets that count; for probabilities, by their number. TypeError or ValueError for what is
    not allowed.
    """

    weight: Any

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        name = "CrossEntropyLoss"
        if weight is None:
            self.weight = None
        else:
            array = np.array(weight, dtype=np.float32)
            if array.ndim != 1:
                raise ValueError(f"{name}: weight must be one number per class, got an array of shape {array.shape}")
            self.register_buffer("weight", array)
        self.ignore_index = check.integer(name, "ignore_index", ignore_index)
        self.reduction = check.choice(name, "reduction", reduction, REDUCTIONS)
        self.label_smoothing = check.number(name, "label_smoothing", label_smoothing, 0, 1)

    def forward(self, input: Any, target: Any) -> Any:
        """input: logits [N, C, ...]; target: class indices [N, ...], or probabilities [N, C, ...]."""
        return F.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )

    def _config_value(self, name: str) -> Any:
        if name == "weight" and self.weight is not None:
            return np.asarray(self.state_dict()["weight"]).tolist()
        return super()._config_value(name)

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        parts = []
        if self.ignore_index != -100:
            parts.append(f"ignore_index={self.ignore_index}")
        if self.reduction != "mean":
            parts.append(f"reduction={self.reduction!r}")
        if self.label_smoothing:
            parts.append(f"label_smoothing={self.label_smoothing}")
        return ", ".join(parts)


class _Loss(Configured, Module):
    """A loss of input and target of one shape: "mean" over all elements, their "sum", or "none": each."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check.choice(type(self).__name__, "reduction", reduction, REDUCTIONS)

    def extra_repr(self) -> str:
        """What differs from the default."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


@register
class MSELoss(_Loss):
    """(input - target)^2; both of one shape."""

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.mse_loss(input, target, self.reduction)


@register
class L1Loss(_Loss):
    """|input - target|; both of one shape."""

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.l1_loss(input, target, self.reduction)


@register
class SmoothL1Loss(_Loss):
    """(input - target)^2 / (2 beta) up to a distance of beta, distance - beta / 2 beyond."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = check.number("SmoothL1Loss", "beta", beta, 0)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


@register
class HuberLoss(_Loss):
    """(input - target)^2 / 2 up to a distance of delta, delta * (distance - delta / 2) beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = check.number("HuberLoss", "delta", delta, 1e-30)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.huber_loss(input, target, self.reduction, self.delta)


class _Weighted(_Loss):
    """A loss with factors, arrays that are broadcast to the input, kept as buffers."""

    def _factor(self, name: str, value: Any) -> None:
        if value is None:
            setattr(self, name, None)
        else:
            self.register_buffer(name, np.array(value, dtype=np.float32))

    def _config_value(self, name: str) -> Any:
        value = getattr(self, name)
        return value.numpy().tolist() if name in ("weight", "pos_weight") and value is not None else value


@register
class BCEWithLogitsLoss(_Weighted):
    """Binary cross-entropy of sigmoid(input) with target in [0, 1]; pos_weight multiplies the positive part."""

    weight: Any
    pos_weight: Any

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self._factor("weight", weight)
        self._factor("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


@register
class BCELoss(_Weighted):
    """Binary cross-entropy of probabilities input with target in [0, 1]."""

    weight: Any

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._factor("weight", weight)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


@register
class NLLLoss(_Weighted):
    """-input[n, target[n]] of log-probabilities input [N, C, ...] with class indices target [N, ...]; weight [C]."""

    weight: Any

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._factor("weight", weight)
        self.ignore_index = check.integer("NLLLoss", "ignore_index", ignore_index)

    def forward(self, input: Any, target: Any) -> Any:
        """input: [N, C, ...]; target: [N, ...]."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


@register
class KLDivLoss(_Loss):
    """target * (log(target) - input) of log-probabilities input; log_target: target is given as its logarithm."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        Module.__init__(self)
        self.reduction = check.choice("KLDivLoss", "reduction", reduction, (*REDUCTIONS, "batchmean"))
        self.log_target = check.flag("KLDivLoss", "log_target", log_target)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.kl_div(input, target, self.reduction, self.log_target)


@register
class GaussianNLLLoss(_Loss):
    """(log(v) + (input - target)^2 / v) / 2, v = max(var, eps): called as loss(input, target, var)."""

    def __init__(self, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = check.flag("GaussianNLLLoss", "full", full)
        self.eps = check.number("GaussianNLLLoss", "eps", eps, 1e-30)

    def forward(self, input: Any, target: Any, var: Any) -> Any:
        """input, target: the same shape; var: broadcast to it."""
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


@register
class DiceLoss(Configured, Module):
    """1 - (2 * sum(input * target) + smooth) / (sum(input) + sum(target) + smooth), the mean over the batch."""

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = check.number("DiceLoss", "smooth", smooth, 0)

    def forward(self, input: Any, target: Any) -> Any:
        """input: probabilities; target: 0 and 1, the same shape."""
        return F.dice_loss(input, target, self.smooth)
