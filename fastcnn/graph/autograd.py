"""Arrays in, arrays out: running traced functions at once, with a tape of program runs for backward()."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager

import numpy as np

from .. import _core, config, random
from ..arrays import gate as gate
from ..arrays import is_parameter
from .plan import Cache, Program
from .trace import Symbol, topological, tracing

_FLOAT32 = np.dtype(np.float32)
_programs = Cache(64, by_structure=False)
_arena = _core.Arena()


class _Mode(threading.local):
    grad = True


_mode = _Mode()


@contextmanager
def no_grad():
    """Inside, nothing is recorded for backward()."""
    old, _mode.grad = _mode.grad, False
    try:
        yield
    finally:
        _mode.grad = old


_BINARY = {np.add: "add", np.subtract: "sub", np.multiply: "mul", np.true_divide: "div"}
_UNARY = {np.absolute: "abs", np.exp: "exp", np.log: "log", np.sqrt: "sqrt", np.square: "square", np.tanh: "tanh"}


class Tensor(np.ndarray):
    """An array that remembers how it was computed. Made by modules in training mode; see `backward`.

    Arithmetic, abs, exp, log, sqrt, square, tanh, powers, sum, mean, reshape, flatten, transpose and indexing with ints
    and slices are recorded. NumPy functions whose result is not a float (comparisons, isnan, ...), and reductions such
    as max, give ordinary arrays; any other raises TypeError rather than lose the history: use detach() for it.
    """

    _tape: Record | None = None
    _index = 0

    def __array_finalize__(self, source):
        self._tape = None

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        out = kwargs.get("out")
        in_place = out is not None and len(kwargs) == 1 and isinstance(out[0], Tensor)  # total += loss: a new value
        if method == "__call__" and (not kwargs or in_place) and any(getattr(i, "_tape", None) for i in inputs):
            from .. import functional

            if ufunc in _BINARY:
                return functional.arithmetic(inputs[0], inputs[1], kind=_BINARY[ufunc])
            if ufunc in _UNARY:
                return getattr(functional, _UNARY[ufunc])(inputs[0])
            if ufunc is np.negative:
                return functional.arithmetic(inputs[0], -1.0, kind="mul")
            if ufunc is np.power and np.ndim(inputs[1]) == 0 and not isinstance(inputs[1], Tensor):
                return functional.pow(inputs[0], float(inputs[1]))
            if any(t[-1] in "efdg" for t in ufunc.types) and not any(t[-1] == "?" for t in ufunc.types):
                raise TypeError(f"{ufunc.__name__} of a value with a history is not recorded; use its detach()")
        plain = [i.view(np.ndarray) if isinstance(i, Tensor) else i for i in inputs]
        if out:
            kwargs["out"] = tuple(o.view(np.ndarray) if isinstance(o, Tensor) else o for o in out)
        return getattr(ufunc, method)(*plain, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        return (
            func._implementation(*args, **kwargs)
            if hasattr(func, "_implementation")
            else super().__array_function__(func, types, args, kwargs)
        )

    def __getitem__(self, index):
        if self._tape is None or not _is_basic(index):
            return super().__getitem__(index)
        from .. import functional

        return functional.getitem(self, index)

    def _recorded(name):  # type: ignore[misc]
        plain = getattr(np.ndarray, name)

        @functools.wraps(plain)
        def method(self, *args, **kwargs):
            if self._tape is None:
                return plain(self, *args, **kwargs)
            from .. import functional

            if name in ("sum", "mean"):
                if "axis" in kwargs:
                    kwargs["dim"] = kwargs.pop("axis")
                kwargs["keepdim"] = kwargs.pop("keepdims", kwargs.get("keepdim", False)) is True
                kwargs = {k: v for k, v in kwargs.items() if v is not None}
            elif name == "reshape":
                args = (args[0] if len(args) == 1 else args,)
            return getattr(functional, name)(self, *args, **kwargs)

        return method

    sum, mean, reshape, flatten = _recorded("sum"), _recorded("mean"), _recorded("reshape"), _recorded("flatten")

    @property
    def T(self):
        """Dimensions in reverse order."""
        if self._tape is None:
            return self.view(np.ndarray).T
        from .. import functional

        return functional.permute(self, tuple(range(self.ndim))[::-1])

    def detach(self) -> np.ndarray:
        """The numbers alone."""
        return self.view(np.ndarray)

    def backward(self, gradient=None) -> None:
        """Add the gradient of this value to the `.grad` of every parameter that it was computed from.

        gradient: array of this shape; may be left out for a scalar.
        """
        if self._tape is None:
            raise RuntimeError(
                "backward: this array has no history. Call the model in training mode (model.train()) "
                "outside no_grad(), and the loss on what it returned"
            )
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(f"backward: only a scalar has an implied gradient; give one of shape {self.shape}")
            gradient = np.ones(self.shape, np.float32)
        gradient = gate(gradient, "gradient")
        if gradient.shape != self.shape:
            raise ValueError(f"backward: gradient must have shape {self.shape}, got {gradient.shape}")
        _backward(self, gradient)


def _is_basic(index) -> bool:
    items = index if isinstance(index, tuple) else (index,)
    return all(
        item is None
        or item is Ellipsis
        or isinstance(item, (int, np.integer))
        and not isinstance(item, bool)
        or (isinstance(item, slice) and (item.step is None or item.step > 0))
        for item in items
    )


class Record:
    """One run of a program: what is needed to run its backward part."""

    def __init__(self, program, token, seed, arrays, parents):
        self.program, self.token, self.seed = program, token, seed
        self.arrays, self.parents = arrays, parents


def _backward(root: Tensor, gradient) -> None:
    records, stack, seen = [], [root._tape], set()
    while stack:  # children before parents: a record is visited once all that follow it were
        record = stack[-1]
        pending = [p._tape for p in record.parents if isinstance(p, Tensor) and p._tape and id(p._tape) not in seen]
        if pending:
            stack.append(pending[0])
            continue
        stack.pop()
        if id(record) not in seen:
            seen.add(id(record))
            records.append(record)
    grads = {(id(root._tape), root._index): gradient}
    for record in reversed(records):
        douts = [grads.get((id(record), i)) for i in range(len(record.program.outputs))]
        if all(d is None for d in douts):
            continue
        douts = [np.zeros(s.shape, np.float32) if d is None else d for d, s in zip(douts, record.program.douts)]
        results = record.program.backward(record.token, record.seed, record.arrays, douts)
        for parent, grad in zip(record.parents, results):
            if grad is None:
                continue
            if isinstance(parent, Tensor):
                key = (id(parent._tape), parent._index)
                grads[key] = grad if key not in grads else grads[key] + grad
            else:
                parent._accumulate(grad)


def tracked(value) -> bool:
    if type(value) is np.ndarray:
        return False
    return value._tape is not None if isinstance(value, Tensor) else is_parameter(value) and value.requires_grad


TOO_SMALL = "is smaller than the"  # what windows larger than their input say


def trace(fn, arrays, kwargs=None):
    """(input symbols, output symbols, fn's structure: True if it returned one) for fn on arrays of these shapes."""
    inputs = [a if is_parameter(a) else Symbol(a.shape, a.dtype.name) for a in arrays]
    try:
        with tracing():
            out = fn(*inputs, **(kwargs or {}))
    except ValueError as error:
        if TOO_SMALL in str(error) and (smallest := _smallest(fn, arrays, kwargs)):
            raise ValueError(f"{error}; the smallest input that is large enough is {smallest}") from None
        raise
    single = isinstance(out, Symbol)
    outputs = [out] if single else list(out) if isinstance(out, (tuple, list)) else [out]
    for symbol in outputs:
        if not isinstance(symbol, Symbol):
            raise TypeError(
                f"a traced function must return values made by fastcnn.functional, got {type(symbol).__name__}"
            )
    return [s for s in inputs if isinstance(s, Symbol)], outputs, single


def _smallest(fn, arrays, kwargs) -> tuple[int, ...] | None:
    """The shape of arrays[0] with the smallest equal sides for which no layer finds its input too small."""
    first, *rest = arrays
    if is_parameter(first) or first.ndim < 3:
        return None

    def shape(side):
        return (*first.shape[:2], *[side] * (first.ndim - 2))

    def enough(side):
        try:
            symbols = [Symbol(shape(side)), *(a if is_parameter(a) else Symbol(a.shape, a.dtype.name) for a in rest)]
            with tracing():
                fn(*symbols, **(kwargs or {}))
        except ValueError as error:
            return TOO_SMALL not in str(error)
        return True

    low, high = 1, 1024
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return shape(low)


def parameters_of(outputs) -> dict[int, Symbol]:
    """{id(parameter): its leaf} of the trainable parameters that outputs depend on."""
    leaves = {}
    for node in topological(outputs):
        for symbol in node.inputs:
            if symbol.param is not None and symbol.param.requires_grad:
                leaves.setdefault(id(symbol.param), symbol)
    return leaves


class Call:
    """A function traced for given shapes: its program and which of its arguments and parameters are recorded."""

    def __init__(self, fn, arrays, kwargs, tracked_args, record, arena, name=""):
        inputs, outputs, self.single = trace(fn, arrays, kwargs)
        leaves = parameters_of(outputs) if record else {}
        wrt = [s for s, t in zip(inputs, tracked_args) if t] if record else []
        self.params = [s.param for s in leaves.values()]
        self.tracked_args = tracked_args
        self.record = record and bool(wrt or leaves)
        self.program = Program(
            inputs, outputs, wrt + list(leaves.values()) if self.record else [], arena=arena, name=name
        )
        self.simple = self.single and not self.record and self.program.simple

    def __call__(self, arrays, values):
        """arrays: gated inputs; values: the inputs as they came (for the tape)."""
        program = self.program
        if self.simple:
            return program.forward_simple(arrays)
        seed = random.next_seed() if program.random else 0
        if not self.record:
            outputs = [_public(out) for out in program.forward(arrays, seed)]
            return outputs[0] if self.single else tuple(outputs)
        arrays = [a.copy() if _shared(a, v) else a for a, v in zip(arrays, values)]
        outputs, token = program.forward_token(arrays, seed)
        parents = [v for v, t in zip(values, self.tracked_args) if t] + self.params
        record = Record(program, token, seed, arrays, parents)
        results = []
        for i, out in enumerate(outputs):
            if out.dtype == _FLOAT32:
                out = out.view(Tensor)
                out._tape, out._index = record, i
            results.append(_public(out))
        return results[0] if self.single else tuple(results)


def _shared(array: np.ndarray, value) -> bool:
    """Whether an array that gate() made of value may be written to through value."""
    return array is value or not isinstance(value, np.ndarray) or np.may_share_memory(array, value)


def _public(out: np.ndarray) -> np.ndarray:
    """Positions are int32 inside and, as in PyTorch, int64 outside."""
    return out if out.dtype == _FLOAT32 else out.astype(np.int64)


def call_function(fn, name, values, kwargs):
    """Run a function of fastcnn.functional on arrays, Tensors and Parameters."""
    arrays = [v if is_parameter(v) else gate(v, f"{name}: argument {i + 1}") for i, v in enumerate(values)]
    inputs = [(a, v) for a, v in zip(arrays, values) if not is_parameter(v)]
    tracked_args = tuple(tracked(v) for _, v in inputs)
    record = _mode.grad and any(tracked(v) for v in values)
    key = (
        name,
        tuple(sorted(kwargs.items())),
        record,
        tracked_args,
        config.get_num_threads(),
        config.get_conv_algorithm(),
        tuple((id(a), config.structure_version()) if is_parameter(a) else (a.shape, a.dtype.char) for a in arrays),
    )
    call = _programs.get(key)
    if call is None:
        call = _programs.put(key, Call(fn, arrays, kwargs, tracked_args, record, _arena, name))
    return call([a for a, _ in inputs], [v for _, v in inputs])


def call_module(module, values, kwargs):
    """Run a module on arrays."""
    if len(values) == 1:
        (value,) = values
        array = gate(value, "input", module)
        arrays, shapes, touched = [array], (array.shape, array.dtype), tracked(value)
        record = _mode.grad and (module.training or touched)
        tracked_args: tuple[bool, ...] = (record and touched,)
    else:
        arrays = [gate(v, f"input {i + 1}", module) for i, v in enumerate(values)]
        shapes = tuple([(a.shape, a.dtype) for a in arrays])
        record = _mode.grad and (module.training or any(tracked(v) for v in values))
        tracked_args = tuple([record and tracked(v) for v in values])
    version, settings = module._plan_settings()
    key = (shapes, settings, record, tracked_args, tuple(kwargs.items()) if kwargs else None)
    programs = module._programs
    call = programs.get(key)
    if call is None:
        call = programs.put(
            key, Call(module.forward, arrays, kwargs, tracked_args, record, module._arena(), type(module).__name__)
        )
    if call.simple and not (module.training or kwargs) and len(arrays) == 1 and _core.is_plain(arrays[0]):
        # The version from before the trace: during it forward(), or another thread, may have changed the module.
        module.__dict__["_last_program"] = arrays[0].shape, version, call.program
    return call(arrays, values)


def vjp(f, *arrays):
    """(f(*arrays), pullback): pullback(dy) gives one gradient array per input array.

    f: a function of arrays built from fastcnn.functional, modules and arithmetic. dy has the shape of f's value
    (a tuple of arrays if f returns several).
    """
    gated = [gate(a, f"vjp: argument {i + 1}").copy() for i, a in enumerate(arrays)]
    inputs, outputs, single = trace(f, gated)
    wrt = [s for s in inputs if s.dtype == "float32"]
    program = Program(inputs, outputs, wrt, name="vjp")
    seed = random.next_seed() if program.random else 0
    values, token = program.forward_token(gated, seed)

    def pullback(dy):
        douts = [dy] if single else list(dy)
        if len(douts) != len(outputs):
            raise ValueError(f"pullback: {len(outputs)} gradients expected, got {len(douts)}")
        douts = [gate(d, "pullback: gradient") for d in douts]
        for d, s in zip(douts, outputs):
            if d.shape != s.shape:
                raise ValueError(f"pullback: the gradient must have shape {s.shape}, got {d.shape}")
        found = iter(program.backward(token, seed, gated, douts))
        grads = [next(found) if s.dtype == "float32" else None for s in inputs]
        grads = [np.zeros(s.shape, np.float32) if g is None else g for g, s in zip(grads, inputs)]
        return grads[0] if len(grads) == 1 else tuple(grads)

    return (values[0] if single else tuple(values)), pullback


def value_and_grad(f, argnums=0):
    """A function of the same arguments that returns (f's scalar value, its gradient with respect to argnums)."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def wrapped(*arrays):
        value, pullback = vjp(f, *arrays)
        if np.size(value) != 1:
            raise ValueError(f"value_and_grad: the function must return a scalar, got shape {np.shape(value)}")
        grads = pullback(np.ones(np.shape(value), np.float32))
        grads = grads if isinstance(grads, tuple) else (grads,)
        if not all(-len(grads) <= i < len(grads) for i in numbers):
            raise ValueError(f"value_and_grad: argnums must name some of the {len(grads)} arguments, got {argnums!r}")
        chosen = tuple(grads[i] for i in numbers)
        return float(value), chosen[0] if isinstance(argnums, int) else chosen

    return wrapped
