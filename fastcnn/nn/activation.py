"""Activation layers: elementwise functions, and softmax. Shapes stay as they are."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register


@register
class ReLU(Configured, Module):
    """max(x, 0). `inplace` is taken for PyTorch's sake and changes nothing: plans fuse and reuse memory anyway."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("ReLU", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.relu(x)


@register
class LeakyReLU(Configured, Module):
    """x where x > 0, negative_slope * x elsewhere. `inplace` changes nothing."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = check.number("LeakyReLU", "negative_slope", negative_slope)
        self.inplace = check.flag("LeakyReLU", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


@register
class ELU(Configured, Module):
    """x where x > 0, alpha * (exp(x) - 1) elsewhere. `inplace` changes nothing."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = check.number("ELU", "alpha", alpha)
        self.inplace = check.flag("ELU", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """The scale of the negative part."""
        return f"alpha={self.alpha}"


@register
class Sigmoid(Configured, Module):
    """1 / (1 + exp(-x))."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.sigmoid(x)


@register
class Tanh(Configured, Module):
    """tanh(x)."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.tanh(x)


@register
class Softmax(Configured, Module):
    """exp(x) / sum of exp(x) along `dim`. Not before CrossEntropyLoss, which takes logits."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check.integer("Softmax", "dim", dim)

    def forward(self, x: Any) -> Any:
        """x: any shape that has dimension `dim`."""
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"
