"""Optimizers and learning-rate schedulers, with PyTorch's names, arguments and formulas."""

from fastcnn.optim import lr_scheduler
from fastcnn.optim.adam import Adam, AdamW
from fastcnn.optim.optimizer import Optimizer, StaleUpdate
from fastcnn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "StaleUpdate", "lr_scheduler"]
