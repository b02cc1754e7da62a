"""Blocks that several networks share, torchvision's names inside."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of divisor nearest to value, but not below 0.9 of it (Howard et al., 2017)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class ConvNormActivation(nn.Sequential):
    """Convolution without a bias, padded to keep the size at stride 1, normalisation, activation (or None)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        activation: Any = nn.ReLU,
        norm: Any = nn.BatchNorm2d,
    ) -> None:
        layers = [
            nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            norm(outputs),
        ]
        super().__init__(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    """Each channel times a number in [0, 1] computed from the means of all channels (Hu et al., 2017)."""

    def __init__(self, inputs: int, squeezed: int, activation: Any = nn.ReLU, scale: Any = nn.Sigmoid) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(inputs, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, inputs, 1)
        self.activation = activation()
        self.scale_activation = scale()

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        scale = self.activation(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return x * self.scale_activation(self.fc2(scale))
