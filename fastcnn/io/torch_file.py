"""PyTorch's .pth files, zip and legacy format, read without PyTorch and without executing anything in them.

A pickle is a program for a stack machine. The machine here knows only the opcodes and names that tensors in
dictionaries need; any other is refused by name. Format: torch/serialization.py writes, per tensor, a call of
_rebuild_tensor_v2 with a storage (named by a persistent id), an offset, a size and strides; the storages' bytes lie
beside the pickle.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import FileFormatError

MAGIC = 0x1950A86A20F9469CFC6C  # first object of a legacy file
LARGEST = 1 << 40  # bytes of a storage
DEEPEST = 64  # nested containers
STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}  # fmt: skip
NAMES = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    *(("torch", name) for name in STORAGES),
}


# What Python's own readers of zip, pickle and text raise for nonsense; RuntimeError is zipfile's word for "encrypted".
DAMAGED = (
    ValueError, KeyError, IndexError, TypeError, OverflowError, EOFError, OSError, RuntimeError, struct.error,
    zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str  # a value of STORAGES
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


_MARK = object()


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as one of PyTorch's."""
    with open(path, "rb") as file:
        start = file.read(16)
    return start[:4] == b"PK\x03\x04" or start[:2] in (b"\x80\x02", b"\x80\x04") and b"\x8a\x0a" in start[:14]


def read(path: Path) -> Any:
    """What torch.save wrote: dictionaries, lists, tuples, numbers, text and NumPy arrays (half floats as float32).

    FileFormatError for a file that is damaged, or holds anything else; it names what.
    """
    with open(path, "rb") as file:
        try:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            return _read_zip(file) if zipped else _read_legacy(file)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from None
        except DAMAGED as error:
            raise FileFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from None


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        programs = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(programs) != 1:
            raise FileFormatError(f"not a file of torch.save: {len(programs)} members named data.pkl")
        root = programs[0][: -len("data.pkl")]

        def member(name: str, size: int | None = None) -> bytes:
            info = members.get(root + name)
            if info is None:
                raise FileFormatError(f"{root + name} is missing")
            if info.compress_type != zipfile.ZIP_STORED:
                raise FileFormatError(f"{root + name} is compressed, which torch.save never does")
            if size is not None and info.file_size != size:
                raise FileFormatError(f"{root + name} has {info.file_size} bytes, its storage needs {size}")
            return archive.read(info)

        order = member("byteorder").decode("ascii", "replace") if root + "byteorder" in members else "little"
        if order not in ("little", "big"):
            raise FileFormatError(f"byte order {order!r}")
        value, rest = _run(io.BytesIO(member("data.pkl")))
        arrays: dict[str, np.ndarray] = {}

        def storage(s: _Storage) -> np.ndarray:
            if s.key not in arrays:
                arrays[s.key] = _numbers(member(f"data/{s.key}", s.count * _bytes(s.kind)), s.kind, order)
            return arrays[s.key]

        return _materialise(value, storage)


def _read_legacy(file: BinaryIO) -> Any:
    magic, _ = _run(file)
    if magic != MAGIC:
        raise FileFormatError("not a file of torch.save: no magic number")
    protocol, _ = _run(file)
    system, _ = _run(file)
    if protocol != 1001 or not isinstance(system, dict):
        raise FileFormatError(f"legacy protocol {protocol!r}, only 1001 is known")
    order = "little" if system.get("little_endian", True) else "big"
    value, storages = _run(file)
    keys, _ = _run(file)
    if not isinstance(keys, list) or any(key not in storages for key in keys):
        raise FileFormatError("the list of storages does not fit the tensors")
    arrays = {}
    for key in keys:
        (count,) = struct.unpack("<q" if order == "little" else ">q", _exactly(file, 8))
        if count != storages[key].count:
            raise FileFormatError(f"storage {key} has {count} elements, its tensors expect {storages[key].count}")
        kind = storages[key].kind
        arrays[key] = _numbers(_exactly(file, count * _bytes(kind)), kind, order)
    missing = [key for key in storages if key not in arrays]
    if missing:
        raise FileFormatError(f"storage {missing[0]} is missing")
    return _materialise(value, lambda s: arrays[s.key])


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise FileFormatError(f"truncated: {count} bytes expected, {len(data)} left")
    return data


def _bytes(kind: str) -> int:
    return 2 if kind == "bf16" else np.dtype(kind).itemsize


