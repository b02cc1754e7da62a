"""What an op is, and the closed list of them."""

from __future__ import annotations

from ..graph.trace import Node, Symbol

OPS: dict[str, Op] = {}


class Op:
    """One kind of node. Subclasses are registered by `name` and used through one instance each.

    - `infer(inputs, attrs)`: [(shape, dtype)] of the outputs; raises for what the user got wrong.
    - `grad(node, douts, needs)`: one gradient symbol (or None) per input, built from ops.
    - `halo(node, layout)`: {input index: (top, bottom, left, right)} of zeros that it reads around an input.
    - `lower(node, b)`: emits kernel steps through the builder `b` (graph/lower.py).
    - `cases()`: problems for the tests and benches, [(input shapes, attrs)], for ops of the public interface.
    """

    name = ""

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.name:
            OPS[cls.name] = cls()

    def infer(self, inputs: list[Symbol], attrs: dict) -> list[tuple[tuple[int, ...], str]]:
        raise NotImplementedError

    def grad(self, node: Node, douts: list[Symbol | None], needs: list[bool]) -> list[Symbol | None]:
        raise NotImplementedError(f"{self.name} has no gradient")

    def halo(self, node: Node, layout: str) -> dict[int, tuple[int, int, int, int]]:
        return {}

    def lower(self, node: Node, b) -> None:
        raise NotImplementedError

    def cases(self) -> list[tuple[list[tuple[int, ...]], dict]]:
        return []


def check_rank(op: str, argument: str, symbol: Symbol, rank: int, meaning: str) -> None:
    if len(symbol.shape) != rank:
        raise ValueError(f"{op}: {argument} must have {rank} dimensions {meaning}, got shape {symbol.shape}")


def check_float(op: str, argument: str, symbol: Symbol) -> None:
    if symbol.dtype != "float32":
        raise TypeError(
            f"{op}: {argument} must be floating point, got {symbol.dtype}; convert it with {argument}.astype('float32')"
        )


def ints(op: str, argument: str, value, count: int, least: int) -> tuple[int, ...]:
    """An int, or `count` of them, all >= least, as a tuple of `count`."""
    allowed = "an int" if count == 1 else "an int or a pair of ints" if count == 2 else f"an int or {count} ints"
    values = (value,) * count if isinstance(value, int) or hasattr(value, "__index__") else value
    try:
        values = tuple(int(v.__index__()) for v in values)
    except (AttributeError, TypeError):
        raise TypeError(f"{op}: {argument} must be {allowed}, got {value!r}") from None
    if len(values) != count or min(values) < least or max(values) >= 1 << 31:
        raise ValueError(f"{op}: {argument} must be {allowed} >= {least}, got {value!r}")
    return values


def pair(op: str, argument: str, value, least: int) -> tuple[int, int]:
    """An int or a pair of ints >= least, as a pair."""
    first, second = ints(op, argument, value, 2, least)
    return first, second
