"""PyTorch's .pth files, zip and legacy format, read without PyTorch and without executing anything in them.

torch/serialization.py writes a pickle (see torch_pickle.py) that describes tensors as views of storages, and the bytes
of the storages: in a zip archive as members data/<key>, never compressed; in the legacy format after the pickle, each
behind its count. No more memory is ever asked for than the file has bytes (half floats take twice that).
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import FileFormatError
from .torch_pickle import Name, Storage, Tensor, run, show

MAGIC = 0x1950A86A20F9469CFC6C  # first object of a legacy file
DEEPEST = 64  # nested containers
_CHUNK = 1 << 20

# What Python's own readers of zip, pickle and text raise for nonsense; RuntimeError is zipfile's word for "encrypted".
DAMAGED = (
    ValueError, KeyError, IndexError, TypeError, OverflowError, EOFError, OSError, RuntimeError, struct.error,
    zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as one of PyTorch's."""
    with open(path, "rb") as file:
        start = file.read(16)
    return start[:4] == b"PK\x03\x04" or start[:2] in (b"\x80\x02", b"\x80\x04") and b"\x8a\x0a" in start[:14]


def read(path: Path) -> Any:
    """What torch.save wrote: dictionaries, lists, tuples, numbers, text and NumPy arrays (half floats as float32).

    Tensors that share a storage are arrays that share memory, with the tensors' strides. FileFormatError for a file
    that is damaged, or holds anything else; it names what.
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
    left = os.fstat(file.fileno()).st_size  # members can overlap: together they may be no larger than the file
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        programs = [name for name in members if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(programs) != 1:
            raise FileFormatError(f"not a file of torch.save: {len(programs)} members named data.pkl")
        root = programs[0][: -len("data.pkl")]

        def member(name: str, size: int | None = None) -> bytearray:
            nonlocal left
            info = members.get(root + name)
            if info is None:
                raise FileFormatError(f"{root + name} is missing")
            if info.compress_type != zipfile.ZIP_STORED:
                raise FileFormatError(f"{root + name} is compressed, which torch.save never does")
            if size is not None and info.file_size != size:
                raise FileFormatError(f"{root + name} has {info.file_size} bytes, its storage needs {size}")
            if info.file_size != info.compress_size or info.file_size > left:
                raise FileFormatError(f"{root + name} claims {info.file_size} bytes, which the file does not have")
            left -= info.file_size
            with archive.open(info) as source:
                return _exactly(source, info.file_size, root + name)

        order = member("byteorder").decode("ascii", "replace") if root + "byteorder" in members else "little"
        if order not in ("little", "big"):
            raise FileFormatError(f"byte order {order[:40]!r}")
        value, _ = run(io.BytesIO(member("data.pkl")))
        arrays: dict[str, np.ndarray] = {}

        def storage(s: Storage) -> np.ndarray:
            if s.key not in arrays:
                arrays[s.key] = _numbers(member(f"data/{s.key}", s.count * _bytes(s.kind)), s.kind, order)
            return arrays[s.key]

        return _Materialiser(storage).value(value)


def _read_legacy(file: BinaryIO) -> Any:
    source = _Bounded(file)
    magic, _ = run(source)
    if type(magic) is not int or magic != MAGIC:
        raise FileFormatError("not a file of torch.save: no magic number")
    protocol, _ = run(source)
    system, _ = run(source)
    if type(protocol) is not int or protocol != 1001 or not isinstance(system, dict):
        raise FileFormatError(f"legacy protocol {show(protocol)}, only 1001 is known")
    order = "little" if system.get("little_endian", True) else "big"
    value, storages = run(source)
    keys, _ = run(source)
    if not isinstance(keys, list) or any(type(key) is not str or key not in storages for key in keys):
        raise FileFormatError("the list of storages does not fit the tensors")
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        (count,) = struct.unpack("<q" if order == "little" else ">q", source.exactly(8))
        if count != storages[key].count:
            raise FileFormatError(f"storage {show(key)} has {count} elements, its tensors expect {storages[key].count}")
        kind = storages[key].kind
        arrays[key] = _numbers(source.exactly(count * _bytes(kind)), kind, order)
    missing = [key for key in storages if key not in arrays]
    if missing:
        raise FileFormatError(f"storage {show(missing[0])} is missing")
    return _Materialiser(lambda s: arrays[s.key]).value(value)


class _Bounded:
    """A file whose reads never ask for more memory than the file has bytes left."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self.readline, self.tell = file.readline, file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))

    def exactly(self, count: int) -> bytearray:
        rest = self._size - self._file.tell()
        if count > rest:
            raise FileFormatError(f"truncated: {count} bytes expected, {rest} left")
        return _exactly(self._file, count, "a storage")


def _exactly(source: Any, count: int, what: str) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        chunk = source.read(min(_CHUNK, count - at))
        if not chunk:
            raise FileFormatError(f"truncated: {what} ends after {at} of {count} bytes")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
    if isinstance(source, zipfile.ZipExtFile):
        source.read(1)  # at its end it compares the checksum
    return data


def _bytes(kind: str) -> int:
    return 2 if kind == "bf16" else np.dtype(kind).itemsize


def _numbers(data: bytearray, kind: str, order: str) -> np.ndarray:
    """The storage as a native array, half floats as float32."""
    mark: Any = "<" if order == "little" else ">"
    if kind == "bf16":  # the upper half of a float32
        wide = np.frombuffer(data, mark + "u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if kind == "?":
        return np.frombuffer(data, np.uint8) != 0
    array = np.frombuffer(data, np.dtype(kind).newbyteorder(mark))
    return array.astype(np.float32 if kind == "f2" else array.dtype.newbyteorder("="), copy=False)


class _Materialiser:
    """Descriptions into arrays; what the pickle mentions twice is made once."""

    def __init__(self, storage: Callable[[Storage], np.ndarray]) -> None:
        self.storage = storage
        self.made: dict[int, Any] = {}  # by identity: lists of lists of one list stay as small as they are
        self.inside: set[int] = set()

    def value(self, value: Any, depth: int = 0) -> Any:
        if not isinstance(value, (dict, list, tuple, Tensor, Name, Storage)):
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        if depth > DEEPEST or id(value) in self.inside:
            raise FileFormatError(f"nested more than {DEEPEST} deep")
        self.inside.add(id(value))
        self.made[id(value)] = made = self._make(value, depth + 1)
        self.inside.remove(id(value))
        return made

    def _make(self, value: Any, depth: int) -> Any:
        if isinstance(value, Tensor):
            return self._array(value)
        if isinstance(value, dict):
            return {k: self.value(v, depth) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.value(v, depth) for v in value)
        raise FileFormatError(f"a bare {type(value).__name__.lower()} where a value is expected")

    def _array(self, tensor: Tensor) -> np.ndarray:
        if tensor.storage is None:
            return np.empty(0, np.float32)
        flat = self.storage(tensor.storage)
        if len(flat) != tensor.storage.count:  # as_strided trusts it
            raise FileFormatError(f"storage {show(tensor.storage.key)} has {len(flat)} elements")
        strides = tuple(s * flat.itemsize for s in tensor.stride)
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, strides)
