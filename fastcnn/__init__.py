"""fastcnn: a small, fast CNN engine for CPUs, with PyTorch's names over NumPy arrays.

    import fastcnn as fc
    from fastcnn import nn, optim, models, datasets
    import fastcnn.functional as F
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import datasets, functional, io, metrics, models, nn, optim, viz
    from .callbacks import Callback, EarlyStopping, ModelCheckpoint
    from .config import get_num_threads, set_num_threads, show_config
    from .data import DataLoader, Dataset
    from .functional import matmul
    from .graph.autograd import Tensor, no_grad, value_and_grad, vjp
    from .io import load, load_state, save
    from .random import manual_seed
    from .step import compile_step
    from .train import History, Trainer

__version__ = "0.1.0"

# name -> module that has it; loaded when first used, so that importing fastcnn costs little more than NumPy
_LAZY = {
    **dict.fromkeys(["get_num_threads", "set_num_threads", "show_config"], "config"),
    **dict.fromkeys(["Tensor", "no_grad", "value_and_grad", "vjp"], "graph.autograd"),
    **dict.fromkeys(["load", "load_state", "save"], "io"),
    **dict.fromkeys(["DataLoader", "Dataset"], "data"),
    **dict.fromkeys(["History", "Trainer"], "train"),
    **dict.fromkeys(["Callback", "EarlyStopping", "ModelCheckpoint"], "callbacks"),
    "manual_seed": "random",
    "compile_step": "step",
    "matmul": "functional",
}
_MODULES = {"callbacks", "data", "datasets", "functional", "io", "metrics", "models", "nn", "optim", "random", "viz"}

__all__ = [*_LAZY, *_MODULES, "__version__"]


def __getattr__(name: str):
    if name in _LAZY:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module 'fastcnn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted(__all__)
