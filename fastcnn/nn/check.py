"""Checks of constructor arguments: every error names the layer, the argument, what came and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def _describe(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"


def integer(layer: str, name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int of at least `minimum`; bools and floats are TypeErrors."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{layer}: {name} must be an integer, got {_describe(value)}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{layer}: {name} must be at least {minimum}, got {value}")
    return int(value)


def integers(layer: str, name: str, value: Any, count: int, minimum: int | None = None) -> tuple[int, ...]:
    """`value` as `count` ints; one int stands for all of them."""
    if isinstance(value, Integral):
        return (integer(layer, name, value, minimum),) * count
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != count:
        raise TypeError(f"{layer}: {name} must be an integer or a sequence of {count}, got {_describe(value)}")
    return tuple(integer(layer, name, item, minimum) for item in value)


def number(layer: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float with low <= value <= high (NaN is never allowed)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{layer}: {name} must be a number, got {_describe(value)}")
    if not low <= float(value) <= high:
        if math.isinf(low) and math.isinf(high):
            allowed = "a number that is not NaN"
        elif math.isinf(high):
            allowed = f"at least {low:g}"
        else:
            allowed = f"between {low:g} and {high:g}"
        raise ValueError(f"{layer}: {name} must be {allowed}, got {value!r}")
    return float(value)


def flag(layer: str, name: str, value: Any) -> bool:
    """`value` as a bool; 0 and 1 are allowed too."""
    if isinstance(value, bool) or (isinstance(value, Integral) and value in (0, 1)):
        return bool(value)
    if type(value).__name__ in ("bool", "bool_"):  # numpy's
        return bool(value)
    raise TypeError(f"{layer}: {name} must be True or False, got {_describe(value)}")


def choice(layer: str, name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value`, which must be one of the strings in `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(repr(item) for item in allowed)
        raise ValueError(f"{layer}: {name} must be one of {names}, got {_describe(value)}")
    return value
