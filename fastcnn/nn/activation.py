"""Activation layers: elementwise functions, and softmax. Shapes stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.init import skipping
from fastcnn.nn.module import Module, Parameter
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


@register
class ReLU6(Configured, Module):
    """min(max(x, 0), 6). `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("ReLU6", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.relu6(x)


@register
class Hardtanh(Configured, Module):
    """x between min_val and max_val, else the nearer one. `inplace` changes nothing."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val = check.number("Hardtanh", "min_val", min_val)
        self.max_val = check.number("Hardtanh", "max_val", max_val, self.min_val)
        self.inplace = check.flag("Hardtanh", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """The bounds."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


@register
class Hardsigmoid(Configured, Module):
    """min(max(x + 3, 0), 6) / 6. `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("Hardsigmoid", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.hardsigmoid(x)


@register
class Hardswish(Configured, Module):
    """x * hardsigmoid(x). `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("Hardswish", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.hardswish(x)


@register
class SiLU(Configured, Module):
    """x * sigmoid(x). `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("SiLU", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.silu(x)


@register
class Mish(Configured, Module):
    """x * tanh(softplus(x)). `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("Mish", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.mish(x)


@register
class SELU(Configured, Module):
    """scale * elu(x, alpha) with the self-normalising constants. `inplace` changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = check.flag("SELU", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.selu(x)


@register
class LogSigmoid(Configured, Module):
    """log(sigmoid(x))."""

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.logsigmoid(x)


@register
class Softsign(Configured, Module):
    """x / (1 + |x|)."""

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.softsign(x)


@register
class GELU(Configured, Module):
    """x * Phi(x), Phi the normal distribution function; approximate="tanh" is the formula with tanh."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = check.choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        """The formula."""
        return f"approximate={self.approximate!r}"


@register
class Softplus(Configured, Module):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = check.number("Softplus", "beta", beta, 1e-30)
        self.threshold = check.number("Softplus", "threshold", threshold)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


@register
class PReLU(Configured, Module):
    """x where positive, else weight * x, the weight learned: one, or one per channel (He et al., 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = check.integer("PReLU", "num_parameters", num_parameters, 1)
        self.init = check.number("PReLU", "init", init)
        start = 0.0 if skipping() else self.init
        self.weight = Parameter(np.full(self.num_parameters, start, np.float32))

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        return F.prelu(x, self.weight)

    def extra_repr(self) -> str:
        """The number of weights."""
        return f"num_parameters={self.num_parameters}"


@register
class LogSoftmax(Configured, Module):
    """Logarithm of softmax along dim."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = check.integer("LogSoftmax", "dim", dim)

    def forward(self, x: Any) -> Any:
        """x: any shape that has the dimension."""
        return F.log_softmax(x, self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"
