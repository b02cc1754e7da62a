"""The ops as functions: arrays in, arrays out, at once; on Symbols they extend the graph being traced.

Names, argument order, defaults and meaning are PyTorch's. All arrays are NCHW and computed in float32; arrays of
float64, float16, any order and any strides are converted, integers (other than class indices) raise TypeError.
"""

from __future__ import annotations

import functools
import inspect
import math

import numpy as np

from .graph.autograd import Tensor, call_function
from .graph.trace import Symbol, add_node, leaf
from .ops import OPS
from .ops import arithmetic as _arithmetic
from .ops import shape as _shape
from .ops.base import check_rank, pair
from .ops.conv import sides
from .ops.loss import check_reduction
from .ops.softmax import split


def _freeze(value):
    return tuple(_freeze(v) for v in value) if isinstance(value, (list, tuple, np.ndarray)) else value


def operation(*arrays: str):
    """Let a function of symbols take arrays too. `arrays` names the arguments that are arrays (None is left out)."""

    def decorate(fn):
        signature = inspect.signature(fn)

        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments
            names = [n for n in arrays if values[n] is not None]
            if any(isinstance(values[n], Symbol) for n in names):
                for n in names:
                    if not isinstance(values[n], Symbol):
                        values[n] = leaf(values[n])
                return fn(*bound.args, **bound.kwargs)
            rest = {n: _freeze(v) for n, v in values.items() if n not in names}
            return call_function(
                lambda *symbols, **kw: wrapper(**dict(zip(names, symbols)), **kw),
                fn.__name__,
                [values[n] for n in names],
                rest,
            )

        return wrapper

    return decorate


@operation("x", "weight", "bias")
def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolution of x (N, C, H, W) with weight (O, C/groups, KH, KW), plus bias (O).

    padding: an int, a pair (rows, columns), four ints (top, bottom, left, right), "valid", or "same" (TensorFlow's
    rule: output size ceil(input / stride), the odd zero at the bottom and right).
    """
    check_rank("conv2d", "input", x, 4, "(N, C, H, W)")
    check_rank("conv2d", "weight", weight, 4, "(out, in/groups, kh, kw)")
    stride, dilation = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    pads = sides(padding, weight.shape[2:], stride, dilation, x.shape[2:])
    inputs = [x, weight] + ([bias] if bias is not None else [])
    return add_node(OPS["conv2d"], inputs, stride=stride, pads=pads, dilation=dilation, groups=int(groups))


@operation("x", "weight", "bias")
def linear(x, weight, bias=None):
    """x (..., in) times weight (out, in) transposed, plus bias (out)."""
    if x.ndim > 2:
        flat = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
        return reshape(linear(flat, weight, bias), (*x.shape[:-1], weight.shape[0]))
    return add_node(OPS["linear"], [x, weight] + ([bias] if bias is not None else []))


@operation("a", "b")
def matmul(a, b):
    """The matrix product of a (M, K) and b (K, N)."""
    return add_node(OPS["matmul"], [a, b])


@operation("x")
def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    """Maximum over windows; with return_indices also the flat position of each in its H x W plane (int64)."""
    kernel = pair("max_pool2d", "kernel_size", kernel_size, 1)
    y, idx = add_node(
        OPS["max_pool2d"],
        [x],
        kernel=kernel,
        stride=kernel if stride is None else pair("max_pool2d", "stride", stride, 1),
        padding=pair("max_pool2d", "padding", padding, 0),
        dilation=pair("max_pool2d", "dilation", dilation, 1),
        ceil_mode=bool(ceil_mode),
    )
    return (y, idx) if return_indices else y


@operation("x")
def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """Mean over windows."""
    kernel = pair("avg_pool2d", "kernel_size", kernel_size, 1)
    if divisor_override is not None and (not isinstance(divisor_override, int) or divisor_override == 0):
        raise ValueError(f"avg_pool2d: divisor_override must be an int other than 0, got {divisor_override!r}")
    return add_node(
        OPS["avg_pool2d"],
        [x],
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d", "stride", stride, 1),
        padding=pair("avg_pool2d", "padding", padding, 0),
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(count_include_pad),
        divisor=divisor_override,
    )


def _map(x, kind, alpha=0.0):
    return add_node(OPS["map"], [x], kind=kind, alpha=float(alpha))


@operation("x")
def relu(x):
    """max(x, 0); NaN stays NaN."""
    return _map(x, "relu")


@operation("x")
def leaky_relu(x, negative_slope=0.01):
    """x where positive, else negative_slope * x (negative_slope >= 0)."""
    if not negative_slope >= 0:
        raise ValueError(f"leaky_relu: negative_slope must be >= 0, got {negative_slope}")
    return _map(x, "leaky_relu", negative_slope)


@operation("x")
def elu(x, alpha=1.0):
    """x where positive, else alpha * (exp(x) - 1) (alpha >= 0)."""
    if not alpha >= 0:
        raise ValueError(f"elu: alpha must be >= 0, got {alpha}")
    return _map(x, "elu", alpha)


@operation("x")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return _map(x, "sigmoid")


@operation("x")
def tanh(x):
    """Hyperbolic tangent."""
    return _map(x, "tanh")


def _dim(op, dim, ndim):
    if not isinstance(dim, int) or not -ndim <= dim < ndim:
        raise ValueError(f"{op}: dim must be an int in [{-ndim}, {ndim - 1}], got {dim!r}")
    return dim % ndim


def _softmax(x, dim, log):
    outer, size, inner = split(x.shape, _dim("log_softmax" if log else "softmax", dim, x.ndim))
    flat = add_node(OPS["reshape"], [x], shape=(outer, size, inner))
    return add_node(OPS["reshape"], [add_node(OPS["softmax"], [flat], log=log)], shape=x.shape)


@operation("x")
def softmax(x, dim):
    """exp(x) divided by its sum along dim."""
    return _softmax(x, dim, False)


@operation("x")
def log_softmax(x, dim):
    """Logarithm of softmax, without its overflow."""
    return _softmax(x, dim, True)


@operation("logits", "target", "weight")
def cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
    """Cross-entropy of softmax(logits) (N, C, ...) with class indices target (N, ...), integers in [0, C)."""
    inputs = [logits, target] + ([weight] if weight is not None else [])
    check_reduction("cross_entropy", reduction)
    loss, _ = add_node(
        OPS["cross_entropy"],
        inputs,
        ignore_index=int(ignore_index),
        reduction=reduction,
        label_smoothing=float(label_smoothing),
    )
    return loss if reduction == "none" else add_node(OPS["sum_all"], [loss], alpha=1.0)


@operation("x", "target")
def mse_loss(x, target, reduction="mean"):
    """Squared difference of two arrays of one shape."""
    check_reduction("mse_loss", reduction)
    if x.shape != target.shape:
        raise ValueError(f"mse_loss: input {x.shape} and target {target.shape} must have one shape")
    difference = x - target
    square = difference * difference
    if reduction == "none":
        return square
    return add_node(OPS["sum_all"], [square], alpha=1.0 / square.size if reduction == "mean" else 1.0)


@operation("x")
def dropout(x, p=0.5, training=True):
    """In training, each element is 0 with probability p, else divided by 1 - p."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p must be in [0, 1], got {p}")
    if not training or p == 0:
        return add_node(OPS["reshape"], [x], shape=x.shape)
    if p == 1:
        return _map(x, "scale", 0.0)
    return add_node(OPS["dropout"], [x], p=float(p), stream=None)


