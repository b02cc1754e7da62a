"""The stack machine that reads the pickles of PyTorch's files: a closed list of opcodes and names, nothing is executed.

A pickle is a program. The one here can build dictionaries, lists, tuples, numbers, text and descriptions of tensors;
any other opcode or name is refused, by name. What torch.save wrote in its time (torch/_utils.py, torch/tensor.py):

    since 0.4    _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
    0.1.11-0.3   _rebuild_tensor(storage, offset, size, stride), maybe in Parameter(tensor) with a state of flags
    before       FloatTensor() with the state (storage, offset, size, stride)

A storage is a persistent id, ("storage", type, key, device, count); its bytes lie beside the pickle.
Every step takes constant time, or time that is linear in the bytes it takes from the file: a short file cannot keep the
machine busy, and no value is hashed, compared or printed but numbers and text.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

from .errors import FileFormatError

LARGEST = 1 << 40  # elements of a storage
DIMENSIONS = 32
TYPES = {
    "Double": "f8", "Float": "f4", "Half": "f2", "BFloat16": "bf16", "Long": "i8", "Int": "i4", "Short": "i2",
    "Char": "i1", "Byte": "u1", "Bool": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """One of NAMES, as a value of a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


ORDERED_DICT = Name("collections", "OrderedDict")
SIZE = Name("torch", "Size")
PARAMETER = Name("torch.nn.parameter", "Parameter")
REBUILD_PARAMETER = Name("torch._utils", "_rebuild_parameter")
REBUILD = Name("torch._utils", "_rebuild_tensor")
REBUILD_V2 = Name("torch._utils", "_rebuild_tensor_v2")
STORAGES = {Name("torch", f"{kind}Storage"): code for kind, code in TYPES.items()}
TENSORS = {Name("torch", f"{kind}Tensor"): code for kind, code in TYPES.items()}
NAMES = {ORDERED_DICT, SIZE, PARAMETER, REBUILD_PARAMETER, REBUILD, REBUILD_V2, *STORAGES, *TENSORS}


@dataclass(frozen=True)
class Storage:
    """A flat array beside the pickle."""

    key: str
    kind: str  # a value of TYPES
    count: int  # elements


