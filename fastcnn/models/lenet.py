"""Small networks for 1 x 28 x 28 digits: [N, 1, 28, 28] -> logits [N, num_classes]."""

from __future__ import annotations

from typing import Any

from fastcnn.nn import check
from fastcnn.nn.activation import ReLU
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.flatten import Flatten
from fastcnn.nn.linear import Linear
from fastcnn.nn.module import Module
from fastcnn.nn.pooling import MaxPool2d
from fastcnn.nn.registry import Configured, register


@register
class LeNet5(Configured, Module):
    """LeNet-5 (LeCun et al. 1998) as it is built today: ReLU and max pooling; 61,706 parameters for 10 classes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = check.integer("LeNet5", "num_classes", num_classes, 1)
        self.conv1 = Conv2d(1, 6, 5, padding=2)
        self.relu1 = ReLU()
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(6, 16, 5)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        self.fc1 = Linear(400, 120)
        self.relu3 = ReLU()
        self.fc2 = Linear(120, 84)
        self.relu4 = ReLU()
        self.fc3 = Linear(84, self.num_classes)

    def forward(self, x: Any) -> Any:
        """x: [N, 1, 28, 28] -> logits [N, num_classes]."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.flatten(x)
        x = self.relu3(self.fc1(x))
        x = self.relu4(self.fc2(x))
        return self.fc3(x)


@register
class KerasCNN(Configured, Module):
    """The small convolutional network of Keras' first examples: conv 32, pool, conv 64, pool, dense 1024, dense."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = check.integer("KerasCNN", "num_classes", num_classes, 1)
        self.conv1 = Conv2d(1, 32, 3)
        self.relu1 = ReLU()
        self.pool1 = MaxPool2d(2)
        self.conv2 = Conv2d(32, 64, 3)
        self.relu2 = ReLU()
        self.pool2 = MaxPool2d(2)
        self.flatten = Flatten()
        self.fc1 = Linear(1600, 1024)
        self.relu3 = ReLU()
        self.fc2 = Linear(1024, self.num_classes)

    def forward(self, x: Any) -> Any:
        """x: [N, 1, 28, 28] -> logits [N, num_classes]."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.fc1(self.flatten(x)))
        return self.fc2(x)


def lenet5(num_classes: int = 10) -> LeNet5:
    """LeNet-5 for 1 x 28 x 28 images. ValueError if num_classes < 1."""
    return LeNet5(num_classes)


def keras_cnn(num_classes: int = 10) -> KerasCNN:
    """The Keras example network for 1 x 28 x 28 images. ValueError if num_classes < 1."""
    return KerasCNN(num_classes)
