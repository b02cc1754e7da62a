"""The one gate for arrays: what is taken as an array, without a copy where possible, and what is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core

_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)
# DLPack's device types whose memory the CPU can read: CPU, CUDA pinned, ROCm pinned, CUDA managed.
_HOST = (1, 3, 11, 13)
_DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 14: "oneAPI", 15: "WebGPU", 17: "MAIA"}


def is_parameter(value: Any) -> bool:
    """Whether value is a Parameter (of fastcnn.nn, which is not imported here)."""
    return hasattr(value, "_grad_slot")


def gate(value: Any, what: str = "input", owner: Any = None) -> np.ndarray:
    """Any array as a C-contiguous, aligned, native float32 one (floats) or int64 one (integers).

    what: the argument's name for error messages, after the class name of `owner` where there is one. See `as_array`
    for what is an array.
    """
    if _core.is_plain(value):
        return value
    if owner is not None:
        what = f"{type(owner).__name__}: {what}"
    array = as_array(value, what)
    if array.size == 0:
        raise ValueError(f"{what} is empty: shape {array.shape}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.require(array, _FLOAT32, ["C", "A"]).view(np.ndarray)
    if array.dtype.kind in "iu":
        return np.require(array, _INT64, ["C", "A"]).view(np.ndarray)
    raise TypeError(
        f"{what} must be an array of floats (or integers for class indices), got dtype {array.dtype}; "
        "convert it with .astype('float32')"
    )


def as_array(value: Any, what: str = "input") -> np.ndarray:
    """`value` as a NumPy array, of any dtype; what shares memory with it stays shared.

    Taken: NumPy arrays, Parameters, whatever offers DLPack on the CPU (PyTorch, JAX), whatever NumPy reads
    (`__array_interface__`, `__array__`, buffers, numbers and nested lists of them). TypeError, which begins with
    `what`: another device, a tensor that requires grad, a dtype that NumPy lacks.
    """
    if isinstance(value, np.ndarray):
        return value
    if is_parameter(value):
        return value.storage
    if hasattr(value, "__dlpack__"):
        return _import(value, what)
    try:
        return np.asarray(value)
    except Exception as error:
        raise TypeError(f"{what} cannot be read as an array, got {_name(value)}: {error}") from error


def from_dlpack(x: Any) -> np.ndarray:
    """The tensor x of another library as a NumPy array over the same memory.

    x: any object with `__dlpack__` (PyTorch, JAX, NumPy, a fastcnn Parameter), of DLPack 0.x or 1.x, of floats or
    integers. The array is read-only where x is, and where x speaks DLPack 0.x, which cannot tell. TypeError, before
    anything is copied: no `__dlpack__`, memory of another device than the CPU, a tensor that requires grad, any other
    dtype (bool, complex, bfloat16, float8).
    """
    if not hasattr(x, "__dlpack__"):
        hint = "; give the tensor itself, not its capsule" if type(x).__name__ == "PyCapsule" else ""
        raise TypeError(f"from_dlpack: x must have a method __dlpack__, got {_name(x)}{hint}")
    array = _import(x, "from_dlpack: x")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"from_dlpack: x must hold floats or integers, got dtype {array.dtype}")
    return array


def _import(value: Any, what: str) -> np.ndarray:
    """np.from_dlpack, with an error that says what is wrong and what to do."""
    if getattr(value, "requires_grad", False) is True and not is_parameter(value):
        raise TypeError(f"{what} requires grad, which another library's backward() would not see; give .detach()")
    try:
        device = int(value.__dlpack_device__()[0]) if hasattr(value, "__dlpack_device__") else 1
    except Exception as error:  # PyTorch's meta tensors: no memory at all
        raise TypeError(f"{what} cannot be read as an array, got {_name(value)}: {error}") from error
    if device not in _HOST:
        name = _DEVICES.get(device, f"DLPack type {device}")
        raise TypeError(
            f"{what} must be in the CPU's memory, got {_name(value)} on another device ({name}); give .cpu()"
        )
    if getattr(value, "is_neg", bool)():  # PyTorch negates such a view when it is read; DLPack does not say so
        raise TypeError(f"{what} has PyTorch's negative bit set; give .resolve_neg()")
    try:
        return np.from_dlpack(value)
    except Exception as error:  # BufferError, RuntimeError, TypeError: whatever the other library chose
        raise TypeError(
            f"{what} cannot be shared through DLPack, got {_name(value)} of dtype "
            f"{getattr(value, 'dtype', 'unknown')}: {error}; "
            "give floats of 16, 32 or 64 bits, or integers, in a dense layout"
        ) from error


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
