"""Layers, losses and containers, with PyTorch's names, arguments, weight shapes and initialisation."""

from fastcnn.nn import init
from fastcnn.nn.activation import ELU, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from fastcnn.nn.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from fastcnn.nn.container import Sequential
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.flatten import Flatten
from fastcnn.nn.linear import Linear
from fastcnn.nn.loss import CrossEntropyLoss, MSELoss
from fastcnn.nn.module import Buffer, Module, Parameter
from fastcnn.nn.pooling import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "ELU",
    "Flatten",
    "LeakyReLU",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "init",
]