class Tensor:
    """A view of a storage; without one until the pickle gives it a state."""

    def __init__(self, kind: str) -> None:
        self.kind = kind  # "": any
        self.storage: Storage | None = None
        self.offset = 0
        self.size: tuple[int, ...] = (0,)
        self.stride: tuple[int, ...] = (1,)

    def place(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        """Give it its elements; FileFormatError if they do not lie inside the storage."""
        if not isinstance(storage, Storage) or type(size) is not tuple or type(stride) is not tuple:
            raise FileFormatError("refused: a tensor that is not made of a storage, an offset, a size and strides")
        if self.kind and storage.kind != self.kind:
            raise FileFormatError(f"a tensor of type {self.kind} in a storage of type {storage.kind}")
        if len(size) != len(stride) or len(size) > DIMENSIONS:
            raise FileFormatError(f"a tensor of {len(size)} sizes and {len(stride)} strides; {DIMENSIONS} are read")
        if not all(type(n) is int and 0 <= n < LARGEST for n in (offset, *size, *stride)):
            raise FileFormatError("a tensor whose size, strides or offset are no numbers that a storage could have")
        count = math.prod(size)
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if offset > storage.count or (count and last >= storage.count):
            raise FileFormatError(
                f"a tensor of size {size} does not lie inside its storage of {storage.count} elements"
            )
        if count > storage.count:
            raise FileFormatError(
                f"a tensor of size {size} repeats the {storage.count} elements of its storage (expand); "
                "save it as .contiguous()"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride
        return self


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES",
}  # fmt: skip
_KEYS = (str, int, float, bool, type(None))


def run(file: Any) -> tuple[Any, dict[str, Storage]]:
    """(the value of the next pickle in the file, the storages it names).

    Raises FileFormatError for what is refused, and for nonsense whatever Python's pickletools raise.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            (value,) = machine.stack
            if machine.marks:
                raise FileFormatError("damaged: the pickle ends inside a container")
            return value, machine.storages
        machine.step(opcode.name, argument)
    raise FileFormatError("truncated: the pickle does not end")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []  # the stacks below each open mark
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "TUPLE":
            items = self._since_mark()
            self.stack.append(tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(items[::-1]))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._since_mark() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            _update(self.stack[-1], items[::2], items[1::2], name)
        elif name in ("APPEND", "APPENDS"):
            items = self._since_mark() if name == "APPENDS" else [stack.pop()]
            _as(self.stack[-1], list, name).extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(), stack.pop())[::-1]
            stack.append(_known(module, attribute))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments = _as(stack.pop(), tuple, name)
            stack.append(_call(stack.pop(), arguments))
        elif name == "BUILD":
            _build(stack.pop(), stack[-1])
        else:
            raise FileFormatError(f"refused: pickle opcode {name}, which tensors do not need")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _storage(self, identity: Any) -> Storage:
        """From ("storage", type, key, device, count), in legacy files with a view's place after it."""
        if type(identity) is not tuple or len(identity) not in (5, 6) or type(identity[0]) is not str:
            raise FileFormatError("refused: a persistent id that is not a storage's")
        if identity[0] != "storage":
            raise FileFormatError(f"refused: persistent id of a {identity[0]!r:.40}{_WHOLE}")
        kind, key, count = identity[1], identity[2], identity[4]
        if not isinstance(kind, Name) or kind not in STORAGES:
            raise FileFormatError(f"refused: a storage of type {show(kind)}")
        if len(identity) == 6 and identity[5] is not None:
            raise FileFormatError("storages that are views of others (PyTorch 0.1) are not supported")
        if type(key) is not str or "/" in key or type(count) is not int or not 0 <= count < LARGEST:
            raise FileFormatError(f"storage {show(key)} of {show(count)} elements")
        found = Storage(key, STORAGES[kind], count)
        if self.storages.setdefault(key, found) != found:
            raise FileFormatError(f"storage {show(key)} is described in two ways")
        return found


_WHOLE = "; the file seems to hold a whole model, which is code: save its state_dict() instead"


def _known(module: Any, attribute: Any) -> Name:
    if type(module) is str and type(attribute) is str and Name(module, attribute) in NAMES:
        return Name(module, attribute)
    whole = _WHOLE if type(module) is str and module.startswith("torch.nn.modules") else ""
    raise FileFormatError(f"refused: the file asks for {show(module)}.{show(attribute)}, which is not data{whole}")


def _as(value: Any, kind: type, opcode: str) -> Any:
    if not isinstance(value, kind):
        raise FileFormatError(f"refused: pickle opcode {opcode} on a {type(value).__name__}")
    return value


def _update(target: Any, keys: list[Any], values: list[Any], opcode: str) -> None:
    _as(target, dict, opcode)
    for key in keys:
        if type(key) not in _KEYS:
            raise FileFormatError(f"refused: a {type(key).__name__} as the key of a dictionary")
    target.update(zip(keys, values, strict=True))


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    count = len(arguments)
    if not isinstance(function, Name):
        raise FileFormatError(f"refused: a call of a {type(function).__name__}")
    if function == ORDERED_DICT and count <= 1:  # Python 2 gives a list of pairs
        made: dict[Any, Any] = {}
        for pair in _as(arguments[0], list, "REDUCE") if count else []:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise FileFormatError("refused: an OrderedDict of something else than pairs")
            _update(made, [pair[0]], [pair[1]], "REDUCE")
        return made
    if function == SIZE and count == 1 and type(arguments[0]) in (list, tuple):
        return tuple(arguments[0])
    if function == REBUILD_PARAMETER and count == 3 or function == PARAMETER and count in (1, 2):
        return _as(arguments[0], Tensor, "REDUCE")
    if function == REBUILD and count == 4 or function == REBUILD_V2 and count in (6, 7):
        return Tensor("").place(*arguments[:4])
    if function in TENSORS and count == 0:
        return Tensor(TENSORS[function])
    raise FileFormatError(f"refused: a call of {function} with {count} arguments")


def _build(state: Any, target: Any) -> None:
    """What __setstate__ would do: the metadata of a state dict and a parameter's flags are of no use here."""
    if isinstance(target, dict):
        return
    if not isinstance(target, Tensor) or type(state) is not tuple or len(state) not in (3, 4):
        raise FileFormatError(f"refused: pickle opcode BUILD on a {type(target).__name__}")
    if len(state) == 4:
        target.place(*state)


def show(value: Any) -> str:
    """Text and numbers in short, of all else the type: printing a nested value could take forever."""
    if type(value) is str:
        plain = value.replace(".", "").isidentifier() or value.isdecimal()
        return value[:60] if plain else f"{value[:40]!r}"
    if type(value) is int and value.bit_length() > 128:
        return f"an int of {value.bit_length()} bits"
    if value is None or type(value) in (int, float, bool, Name):
        return str(value)
    return f"a {type(value).__name__}"
