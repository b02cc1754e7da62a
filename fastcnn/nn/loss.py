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
    """Cross-entropy of logits [N, C] (or [N, C, ...]) with class indices [N] (or [N, ...]), softmax included.

    weight: one factor per class, [C], or None. Targets equal to ignore_index do not count. "mean" divides by the sum of
    the weights of the targets that count. TypeError or ValueError for arguments that are not allowed.
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
        """input: logits [N, C, ...]; target: class indices [N, ...]."""
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


@register
class MSELoss(Configured, Module):
    """Mean (or sum, or each) of (input - target)^2; both of one shape."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = check.choice("MSELoss", "reduction", reduction, REDUCTIONS)

    def forward(self, input: Any, target: Any) -> Any:
        """input, target: the same shape."""
        return F.mse_loss(input, target, reduction=self.reduction)

    def extra_repr(self) -> str:
        """What differs from the default."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"