@operation("x")
def reshape(x, shape):
    """x in another shape; one dimension may be -1."""
    shape = tuple(int(d) for d in ((shape,) if isinstance(shape, int) else shape))
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape = tuple(x.size // rest if d == -1 and rest else d for d in shape)
    return add_node(OPS["reshape"], [x], shape=shape)


@operation("x")
def flatten(x, start_dim=0, end_dim=-1):
    """x with dimensions start_dim to end_dim joined."""
    if x.ndim == 0:
        return add_node(OPS["reshape"], [x], shape=(1,))
    start, end = _dim("flatten", start_dim, x.ndim), _dim("flatten", end_dim, x.ndim)
    if start > end:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return add_node(
        OPS["reshape"], [x], shape=(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
    )


@operation("x")
def transpose(x, dim0, dim1):
    """x with two dimensions exchanged."""
    axes = list(range(x.ndim))
    first, second = _dim("transpose", dim0, x.ndim), _dim("transpose", dim1, x.ndim)
    axes[first], axes[second] = axes[second], axes[first]
    return _shape.transpose(x, axes)


@operation("x")
def pad(x, pad, mode="constant", value=0.0):
    """Pad the last dimensions: pad = (left, right, top, bottom, ...), last dimension first; negative values crop."""
    if mode != "constant":
        raise ValueError(f'pad: mode must be "constant", got {mode!r}')
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ValueError(f"pad: pad must be pairs for at most {x.ndim} dimensions, got {pad!r}")
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [tuple(pad[i : i + 2]) for i in range(len(pad) - 2, -1, -2)]
    return _shape.pad(x, [lo for lo, _ in pairs], [hi for _, hi in pairs], value)


@operation("x")
def sum(x):
    """The sum of all elements."""
    return add_node(OPS["sum_all"], [x], alpha=1.0)


@operation("x")
def mean(x):
    """The mean of all elements."""
    return add_node(OPS["sum_all"], [x], alpha=1.0 / x.size)


def arithmetic(a, b, kind):
    """a op b for arrays of one shape or an array and a number (what + - * / on a Tensor do)."""
    numbers = (int, float, np.number)
    if isinstance(b, numbers) or np.ndim(b) == 0 and not isinstance(b, (Symbol, Tensor)):
        return _with_number(a, float(b), kind, False)
    if isinstance(a, numbers) or np.ndim(a) == 0 and not isinstance(a, (Symbol, Tensor)):
        return _with_number(b, float(a), kind, True)
    return _arithmetic_arrays(a, b, kind)


@operation("x")
def _with_number(x, number, kind, swapped):
    return _arithmetic.arithmetic(kind, number, x) if swapped else _arithmetic.arithmetic(kind, x, number)


@operation("a", "b")
def _arithmetic_arrays(a, b, kind):
    return _arithmetic.arithmetic(kind, a, b)
