"""The ops as functions: arrays in, arrays out, at once; on Symbols they extend the graph being traced.

Names, argument order, defaults and meaning are PyTorch's. All arrays are NCHW and computed in float32; arrays of
float64, float16, any order and any strides are converted, integers (other than class indices) raise TypeError.
"""

from .activation import elu, leaky_relu, log_softmax, relu, sigmoid, softmax, tanh
from .arithmetic import arithmetic, mean, sum
from .conv import conv2d
from .dropout import dropout
from .linear import linear, matmul
from .loss import cross_entropy, mse_loss
from .normalization import batch_norm
from .pooling import avg_pool2d, max_pool2d
from .shape import flatten, pad, reshape, transpose

__all__ = [
    "arithmetic",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "flatten",
    "leaky_relu",
    "linear",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "mean",
    "mse_loss",
    "pad",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sum",
    "tanh",
    "transpose",
]
