"""fastcnn: a small, fast CNN engine for CPUs, with PyTorch's names over NumPy arrays.

import fastcnn as fc
from fastcnn import nn, optim, models, datasets
import fastcnn.functional as F
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import callbacks as callbacks
    from . import data as data
    from . import datasets as datasets
    from . import functional as functional
    from . import io as io
    from . import metrics as metrics
    from . import models as models
    from . import nn as nn
    from . import onnx as onnx
    from . import optim as optim
    from . import random as random
    from . import sklearn as sklearn
    from . import viz as viz
    from .arrays import from_dlpack as from_dlpack
    from .callbacks import Callback as Callback
    from .callbacks import EarlyStopping as EarlyStopping
    from .callbacks import ModelCheckpoint as ModelCheckpoint
    from .config import get_conv_algorithm as get_conv_algorithm
    from .config import get_num_threads as get_num_threads
    from .config import set_conv_algorithm as set_conv_algorithm
    from .config import set_num_threads as set_num_threads
    from .config import show_config as show_config
    from .data import DataLoader as DataLoader
    from .data import Dataset as Dataset
    from .functional import matmul as matmul
    from .graph.autograd import Tensor as Tensor
    from .graph.autograd import no_grad as no_grad
    from .graph.autograd import value_and_grad as value_and_grad
    from .graph.autograd import vjp as vjp
    from .io import load as load
    from .io import load_state as load_state
    from .io import load_weights as load_weights
    from .io import save as save
    from .models.finetune import extract_features as extract_features
    from .profiling import profile as profile
    from .random import manual_seed as manual_seed
    from .step import compile_step as compile_step
    from .train import History as History
    from .train import Trainer as Trainer

__version__ = "0.1.0"

# name -> module that has it; loaded when first used, so that importing fastcnn costs little more than NumPy
_LAZY = {
    **dict.fromkeys(
        ["get_conv_algorithm", "get_num_threads", "set_conv_algorithm", "set_num_threads", "show_config"], "config"
    ),
    **dict.fromkeys(["Tensor", "no_grad", "value_and_grad", "vjp"], "graph.autograd"),
    "from_dlpack": "arrays",
    **dict.fromkeys(["load", "load_state", "load_weights", "save"], "io"),
    **dict.fromkeys(["DataLoader", "Dataset"], "data"),
    **dict.fromkeys(["History", "Trainer"], "train"),
    **dict.fromkeys(["Callback", "EarlyStopping", "ModelCheckpoint"], "callbacks"),
    "manual_seed": "random",
    "extract_features": "models.finetune",
    "compile_step": "step",
    "profile": "profiling",
    "matmul": "functional",
}
_MODULES = {
    "callbacks",
    "data",
    "datasets",
    "functional",
    "io",
    "metrics",
    "models",
    "nn",
    "onnx",
    "optim",
    "random",
    "viz",
}
_EXTRA = {"sklearn"}  # not for `import *`: it needs a package that need not be there

__all__ = [*_LAZY, *_MODULES, "__version__"]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    elif name in _MODULES | _EXTRA:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module 'fastcnn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted([*__all__, *_EXTRA])
