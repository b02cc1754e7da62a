"""Dropout."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, register


@register
class Dropout(Configured, Module):
    """While training, sets each element to 0 with probability p and divides the rest by 1 - p; else the identity.

    The masks follow fastcnn.manual_seed and do not depend on the number of threads. `inplace` changes nothing.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        self.p = check.number("Dropout", "p", p, 0, 1)
        self.inplace = check.flag("Dropout", "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


class _ChannelDropout(Configured, Module):
    """While training, sets each channel of [N, C, ...] to 0 with probability p and divides the rest by 1 - p."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        name = type(self).__name__
        self.p = check.number(name, "p", p, 0, 1)
        self.inplace = check.flag(name, "inplace", inplace)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        return F.dropout2d(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}, inplace={self.inplace}"


@register
class Dropout1d(_ChannelDropout):
    """Dropout of whole channels of [N, C, L]."""


@register
class Dropout2d(_ChannelDropout):
    """Dropout of whole channels of [N, C, H, W]."""


@register
class Dropout3d(_ChannelDropout):
    """Dropout of whole channels of [N, C, D, H, W]."""


@register
class StochasticDepth(Configured, Module):
    """While training, sets x to 0 with probability p, else divides it by 1 - p; for the branch of a residual block.

    mode "batch": x as a whole; "row": each of its items.
    """

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = check.number("StochasticDepth", "p", p, 0, 1)
        self.mode = check.choice("StochasticDepth", "mode", mode, ("batch", "row"))

    def forward(self, x: Any) -> Any:
        """x: any shape with the batch first."""
        return F.stochastic_depth(x, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"p={self.p}, mode={self.mode!r}"
