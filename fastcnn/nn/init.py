"""Filling parameters with starting values, in place; PyTorch's names and formulas.

Every function takes a Parameter or a float32 array, writes into it and returns it. Random numbers come from
fastcnn.random.generator(), which fastcnn.manual_seed resets.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from fastcnn.random import generator

T = TypeVar("T")
_state = threading.local()
PIECE = 1 << 20  # floats that are drawn at a time: a large weight is filled without a second array of its size


@contextmanager
def skip() -> Iterator[None]:
    """Within this context layers leave their parameters at zero and draw nothing (for weights to be loaded)."""
    before = skipping()
    _state.skipping = True
    try:
        yield
    finally:
        _state.skipping = before


def skipping() -> bool:
    """Whether this thread is inside `skip()`."""
    return getattr(_state, "skipping", False)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _write(tensor: T, values: Any) -> T:
    """By index, not through Parameter.data: a parameter whose array was handed out is packed anew for every run."""
    tensor[...] = values  # type: ignore[index]
    return tensor


def _draw(tensor: T, draw: Callable[[tuple[int, ...]], np.ndarray]) -> T:
    """Fill by rows of the first dimension, with what `draw` gives for a shape."""
    shape = _shape(tensor)
    if not shape:
        return _write(tensor, draw(()))
    step = max(1, PIECE // max(1, math.prod(shape[1:])))
    for row in range(0, shape[0], step):
        count = min(step, shape[0] - row)
        tensor[row : row + count] = draw((count, *shape[1:]))  # type: ignore[index]
    return tensor


def fans(tensor: Any) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight of shape (out, in, ...); ValueError below two dimensions."""
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(f"init: fan in and fan out need a weight of at least 2 dimensions, got {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity; `param` is leaky_relu's slope."""
    fixed = {"linear": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity in fixed:
        return fixed[nonlinearity]
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2 / (1 + slope * slope))
    raise ValueError(f"init: unknown nonlinearity {nonlinearity!r}; known are leaky_relu, {', '.join(fixed)}")


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """Uniform in [a, b)."""
    return _draw(tensor, lambda shape: a + (b - a) * generator().random(shape, dtype=np.float32))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """Normal with this mean and standard deviation."""
    return _draw(tensor, lambda shape: mean + std * generator().standard_normal(shape, dtype=np.float32))


def constant_(tensor: T, val: float) -> T:
    """Every element `val`."""
    return _write(tensor, val)


def zeros_(tensor: T) -> T:
    """Every element 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: T) -> T:
    """Every element 1."""
    return constant_(tensor, 1.0)


def _kaiming_std(tensor: Any, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init: mode must be 'fan_in' or 'fan_out', got {mode!r}")
    fan = fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """He initialisation, uniform: variance gain^2 / fan (He et al. 2015, arXiv:1502.01852)."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """He initialisation, normal: variance gain^2 / fan (He et al. 2015, arXiv:1502.01852)."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """Glorot initialisation, uniform: variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    bound = gain * math.sqrt(6 / max(sum(fans(tensor)), 1))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """Glorot initialisation, normal: variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / max(sum(fans(tensor)), 1)))


def trunc_normal_(tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> T:
    """Normal with this mean and standard deviation, drawn again where it falls outside [a, b]."""
    if not a < b or mean + 8 * std < a or mean - 8 * std > b:
        raise ValueError(f"init: [{a}, {b}] is empty or too far from N({mean}, {std}^2)")
    draw = generator()
    values = mean + std * draw.standard_normal(_shape(tensor), dtype=np.float32)
    outside = (values < a) | (values > b)
    while outside.any():
        values[outside] = mean + std * draw.standard_normal(int(outside.sum()), dtype=np.float32)
        outside = (values < a) | (values > b)
    return _write(tensor, values)


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """Rows (or columns, whichever are fewer) of the weight as a matrix (out, rest) orthogonal, of length `gain`
    (Saxe et al., 2013)."""
    shape = _shape(tensor)
    if len(shape) < 2:
        raise ValueError(f"init: orthogonal_ needs a weight of at least 2 dimensions, got {shape}")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(generator().standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return _write(tensor, gain * (q if rows >= columns else q.T).reshape(shape).astype(np.float32))


def reset(weight: Any, bias: Any) -> None:
    """PyTorch's start of a convolution or linear layer: both uniform in +-1/sqrt(fan_in)."""
    if skipping():
        return
    kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(max(fans(weight)[0], 1))
        uniform_(bias, -bound, bound)
