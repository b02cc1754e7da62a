"""Optimizers and learning-rate schedulers, with PyTorch's names, arguments and formulas."""

from fastcnn.optim import lr_scheduler
from fastcnn.optim.adagrad import Adagrad
from fastcnn.optim.adam import Adam, AdamW
from fastcnn.optim.optimizer import Optimizer, StaleUpdate
from fastcnn.optim.rmsprop import RMSprop
from fastcnn.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "StaleUpdate", "lr_scheduler"]
