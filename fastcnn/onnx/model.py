"""The module that an ONNX file becomes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..graph.trace import Symbol, leaf, module_path
from ..nn.module import Buffer, Module, Parameter
from ..nn.registry import register
from . import graph as plain_graph
from .operators import ON_ARRAYS, OPERATORS, Call, known, on_constants


@register
class OnnxModel(Module):
    """A graph of ONNX operators (see onnx/graph.py), run node by node when it is traced. Made by `onnx.load`.

    Weights have the names of the file's initializers; those of convolutions, products, sums and normalisations are
    parameters, the others buffers. In training mode batch normalisation uses and updates batch statistics and dropout
    drops, whatever the file says.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        super().__init__()
        self.graph = _checked(graph)
        self._constants = {n: plain_graph.unpack(v, f"constant {n!r}") for n, v in graph["constants"].items()}
        for name, (shape, learned) in graph["weights"].items():
            array = np.zeros(shape, np.float32)
            # no attribute of the module: the file's names may be those of its methods
            self._parameters[name] = Parameter(array) if learned else Buffer(array)

    def config(self) -> dict[str, Any]:
        """Constructor arguments, for fc.save."""
        return {"graph": self.graph}

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> OnnxModel:
        """The module of this config, its weights zeros."""
        return cls(**config)

    def forward(self, *inputs: Any) -> Any:
        """The graph's inputs, in order (Symbols, or arrays that are known when the graph is built); its outputs."""
        names = self.graph["inputs"]
        if len(inputs) != len(names):
            wanted = ", ".join(name for name, _ in names)
            raise ValueError(f"OnnxModel: {len(names)} inputs expected ({wanted}), got {len(inputs)}")
        values: dict[str, Any] = {**self._constants, **self._parameters}
        for (name, rank), value in zip(names, inputs):
            if rank is not None and value.ndim != rank:
                raise ValueError(f"OnnxModel: input {name!r} must have {rank} dimensions, got shape {value.shape}")
            values[name] = value
        readers = {name for node in self.graph["nodes"] for name in node[2]} | set(self.graph["outputs"])
        for kind, name, sources, targets, attributes in self.graph["nodes"]:
            call = Call(kind, name, attributes, self.graph["opset"], self.training, [t in readers for t in targets])
            if any(source and source not in values for source in sources):
                raise ValueError(f"OnnxModel: node {name} ({kind}) reads an output that its node does not give")
            call.raw = [values[source] if source else None for source in sources]
            with module_path(name):
                results = _run(call)
            for target, result in zip(targets, results):
                values[target] = result
        if any(name not in values for name in self.graph["outputs"]):
            raise ValueError("OnnxModel: an output of the graph is one that its node does not give")
        outputs = [_symbol(values[name]) for name in self.graph["outputs"]]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def extra_repr(self) -> str:
        return f"opset {self.graph['opset']}, {len(self.graph['nodes'])} nodes"


def _symbol(value: Any) -> Symbol:
    return value if isinstance(value, Symbol) else leaf(value)


def _run(call: Call) -> tuple[Any, ...]:
    constant = all(value is None or isinstance(value, np.ndarray) for value in call.raw)
    try:
        result = on_constants(call) if constant else None
        if result is None and call.kind not in OPERATORS:
            raise ValueError(f"{call.place}: only supported where its inputs are known when the graph is built")
        if result is None:
            function, values = OPERATORS[call.kind], [leaf(v) if isinstance(v, Parameter) else v for v in call.raw]
            if constant and call.kind not in ON_ARRAYS and values and values[0].dtype == np.float32:
                values[0] = leaf(values[0])
            try:
                inspect.signature(function).bind(call, *values)
            except TypeError:
                raise ValueError(f"{len(values)} inputs are too many, or too few") from None
            result = function(call, *values)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        if str(error).startswith(call.place):
            raise
        kind = type(error) if isinstance(error, (TypeError, NotImplementedError)) else ValueError
        raise kind(f"{call.place}: {error or type(error).__name__}") from None
    return result if isinstance(result, tuple) else (result,)


def _check_names(graph: dict[str, Any]) -> None:
    """ValueError unless every name is given once, before it is read."""
    given = set(graph["constants"]) | set(graph["weights"])
    if len(given) != len(graph["constants"]) + len(graph["weights"]) or "" in given:
        raise ValueError("OnnxModel: two constants have the same name, or one has none")

    def give(name: str, place: str) -> None:
        if name in given:
            raise ValueError(f"OnnxModel: {place} gives {name!r}, which something else gives already")
        given.add(name)

    for name, _ in graph["inputs"]:
        give(name, "an input")
    for kind, name, sources, targets, _ in graph["nodes"]:
        for source in sources:
            if source and source not in given:
                raise ValueError(f"OnnxModel: node {name} ({kind}) reads {source!r}, which nothing before it gives")
        for target in targets:
            if target:
                give(target, f"node {name} ({kind})")
    for output in graph["outputs"]:
        if output not in given:
            raise ValueError(f"OnnxModel: nothing gives the output {output!r}")


def _checked(graph: Any) -> dict[str, Any]:
    """The graph, if it has the form that onnx/graph.py describes and known operators; else ValueError."""
    if not isinstance(graph, dict) or set(graph) != plain_graph.KEYS:
        raise ValueError(f"OnnxModel: graph must be an object of {', '.join(sorted(plain_graph.KEYS))}")
    texts = lambda values: isinstance(values, list) and all(isinstance(v, str) for v in values)  # noqa: E731
    right = isinstance(graph["opset"], int) and texts(graph["outputs"]) and bool(graph["outputs"])
    right = right and all(isinstance(graph[key], list) for key in ("inputs", "nodes"))
    right = right and all(isinstance(graph[key], dict) for key in ("constants", "weights"))
    right = right and all(
        isinstance(v, list) and len(v) == 2 and isinstance(v[0], str) and isinstance(v[1], (int, type(None)))
        for v in graph["inputs"]
    )
    right = right and all(
        isinstance(n, list) and len(n) == 5 and texts(n[:2]) and texts(n[2]) and texts(n[3]) and isinstance(n[4], dict)
        for n in graph["nodes"]
    )
    right = right and all(
        isinstance(w, list) and len(w) == 2 and isinstance(w[0], list) and isinstance(w[1], bool)
        and all(isinstance(d, int) and not isinstance(d, bool) and d > 0 for d in w[0])
        for w in graph["weights"].values()
    )  # fmt: skip
    if not right:
        raise ValueError("OnnxModel: the graph is malformed")
    missing = [f"{kind} (node {name})" for kind, name, *_ in graph["nodes"] if not known(kind)]
    if missing:
        more = f", and {len(missing) - 8} more nodes" if len(missing) > 8 else ""
        raise ValueError(
            f"operators that fastcnn does not have: {', '.join(missing[:8])}{more} (opset {graph['opset']})"
        )
    _check_names(graph)
    return graph
