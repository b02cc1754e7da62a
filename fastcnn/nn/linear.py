"""Fully connected layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check, init
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.registry import Configured, register


@register
class Linear(Configured, Module):
    """y = x W^T + b: [..., in_features] -> [..., out_features].

    weight: [out_features, in_features]; bias: [out_features] or None; both start uniform in +-1/sqrt(in_features).
    TypeError or ValueError for arguments that are not allowed.
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = check.integer("Linear", "in_features", in_features, 1)
        self.out_features = check.integer("Linear", "out_features", out_features, 1)
        self.weight = Parameter(np.zeros((self.out_features, self.in_features), np.float32))
        has_bias = check.flag("Linear", "bias", bias)
        self.bias = Parameter(np.zeros(self.out_features, np.float32)) if has_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        init.reset(self.weight, self.bias)

    def forward(self, x: Any) -> Any:
        """x: [..., in_features]."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
