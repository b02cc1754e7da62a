"""EfficientNet-B0 (Tan and Le, 2019), torchvision's names."""

from __future__ import annotations

import math
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.blocks import ConvNormActivation, SqueezeExcitation
from fastcnn.models.start import start_convolutions
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import EfficientNet_B0_Weights
from fastcnn.nn.registry import Configured, register


class MBConv(nn.Module):
    """1x1 to more channels, depthwise convolution, squeeze-excitation, 1x1 back; stochastic depth before x is added."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int, drop: float) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormActivation(inputs, hidden, 1, activation=nn.SiLU))
        layers += [
            ConvNormActivation(hidden, hidden, kernel, stride, groups=hidden, activation=nn.SiLU),
            SqueezeExcitation(hidden, max(1, inputs // 4), activation=nn.SiLU),
            ConvNormActivation(hidden, outputs, 1, activation=None),
        ]
        self.block = nn.Sequential(*layers)
        self.stochastic_depth = nn.StochasticDepth(drop, "row")
        self._add = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        return x + self.stochastic_depth(self.block(x)) if self._add else self.block(x)


@register
class EfficientNet(Configured, nn.Module):
    """EfficientNet-B0: [N, 3, H, W] -> [N, num_classes]."""

    # expansion, kernel, stride, output channels, blocks
    SETTING = (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )  # fmt: skip

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2, stochastic_depth_prob: float = 0.2) -> None:
        super().__init__()
        self.num_classes, self.dropout, self.stochastic_depth_prob = num_classes, dropout, stochastic_depth_prob
        layers: list[nn.Module] = [ConvNormActivation(3, 32, 3, 2, activation=nn.SiLU)]
        total, number, inputs = sum(setting[-1] for setting in self.SETTING), 0, 32
        for expansion, kernel, stride, outputs, blocks in self.SETTING:
            stage = []
            for i in range(blocks):
                drop = stochastic_depth_prob * number / total
                stage.append(MBConv(inputs, outputs, expansion, kernel, stride if i == 0 else 1, drop))
                inputs, number = outputs, number + 1
            layers.append(nn.Sequential(*stage))
        layers.append(ConvNormActivation(inputs, 4 * inputs, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * inputs, num_classes))
        start_convolutions(self)
        if not nn.init.skipping():
            nn.init.uniform_(self.classifier[1].weight, -1 / math.sqrt(num_classes), 1 / math.sqrt(num_classes))
            nn.init.zeros_(self.classifier[1].bias)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@pretrained(EfficientNet_B0_Weights)
def efficientnet_b0(**kwargs: Any) -> EfficientNet:
    """EfficientNet-B0: 5,288,548 parameters."""
    return EfficientNet(**kwargs)