def _numbers(data: bytes, kind: str, order: str) -> np.ndarray:
    mark: Any = "<" if order == "little" else ">"
    if kind == "bf16":  # the upper half of a float32
        return (np.frombuffer(data, mark + "u2").astype(np.uint32) << 16).view(np.float32)
    array = np.frombuffer(data, np.dtype(kind).newbyteorder(mark))
    return array.astype(np.float32 if kind == "f2" else array.dtype.newbyteorder("="))


def _materialise(value: Any, storage: Any, depth: int = 0) -> Any:
    if depth > DEEPEST:
        raise FileFormatError(f"nested more than {DEEPEST} deep")
    if isinstance(value, _Tensor):
        flat, item = storage(value.storage), storage(value.storage).itemsize
        strides = tuple(s * item for s in value.stride)
        return np.lib.stride_tricks.as_strided(flat[value.offset :], value.size, strides).copy()
    if isinstance(value, dict):
        return {k: _materialise(v, storage, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_materialise(v, storage, depth + 1) for v in value)
    if isinstance(value, (_Name, _Storage)):
        raise FileFormatError(f"a bare {type(value).__name__[1:].lower()} where a value is expected")
    return value


# ---- the stack machine -----------------------------------------------------------------------------------------------
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES",
}  # fmt: skip


def _run(file: BinaryIO) -> tuple[Any, dict[str, _Storage]]:
    """(the value of the next pickle in the file, the storages it names)."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, _Storage] = {}

    def since_mark() -> list[Any]:
        at = len(stack) - 1 - stack[::-1].index(_MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "STOP":
            (value,) = stack
            return value, storages
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _as(stack[-1], dict, name).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            _as(stack[-1], list, name).extend(items)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            names = tuple(argument.split(" ")) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            if names not in NAMES:
                raise FileFormatError(f"refused: the file asks for {'.'.join(map(str, names))}, which is not data")
            stack.append(_Name(*names))
        elif name == "BINPERSID":
            found = _storage(stack.pop())
            if storages.setdefault(found.key, found) != found:
                raise FileFormatError(f"storage {found.key} is described in two ways")
            stack.append(found)
        elif name == "REDUCE":
            arguments = _as(stack.pop(), tuple, name)
            stack.append(_call(stack.pop(), arguments))
        elif name == "BUILD":  # the _metadata of a state dict
            stack.pop()
            _as(stack[-1], dict, name)
        else:
            raise FileFormatError(f"refused: pickle opcode {name}, which tensors do not need")
    raise FileFormatError("truncated: the pickle does not end")


def _as(value: Any, kind: type, opcode: str) -> Any:
    if not isinstance(value, kind):
        raise FileFormatError(f"refused: pickle opcode {opcode} on a {type(value).__name__.strip('_')}")
    return value


def _storage(identity: Any) -> _Storage:
    """From ("storage", type, key, device, count), in legacy files with a view's place after it."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise FileFormatError(f"refused: persistent id {identity!r:.80}")
    kind, key, count = identity[1], identity[2], identity[4]
    if not isinstance(kind, _Name) or kind.name not in STORAGES:
        raise FileFormatError(f"refused: storage of type {kind}")
    if len(identity) == 6 and identity[5] is not None:
        raise FileFormatError("storages that are views of others (PyTorch 0.1) are not supported")
    if not isinstance(key, str) or "/" in key or not isinstance(count, int) or not 0 <= count < LARGEST:
        raise FileFormatError(f"storage {key!r:.40} of {count!r:.40} elements")
    return _Storage(key, STORAGES[kind.name], count)


def _call(name: Any, arguments: tuple) -> Any:
    if name == _Name("collections", "OrderedDict") and not arguments:
        return {}
    if name == _Name("torch", "Size") and len(arguments) == 1:
        return tuple(arguments[0])
    if name == _Name("torch._utils", "_rebuild_parameter") and len(arguments) == 3:
        return _as(arguments[0], _Tensor, "REDUCE")
    if name == _Name("torch._utils", "_rebuild_tensor_v2") and len(arguments) in (6, 7):
        storage, offset, size, stride = arguments[:4]
        numbers = [offset, *size, *stride]
        if not isinstance(storage, _Storage) or not all(type(n) is int and 0 <= n < LARGEST for n in numbers):
            raise FileFormatError(f"a tensor of size {size!r:.60}, stride {stride!r:.60}, offset {offset!r:.20}")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if math.prod(size) > storage.count or math.prod(size) and last >= storage.count or offset > storage.count:
            raise FileFormatError(f"a tensor of size {tuple(size)} does not lie inside its storage of {storage.count}")
        return _Tensor(storage, offset, tuple(size), tuple(stride))
    raise FileFormatError(f"refused: a call of {name} with {len(arguments)} arguments")
