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
