"""The IDX file format of MNIST: a magic number, the dimensions, then the values, all big-endian.

http://yann.lecun.com/exdb/mnist/ describes it: bytes 0 0, one byte for the type, one for the number
of dimensions, one uint32 per dimension, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..io.errors import FileFormatError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE_MAX = 1032  # no gzip stream grows by more than this factor


def read_idx(path: str | os.PathLike[str], ndim: int | None = None) -> np.ndarray:
    """The array in an IDX file, gzipped or not, in the machine's byte order.

    ndim: the number of dimensions it must have. Memory is the array's and a small buffer's.
    Raises FileFormatError if the file is not IDX, is truncated, has bytes left over or other
    dimensions, and OSError if it cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        limit = os.fstat(raw.fileno()).st_size * (_DEFLATE_MAX if packed else 1)
        if not packed:
            return _read(raw, path, ndim, limit)
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                return _read(stream, path, ndim, limit)  # type: ignore[arg-type]
        except EOFError:
            raise FileFormatError(f"{path}: the gzip file is truncated") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise FileFormatError(f"{path}: the gzip file is damaged ({error})") from None


def _read(file: BinaryIO, path: Path, ndim: int | None, limit: int) -> np.ndarray:
    magic = _exactly(file, 4, path)
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise FileFormatError(
            f"{path}: not an IDX file: it begins with {magic.hex(' ')}, not 00 00, a type "
            f"(08 for bytes) and the number of dimensions"
        )
    if ndim is not None and magic[3] != ndim:
        raise FileFormatError(f"{path}: has {magic[3]} dimensions, expected {ndim}")
    shape = struct.unpack(f">{magic[3]}I", _exactly(file, 4 * magic[3], path))
    dtype = np.dtype(_TYPES[magic[2]])
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise FileFormatError(
            f"{path}: truncated: the header promises {size:,} bytes of values {shape}, "
            f"the file cannot hold more than {limit:,}"
        )
    array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < size:
        got = file.readinto(view[done : done + (1 << 20)])  # type: ignore[attr-defined]
        if not got:
            raise FileFormatError(f"{path}: truncated: {done:,} bytes of values, the header promises {size:,} {shape}")
        done += got
    if file.read(1):
        raise FileFormatError(f"{path}: bytes are left over after the values {shape}")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise FileFormatError(f"{path}: truncated: it ends inside its header")
    return data
