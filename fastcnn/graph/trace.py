"""The graph: symbols (values with a shape), nodes (ops applied to them), and how tracing builds it."""

from __future__ import annotations

import itertools
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..arrays import as_array, is_parameter

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_counter = itertools.count()


class _State(threading.local):
    path: tuple[str, ...] = ()  # names of the modules whose forward is being traced
    leaves: dict | None = None  # id(parameter) -> its leaf, while a function is being traced
    records: list | None = None  # (path, module, output) of every module called, for summary()


_state = _State()


@contextmanager
def module_path(name: str):
    """Name the module whose forward runs inside, for descriptions and, in front, for the errors that it raises."""
    old = _state.path
    _state.path = (*old, name) if name else old
    try:
        yield
    except (ValueError, TypeError) as error:
        text = error.args[0] if len(error.args) == 1 else None
        if isinstance(text, str) and _state.path and not getattr(error, "_fastcnn_path", False):
            error.args = (f"{current_path()}: {text}",)
            error._fastcnn_path = True  # type: ignore[attr-defined]
        raise
    finally:
        _state.path = old


@contextmanager
def tracing(records: list | None = None):
    """A trace begins: within it, a parameter is one leaf wherever it is used."""
    old = _state.leaves, _state.records, _state.path
    _state.leaves, _state.records, _state.path = {}, records, ()
    try:
        yield
    finally:
        _state.leaves, _state.records, _state.path = old


@contextmanager
def recording():
    """A list that gets (path, module, output) of every module called inside, paths from here on."""
    old, old_path = _state.records, _state.path
    _state.records, _state.path = [], ()
    try:
        yield _state.records
    finally:
        _state.records, _state.path = old, old_path


class _Watch:
    """Takes the place of a list of records: passes them on, and calls seen(path from here on, output)."""

    def __init__(self, seen, outer, depth):
        self.seen, self.outer, self.depth = seen, outer, depth

    def append(self, record):
        if self.outer is not None:
            self.outer.append(record)
        self.seen(".".join(_state.path[self.depth :]), record[2])


@contextmanager
def watching(seen):
    """seen(path, output) is called after every module called inside, paths from here on; it may raise to stop."""
    old = _state.records
    _state.records = _Watch(seen, old, len(_state.path))
    try:
        yield
    finally:
        _state.records = old


def is_tracing() -> bool:
    """Whether a function is being traced in this thread."""
    return _state.leaves is not None


def record_module(module, output) -> None:
    if _state.records is not None:
        _state.records.append((current_path(), module, output))


def leaf(value) -> Symbol:
    """A parameter or an array (of floats, or integers for indices) as a leaf of the current trace."""
    if is_parameter(value):
        leaves = {} if _state.leaves is None else _state.leaves
        if id(value) not in leaves:
            leaves[id(value)] = Symbol(value.shape, value.dtype.name, param=value)
        return leaves[id(value)]
    array = as_array(value, "an array of a traced function")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"a traced function needs arrays of floats or integers, got {array.dtype}")
    array = np.array(array, np.float32 if array.dtype.kind == "f" else np.int64)
    return Symbol(array.shape, array.dtype.name, array=array)


def current_path() -> str:
    return ".".join(_state.path)


class Symbol:
    """A value of a graph: a shape and a dtype, no numbers. Reading its value raises TypeError.

    `node` is the op that makes it; a leaf has none and is an input, a `param` (with the Parameter) or a `const`
    (with the array).
    """

    __slots__ = ("array", "dtype", "id", "node", "param", "shape")
    __array_ufunc__ = None  # ndarray + Symbol calls Symbol.__radd__

    def __init__(self, shape, dtype="float32", node=None, param=None, array=None):
        self.shape = tuple(int(d) for d in shape)
        self.dtype = dtype
        self.node = node
        self.param = param
        self.array = array
        self.id = next(_counter)

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: int(np.prod(self.shape, dtype=object)))

    def __repr__(self):
        return f"Symbol(shape={self.shape}, dtype={self.dtype})"

    def _no_value(self, *_, **__):
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        raise TypeError(
            f"{where}: a traced value (shape {self.shape}) has no numbers to read. forward() runs once per "
            "input shape to record the network; use fastcnn.functional on it, and only its .shape in Python code"
        )

    __array__ = __bool__ = __float__ = __int__ = __index__ = __iter__ = __len__ = __complex__ = _no_value
    __lt__ = __le__ = __gt__ = __ge__ = item = tolist = numpy = _no_value

    def _arith(self, other, kind, swapped=False):
        from ..ops.arithmetic import arithmetic

        return arithmetic(kind, other, self) if swapped else arithmetic(kind, self, other)

    def __add__(self, other):
        return self._arith(other, "add")

    def __radd__(self, other):
        return self._arith(other, "add", True)

    def __sub__(self, other):
        return self._arith(other, "sub")

    def __rsub__(self, other):
        return self._arith(other, "sub", True)

    def __mul__(self, other):
        return self._arith(other, "mul")

    def __rmul__(self, other):
        return self._arith(other, "mul", True)

    def __truediv__(self, other):
        return self._arith(other, "div")

    def __rtruediv__(self, other):
        return self._arith(other, "div", True)

    def __neg__(self):
        return self._arith(-1.0, "mul")

    def reshape(self, *shape):
        from ..functional import reshape

        return reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    view = reshape

    def flatten(self, start_dim=0, end_dim=-1):
        from ..functional import flatten

        return flatten(self, start_dim, end_dim)

    def __getitem__(self, index):
        from ..ops.shape import getitem

        return getitem(self, index)

    def permute(self, *dims):
        """Dimensions in another order, given as arguments or as one sequence."""
        from ..functional import permute

        return permute(self, dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)

    def expand(self, *shape):
        """Repeated along dimensions of size 1; the shape given as arguments or as one sequence."""
        from ..functional import expand

        return expand(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)


def _method(name):
    def method(self, *args, **kwargs):
        from .. import functional

        return getattr(functional, name)(self, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"fastcnn.functional.{name} of this value."
    return method


for _name in ("sum", "mean", "var", "transpose", "unsqueeze", "squeeze", "narrow", "split", "chunk"):
    setattr(Symbol, _name, _method(_name))


class Node:
    """One op applied to symbols. `path` names the module that traced it."""

    __slots__ = ("attrs", "id", "inputs", "op", "outputs", "path")

    def __init__(self, op, inputs, attrs):
        self.op = op
        self.inputs = list(inputs)
        self.attrs = attrs
        self.path = current_path()
        self.id = next(_counter)
        self.outputs = [Symbol(shape, dtype, self) for shape, dtype in op.infer(self.inputs, attrs)]

    def label(self) -> str:
        return f"{self.path} ({self.op.name})" if self.path else self.op.name


def add_node(op, inputs, **attrs):
    """Apply an op to symbols: its output symbol (a tuple if it has several)."""
    node = Node(op, inputs, attrs)
    return node.outputs[0] if len(node.outputs) == 1 else tuple(node.outputs)


def topological(outputs) -> list[Node]:
    """The nodes that `outputs` need, every node after the nodes it reads; creation order where free."""
    seen, nodes = set(), []
    stack = [s.node for s in outputs if s.node is not None]
    while stack:
        node = stack.pop()
        if node.id in seen:
            continue
        seen.add(node.id)
        nodes.append(node)
        stack.extend(s.node for s in node.inputs if s.node is not None)
    return sorted(nodes, key=lambda node: node.id)
