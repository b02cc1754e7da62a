"""The ops: importing this package fills the closed list OPS."""

from . import activation, arithmetic, conv, depth, dropout, gather, linear, loss, norm, pool, shape, softmax
from .base import OPS

__all__ = [
    "OPS",
    "activation",
    "arithmetic",
    "conv",
    "depth",
    "dropout",
    "gather",
    "linear",
    "loss",
    "norm",
    "pool",
    "shape",
    "softmax",
]
