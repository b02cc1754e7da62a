"""What makes a function of symbols one of arrays too."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import numpy as np

from ..graph.autograd import call_function
from ..graph.trace import Symbol, add_node, is_tracing, leaf
from ..ops import OPS


def _freeze(value):
    return tuple(_freeze(v) for v in value) if isinstance(value, (list, tuple, np.ndarray)) else value


def _one_item(fn, values, names):
    """fn's results for a batch of one item, without the batch's dimension."""
    shapes = {n: (1, *values[n].shape) for n in names}
    out = fn(**{**values, **{n: add_node(OPS["reshape"], [values[n]], shape=shape) for n, shape in shapes.items()}})
    single = isinstance(out, Symbol)
    results = [add_node(OPS["reshape"], [y], shape=y.shape[1:]) for y in ([out] if single else out)]
    return results[0] if single else tuple(results)


def operation(*arrays: str, rank: int = 0, items: tuple[str, ...] = ("x",)) -> Any:
    """Let a function of symbols take arrays too. `arrays` names the arguments that are arrays (None is left out).

    rank: how many dimensions the arguments `items` have; with one less, they are one item without its batch.
    """

    def decorate(fn):
        signature = inspect.signature(fn)

        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments
            first = values[arrays[0]]
            if first is None or isinstance(first, str):
                raise TypeError(f"{fn.__name__}: {arrays[0]} must be an array of floats, got {first!r}")
            names = [n for n in arrays if values[n] is not None]
            if is_tracing() or any(isinstance(values[n], Symbol) for n in names):
                for n in names:
                    if not isinstance(values[n], Symbol):
                        values[n] = leaf(values[n])
                if rank and all(values[n].ndim == rank - 1 for n in items):
                    return _one_item(fn, values, items)
                return fn(*bound.args, **bound.kwargs)
            rest = {n: _freeze(v) for n, v in values.items() if n not in names}
            return call_function(
                lambda *symbols, **kw: wrapper(**dict(zip(names, symbols)), **kw),
                fn.__name__,
                [values[n] for n in names],
                rest,
            )

        return wrapper

    return decorate


def list_operation(fn):
    """As `operation` for a function whose first argument is a list of arrays."""

    @functools.wraps(fn)
    def wrapper(arrays, *args, **kwargs):
        arrays = list(arrays)
        if not arrays:
            raise ValueError(f"{fn.__name__}: at least one array is needed, got none")
        if is_tracing() or any(isinstance(a, Symbol) for a in arrays):
            return fn([a if isinstance(a, Symbol) else leaf(a) for a in arrays], *args, **kwargs)
        rest = {"args": _freeze(args), **{n: _freeze(v) for n, v in kwargs.items()}}
        return call_function(lambda *symbols, args, **rest: fn(list(symbols), *args, **rest), fn.__name__, arrays, rest)

    return wrapper


def dimension(op, dim, ndim):
    if not hasattr(dim, "__index__") or not -ndim <= dim.__index__() < ndim:
        raise ValueError(f"{op}: dim must be an int in [{-ndim}, {ndim - 1}], got {dim!r}")
    return dim.__index__() % ndim
