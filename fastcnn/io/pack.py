"""Nested Python values with arrays in them, as JSON and a list of arrays; and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import FileFormatError

# A dict becomes {"dict": [[key, value], ...]} (so integer keys stay integers), a tuple
# {"tuple": [...]}, an array {"array": its place in the list}; a list and plain values stay.


def pack(value: Any, arrays: list[np.ndarray]) -> Any:
    """JSON-able form of None, bools, numbers, strings, lists, tuples, dicts and arrays; the arrays
    are appended to `arrays`. Raises TypeError for anything else."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        pairs = [[pack(key, arrays), pack(item, arrays)] for key, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, (list, tuple)):
        items = [pack(item, arrays) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    raise TypeError(f"cannot save a {type(value).__name__} in a checkpoint")


def unpack(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value that `pack` was given. Raises FileFormatError for anything `pack` cannot have made."""
    if isinstance(value, list):
        return [unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        [(kind, content)] = value.items()
        if kind == "dict":
            return {unpack(key, arrays): unpack(item, arrays) for key, item in content}
        if kind == "tuple":
            return tuple(unpack(item, arrays) for item in content)
        if kind == "array" and content >= 0:
            return arrays[content]
    except (ValueError, TypeError, IndexError, RecursionError):
        pass
    raise FileFormatError("the checkpoint's state is malformed")
