"""Parameter and Module: PyTorch's names over traced programs."""

from __future__ import annotations

import inspect
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core, config
from ..arrays import as_array, gate
from ..graph.autograd import call_module, trace
from ..graph.plan import Cache
from ..graph.trace import Symbol, module_path, record_module, topological, tracing


class Incompatible(namedtuple("Incompatible", ["missing_keys", "unexpected_keys"])):
    """What load_state_dict found: PyTorch's pair, and `mismatched_shapes`, [(name, expected, got)]."""

    mismatched_shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


class Parameter:
    """A float32 array that a module learns.

    `data` is the array; writing to it is seen by every plan. `grad` is None or an array of the same shape.
    """

    _dtypes: tuple[type, ...] = (np.float32,)

    def __init__(self, data, requires_grad: bool = True):
        array = gate(data.data if isinstance(data, Parameter) else data, "Parameter: data")
        if array.dtype not in self._dtypes:
            raise TypeError(
                f"Parameter: data must be floating point, got {np.asarray(data).dtype}; "
                "convert it with .astype('float32')"
            )
        self.storage = _core.aligned_array(array.shape) if array.dtype == np.float32 else array.copy()
        self.storage[...] = array
        self.grad: np.ndarray | None = None
        self.exposed = False  # the array was handed out: it may change at any time
        self._requires_grad = bool(requires_grad)
        self._grad_slot: np.ndarray | None = None

    shape = property(lambda self: self.storage.shape)
    ndim = property(lambda self: self.storage.ndim)
    size = property(lambda self: self.storage.size)
    dtype = property(lambda self: self.storage.dtype)

    @property
    def data(self) -> np.ndarray:
        if not self.exposed:
            self.exposed = True
            config.weights_changed()
        return self.storage

    @data.setter
    def data(self, value) -> None:
        if np.shape(value) != self.shape:
            raise ValueError(f"Parameter: data must have shape {self.shape}, got {np.shape(value)}")
        self[...] = value

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if bool(value) != self._requires_grad:
            self._requires_grad = bool(value)
            config.structure_changed()

    def requires_grad_(self, requires_grad: bool = True) -> Parameter:
        self.requires_grad = requires_grad
        return self

    def __setitem__(self, index, value) -> None:
        try:
            self.storage[index] = value
        finally:  # a conversion that fails has written what came before
            config.weights_changed()

    def __getitem__(self, index) -> np.ndarray:
        return np.array(self.storage[index])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.data, dtype=dtype, copy=copy)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The array itself, without a copy, for np.asarray and its like. Its data is the array as a buffer, not its
        address, so that what reads it keeps the memory alive when the parameter moves into an optimizer's block."""
        return {**self.data.__array_interface__, "data": self.storage, "offset": 0, "strides": None}

    def _arithmetic(kind: str, swapped: bool = False):  # type: ignore[misc]
        def method(self, other):
            from ..functional import arithmetic

            return arithmetic(other, self, kind) if swapped else arithmetic(self, other, kind)

        return method

    __add__, __radd__ = _arithmetic("add"), _arithmetic("add", True)
    __sub__, __rsub__ = _arithmetic("sub"), _arithmetic("sub", True)
    __mul__, __rmul__ = _arithmetic("mul"), _arithmetic("mul", True)
    __truediv__, __rtruediv__ = _arithmetic("div"), _arithmetic("div", True)
    __array_ufunc__ = None  # ndarray * Parameter calls Parameter.__rmul__

    def __dlpack__(self, **kwargs):
        """The array itself, without a copy, for torch.from_dlpack and its like (DLPack, both protocol versions)."""
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.storage.__dlpack_device__()

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        return self.storage.copy()

    def __repr__(self) -> str:
        return f"Parameter containing:\n{self.storage!r}"

    def __getstate__(self) -> dict:
        """For copy.deepcopy and pickle: an array of its own, outside any optimizer's block."""
        own = {k: v for k, v in self.__dict__.items() if k != "_block"}
        return {**own, "storage": self.storage.copy(), "exposed": False, "_grad_slot": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if self.storage.dtype == np.float32:
            aligned = _core.aligned_array(self.storage.shape)
            aligned[...] = self.storage
            self.storage = aligned

    def _move(self, view: np.ndarray) -> None:
        """Live in `view` from now on (an optimizer's flat block)."""
        if view is not self.storage:
            view[...] = self.storage
            self.storage = view
            config.structure_changed()

    def _accumulate(self, grad: np.ndarray) -> None:
        if self.grad is not None:
            self.grad += grad
        elif self._grad_slot is not None:
            self._grad_slot[...] = grad
            self.grad = self._grad_slot
        else:
            self.grad = grad


class Buffer(Parameter):
    """A float32 or int64 array of a module's state that is not learned."""

    _dtypes = (np.float32, np.int64)

    def __init__(self, data):
        super().__init__(data, requires_grad=False)


# What a module keeps for itself; every other attribute is part of what is traced, and may be a layer or parameter.
_NOT_SAVED = ("_programs", "_own_arena", "_seen_settings", "_last_program")
_OWN = ("_modules", "_parameters", "_label", *_NOT_SAVED)


class Module:
    """A layer or network. Subclasses set parameters, buffers and children as attributes and define `forward`.

    Called on arrays it runs at once (forward is traced once per input shape); on Symbols it extends the graph.
    """

    training = True
    _last_program: tuple | None = None  # of one plain array in evaluation: shape, version of the settings, program

    if TYPE_CHECKING:  # children, parameters and buffers that are assigned by name

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self):
        self._modules: dict[str, Module | None] = {}
        self._parameters: dict[str, Parameter | None] = {}
        self._programs = Cache()
        self._own_arena = None
        self._label = ""
        self._seen_settings = None

    def __getstate__(self) -> dict:
        """For copy.deepcopy and pickle: everything but the plans, which are made anew."""
        return {k: v for k, v in self.__dict__.items() if k not in _NOT_SAVED}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state, _programs=Cache(), _own_arena=None, _seen_settings=None)
        config.structure_changed()

    # ---- attributes --------------------------------------------------------------------------------------------
    def __setattr__(self, name, value):
        state = self.__dict__
        if isinstance(value, (Module, Parameter)) and "_modules" not in state:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before assigning layers")
        if name in _OWN:
            return object.__setattr__(self, name, value)
        if name == "training":
            changes = self.training != value
            object.__setattr__(self, name, bool(value))
            if changes:  # counted last: who looks in between must look again
                config.settings_changed()
            return None
        if "_modules" in state:
            self._modules.pop(name, None)
            kept = self._parameters.get(name)
            if isinstance(kept, Parameter) and not isinstance(value, (Parameter, Module)) and value is not None:
                raise TypeError(
                    f"{type(self).__name__}: {name} is a {type(kept).__name__}, and can become another or None, "
                    f"not {type(value).__name__}; write its values with .{name}[...] = values"
                )
            if isinstance(value, Parameter) or value is None and kept is not None:
                self._parameters[name] = value  # in the place of the old one
            else:
                self._parameters.pop(name, None)
            if isinstance(value, Module):
                self._modules[name] = value
                value._labelled(self._label_of(name))
        object.__setattr__(self, name, value)
        config.structure_changed()

    def _label_of(self, name: str) -> str:
        """What a child of this name adds to the paths in errors and summaries."""
        return name

    def _labelled(self, label: str) -> None:
        self._label = label

    def __delattr__(self, name):
        self._modules.pop(name, None)
        self._parameters.pop(name, None)
        object.__delattr__(self, name)
        config.structure_changed()

    def register_buffer(self, name: str, array) -> None:
        """State that is saved but not learned."""
        setattr(self, name, Buffer(array))

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        self._parameters[name] = parameter
        object.__setattr__(self, name, parameter)
        config.structure_changed()

    def add_module(self, name: str, module: Module) -> None:
        setattr(self, name, module)

    # ---- running -----------------------------------------------------------------------------------------------
    def forward(self, *args):
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args, **kwargs):
        last = self._last_program  # for a small network's single image all that follows would be a tenth of the time
        if last is not None and len(args) == 1 and not kwargs and _core.is_plain(args[0]):
            shape, version, program = last
            if args[0].shape == shape and config.settings_version() == version:
                return program.forward_simple(args)
        for arg in args:
            if isinstance(arg, Symbol):
                with module_path(self._label):
                    out = self.forward(*args, **kwargs)
                    record_module(self, out)
                return out
        if "_modules" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: super().__init__() was not called")
        if kwargs:
            return self._call_with_names(args, kwargs)
        return call_module(self, args, kwargs)

    def _call_with_names(self, args, kwargs):
        """Arrays given by name go where forward() has them."""
        if any(isinstance(v, Symbol) for v in kwargs.values()):
            with module_path(self._label):
                return self.forward(*args, **kwargs)
        bound = inspect.signature(self.forward).bind(*args, **kwargs)
        return call_module(self, bound.args, {k: v for k, v in bound.kwargs.items() if v is not None})

    def _arena(self):
        if self._own_arena is None:
            self._own_arena = _core.Arena()
        return self._own_arena

    def _plan_settings(self):
        """(version, what plans depend on beside arguments); looked up again only when that of some module changed."""
        version = config.settings_version()
        if self._seen_settings is None or self._seen_settings[0] != version:
            modes = tuple([m.training for m in self.modules()])
            self._seen_settings = version, (modes, config.structure_version(), config.get_num_threads())
        return self._seen_settings

    # ---- walking -----------------------------------------------------------------------------------------------
    def named_children(self):
        return ((name, child) for name, child in self._modules.items() if child is not None)

    def children(self):
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "", _seen=None):
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self):
        return (module for _, module in self.named_modules())

    def _named(self, prefix, kind):
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, value in module._parameters.items():
                if value is not None and isinstance(value, Buffer) == (kind is Buffer) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(self, prefix: str = ""):
        return self._named(prefix, Parameter)

    def parameters(self):
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix: str = ""):
        return self._named(prefix, Buffer)

    def buffers(self):
        return (b for _, b in self.named_buffers())

    # ---- state -------------------------------------------------------------------------------------------------
    def _named_state(self):
        for path, module in self.named_modules():
            for name, value in module._parameters.items():
                if value is not None:
                    yield (f"{path}.{name}" if path else name), value

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: a copy of the array} of all parameters and buffers, PyTorch's names."""
        return {name: value.numpy() for name, value in self._named_state()}

    def load_state_dict(self, state_dict, strict: bool = True) -> Incompatible:
        """Take over arrays by name (NumPy arrays or anything NumPy reads). All or nothing.

        strict: missing or unexpected names and wrong shapes are an error; else they are left out and reported in what
        is returned (PyTorch raises for a wrong shape).
        """
        if not hasattr(state_dict, "items"):
            raise TypeError(
                f"load_state_dict of {type(self).__name__}: state_dict must be a dict of arrays by name, got "
                f"{type(state_dict).__name__}"
            )
        own = dict(self._named_state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        arrays, mismatched = {}, []
        for name, value in state_dict.items():
            if name in own:
                arrays[name] = as_array(value, f"load_state_dict of {type(self).__name__}: {name}")
                if arrays[name].shape != own[name].shape:
                    mismatched.append((name, own[name].shape, arrays.pop(name).shape))
                    if strict:
                        problems.append(f"{name}: expected shape {own[name].shape}, got {mismatched[-1][2]}")
                elif arrays[name].dtype.kind not in "fiu":
                    problems.append(f"{name}: expected floats, got {arrays[name].dtype}")
        if problems:
            raise ValueError(f"load_state_dict of {type(self).__name__}: " + "; ".join(problems))
        for name, array in arrays.items():
            own[name][...] = array
        found = Incompatible(missing, unexpected)
        found.mismatched_shapes = mismatched
        return found

    def train(self, mode: bool = True) -> Module:
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def apply(self, fn) -> Module:
        """fn(module) on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- showing -----------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inner = ([self.extra_repr()] if self.extra_repr() else []) + children
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(inner) + "\n)"

    def summary(self, input_shape) -> str:
        """A table of the layers (output shape, parameters, multiply-adds, size of output) for an input (N, C, ...)."""
        records: list = []
        with tracing(records):
            out = self.forward(Symbol(tuple(input_shape)))
        return _summary_table(self, tuple(input_shape), records, out)


def _macs(node) -> int:
    if node.op.name == "conv2d":
        return int(np.prod(node.outputs[0].shape, dtype=object) * np.prod(node.inputs[1].shape[1:], dtype=object))
    if node.op.name == "conv2d_data":  # transposed
        return int(np.prod(node.inputs[0].shape, dtype=object) * np.prod(node.inputs[1].shape[1:], dtype=object))
    if node.op.name == "linear":
        return int(np.prod(node.outputs[0].shape, dtype=object) * node.inputs[1].shape[1])
    return 0


def _summary_table(model, input_shape, records, out) -> str:
    macs: dict[str, int] = {}
    for node in topological([out] if isinstance(out, Symbol) else list(out)):
        macs[node.path] = macs.get(node.path, 0) + _macs(node)
    rows = [("layer", "type", "output shape", "parameters", "multiply-adds", "output MB")]
    total, total_macs, total_bytes = sum(p.size for p in model.parameters()), sum(macs.values()), 0
    counted: set[int] = set()  # parameters that stand in a row: each but once
    for path, module, output in records:
        if list(module.children()):
            continue
        outputs = [output] if isinstance(output, Symbol) else list(output)
        shape = outputs[0].shape if isinstance(output, Symbol) else tuple(o.shape for o in outputs)
        size = sum(4 * int(np.prod(o.shape, dtype=object)) for o in outputs)
        total_bytes += size
        new = [p for p in module.parameters() if id(p) not in counted]
        counted.update(id(p) for p in new)
        count, work = sum(p.size for p in new), macs.pop(path, 0)  # of a layer that runs twice, all in its first row
        rows.append((path, type(module).__name__, str(shape), f"{count:,}", f"{work:,}", f"{size / 1e6:.2f}"))
    rest = total - sum(p.size for p in model.parameters() if id(p) in counted)
    if rest or sum(macs.values()):
        rows.append(("", "(outside of these)", "", f"{rest:,}", f"{sum(macs.values()):,}", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = [
        "  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join(
        [
            f"{type(model).__name__}, input {input_shape}",
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"{total:,} parameters ({total * 4 / 1e6:.2f} MB), {total_macs:,} multiply-adds, "
            f"{total_bytes / 1e6:.2f} MB of layer outputs (a plan keeps fewer: see Program.describe)",
        ]
    )


__all__ = ["Buffer", "Module", "Parameter", "trace"]
