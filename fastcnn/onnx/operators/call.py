"""One node of an ONNX graph while it is traced, and the table of operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...graph.trace import Symbol

OPERATORS: dict[str, Callable[..., Any]] = {}
# operators that take arrays as they are: where all inputs are arrays, the outputs are too
ON_ARRAYS = {"CastLike", "Flatten", "Reshape", "Shape", "Size", "Split", "Squeeze", "Unsqueeze"}
LONGEST = 1 << 20  # elements of a dimension that is resampled, each of which has its list of sources


def check_length(length: int, most: int = LONGEST) -> None:
    """ValueError if this is too long, or too short, for a dimension that is resampled."""
    if not 0 < length <= most:
        raise ValueError(f"a dimension of {length} elements; 1 to {most:,} are supported")


@dataclass
class Call:
    """An operator's attributes and circumstances. Operators take it and the inputs:
    Symbols, constant arrays or None."""

    kind: str
    name: str
    attributes: dict[str, Any]
    opset: int
    training: bool
    wanted: list[bool]  # which outputs something reads
    raw: list[Any] = field(default_factory=list)  # inputs as they are, parameters and buffers included

    @property
    def place(self) -> str:
        return f"node {self.name} ({self.kind}, opset {self.opset})"

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def need(self, name: str) -> Any:
        """An attribute that has no default."""
        if name not in self.attributes:
            raise ValueError(f"{self.place}: the attribute {name} is missing")
        return self.attributes[name]

    def numbers(self, name: str, count: int, default: int, least: int | None = None) -> tuple[int, ...]:
        """The integers of an attribute, of which there must be `count`, each at least `least`."""
        found = self.get(name) or [default] * count
        if not isinstance(found, list) or len(found) != count or not all(isinstance(v, int) for v in found):
            raise ValueError(f"{self.place}: {name} must be {count} integers, got {found!r}")
        if least is not None and min(found, default=least) < least:
            raise ValueError(f"{self.place}: {name} must be at least {least}, got {found}")
        return tuple(found)

    def only(self, **attributes: Any) -> None:
        """ValueError for an attribute of another value than the one given here, which is all that is supported."""
        for name, value in attributes.items():
            if self.get(name, value) != value:
                raise ValueError(f"{self.place}: {name}={self.get(name)!r} is not supported, only {value!r}")

    def constant(self, value: Any, what: str) -> np.ndarray:
        """The numbers of an input that must be known when the graph is built."""
        if isinstance(value, Symbol) or value is None:
            raise ValueError(f"{self.place}: {what} must be a constant")
        return np.asarray(value)

    def ints(self, value: Any, what: str) -> list[int]:
        return [int(v) for v in self.constant(value, what).reshape(-1)]

    def axes(self, value: Any, rank: int) -> list[int] | None:
        """The axes of an attribute or, since opset 13 or 18, an input; None if there are none."""
        found = self.get("axes")
        if value is not None:
            found = self.ints(value, "axes")
        return None if found is None else [self.axis(a, rank) for a in found]

    def axis(self, value: int, rank: int) -> int:
        if not -rank <= value < max(rank, 1):
            raise ValueError(f"{self.place}: axis {value} for a value of {rank} dimensions")
        return value % rank if rank else 0


def operator(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function for operators of these names."""

    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            OPERATORS[name] = function
        return function

    return keep
