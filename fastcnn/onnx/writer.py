"""The nodes and constants of an ONNX graph while it is written, and how one for any batch size is made of two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Written:
    """An ONNX node to be."""

    kind: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    place: str  # the layer that it comes from, for errors


@dataclass
class Writer:
    """Collects nodes; every method that adds one returns the name of its (first) output."""

    opset: int
    nodes: list[Written] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: set[str] = field(default_factory=set)  # those constants that are target shapes
    own: set[str] = field(default_factory=set)  # those that are no parameters of the model
    spread: set[int] = field(default_factory=set)  # ids of symbols that their readers spread over a shape
    taken: set[str] = field(default_factory=set)  # names that are not to be given
    input: str = ""
    place: str = ""

    def free(self, name: str) -> str:
        """The name, with underscores behind it if something has it already; from now on it is taken."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        stem = f"{self.place}/{kind}_{len(self.nodes)}"
        names = [self.free(stem if i == 0 else f"{stem}:{i}") for i in range(outputs)]
        self.nodes.append(Written(kind, list(inputs), names, attributes, self.place))
        return names[0]

    def constant(self, values: Any, dtype: Any = np.float32, name: str | None = None, shape: bool = False) -> str:
        """A constant; equal ones without a name of their own are stored once."""
        array = np.asarray(values, dtype)
        if name is None:
            for known, other in self.constants.items():
                if known in self.own and (known in self.shapes) == shape and _same(array, other):
                    return known
            name = self.free(f"constant_{len(self.constants)}")
            self.own.add(name)
        self.constants[name] = array
        if shape:
            self.shapes.add(name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(values, np.int64)

    # ---- what several ops need -----------------------------------------------------------------------------------
    def reshape(self, x: str, shape: tuple[int, ...]) -> str:
        return self.node("Reshape", x, self.constant(shape, np.int64, shape=True))

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        return self.node("Slice", x, self.ints(start), self.ints(stop), self.ints(axis), self.ints(step))

    def clip(self, x: str, low: float, high: float) -> str:
        bounds = [self.constant(b) if np.isfinite(b) else "" for b in (low, high)]
        return self.node("Clip", x, *(bounds if bounds[1] else bounds[:1]))

    def scaled(self, x: str, factor: float) -> str:
        return x if factor == 1 else self.node("Mul", x, self.constant(factor))

    def reduce(self, kind: str, x: str, *axes: int, keep: bool = True) -> str:
        if kind == "ReduceSum" or self.opset >= 18:  # the axes became an input: of the sum at 13, of the others at 18
            return self.node(kind, x, self.ints(*axes), keepdims=int(keep))
        return self.node(kind, x, axes=list(axes), keepdims=int(keep))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a is b or a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def for_any_batch(one: Writer, other: Writer) -> None:
    """Make `one`, written at another batch size than `other`, right at every size; ValueError where that cannot be."""
    if len(one.nodes) != len(other.nodes):
        raise _fixed("", "the graph")
    for a, b in zip(one.nodes, other.nodes):
        if a.kind != b.kind or a.attributes != b.attributes or a.inputs != b.inputs:
            raise _fixed(a.place, a.kind)
    places = {name: node.place for node in one.nodes for name in node.inputs}
    for name, array in one.constants.items():
        twin = other.constants.get(name)
        if twin is None or twin.shape != array.shape:
            raise _fixed(places.get(name, ""), "a constant")
        changing: Any = np.flatnonzero(array != twin) if not _same(array, twin) else []
        if name in one.shapes and len(changing) == 1:
            one.constants[name] = array.copy()
            one.constants[name][changing[0]] = -1
        elif len(changing):
            raise _fixed(places.get(name, ""), "a constant")


def _fixed(place: str, what: str) -> ValueError:
    return ValueError(
        f"onnx.export: {what} of layer {place or '(the model)'} depends on the batch size; "
        "export for one size with dynamic_batch=False"
    )
