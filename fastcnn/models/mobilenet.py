"""MobileNetV2 (Sandler et al., 2018) and V3 small (Howard et al., 2019), torchvision's names."""

from __future__ import annotations

from functools import partial
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.blocks import ConvNormActivation, SqueezeExcitation, make_divisible
from fastcnn.models.start import start_convolutions
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import (
    MobileNet_V2_Weights,
    MobileNet_V3_Small_Weights,
)
from fastcnn.nn.registry import Configured, register


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise 3x3, 1x1 back to few; x is added where shapes allow."""

    def __init__(self, inp: int, oup: int, stride: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = round(inp * expand_ratio)
        self._add = stride == 1 and inp == oup
        layers: list[nn.Module] = []
        if expand_ratio != 1:
            layers.append(ConvNormActivation(inp, hidden, 1, activation=nn.ReLU6))
        layers += [
            ConvNormActivation(hidden, hidden, 3, stride, groups=hidden, activation=nn.ReLU6),
            nn.Conv2d(hidden, oup, 1, bias=False),
            nn.BatchNorm2d(oup),
        ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        """x: [N, inp, H, W]."""
        return x + self.conv(x) if self._add else self.conv(x)


@register
class MobileNetV2(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]; width_mult multiplies the channels, to multiples of round_nearest."""

    # expansion, output channels, blocks, stride of the first one
    SETTING = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(
        self, num_classes: int = 1000, width_mult: float = 1.0, round_nearest: int = 8, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.num_classes, self.width_mult, self.round_nearest, self.dropout = (
            num_classes, width_mult, round_nearest, dropout,
        )  # fmt: skip
        inputs = make_divisible(32 * width_mult, round_nearest)
        last = make_divisible(1280 * max(1.0, width_mult), round_nearest)
        layers: list[nn.Module] = [ConvNormActivation(3, inputs, 3, 2, activation=nn.ReLU6)]
        for expansion, channels, blocks, stride in self.SETTING:
            outputs = make_divisible(channels * width_mult, round_nearest)
            for i in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        layers.append(ConvNormActivation(inputs, last, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        start_convolutions(self, linear_std=0.01)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(F.flatten(x, 1))


class InvertedResidualV3(nn.Module):
    """As V2's, with a squeeze-excitation after the depthwise convolution where asked for, and ReLU or Hardswish."""

    def __init__(
        self, inp: int, kernel: int, hidden: int, oup: int, excite: bool, swish: bool, stride: int, norm: Any
    ) -> None:
        super().__init__()
        self._add = stride == 1 and inp == oup
        activation = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != inp:
            layers.append(ConvNormActivation(inp, hidden, 1, activation=activation, norm=norm))
        layers.append(
            ConvNormActivation(hidden, hidden, kernel, stride, groups=hidden, activation=activation, norm=norm)
        )
        if excite:
            squeezed = make_divisible(hidden // 4, 8)
            layers.append(SqueezeExcitation(hidden, squeezed, scale=nn.Hardsigmoid))
        layers.append(ConvNormActivation(hidden, oup, 1, activation=None, norm=norm))
        self.block = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        """x: [N, inp, H, W]."""
        return x + self.block(x) if self._add else self.block(x)


@register
class MobileNetV3Small(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]."""

    # kernel, hidden channels, output channels, squeeze-excitation, Hardswish (or ReLU), stride
    SETTING = (
        (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
    )  # fmt: skip

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        layers: list[nn.Module] = [ConvNormActivation(3, 16, 3, 2, activation=nn.Hardswish, norm=norm)]
        inputs = 16
        for kernel, hidden, outputs, excite, swish, stride in self.SETTING:
            layers.append(InvertedResidualV3(inputs, kernel, hidden, outputs, excite, swish, stride, norm))
            inputs = outputs
        layers.append(ConvNormActivation(inputs, 6 * inputs, 1, activation=nn.Hardswish, norm=norm))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * inputs, 1024), nn.Hardswish(), nn.Dropout(dropout), nn.Linear(1024, num_classes)
        )
        start_convolutions(self, linear_std=0.01)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@pretrained(MobileNet_V2_Weights)
def mobilenet_v2(**kwargs: Any) -> MobileNetV2:
    """MobileNetV2: 3,504,872 parameters."""
    return MobileNetV2(**kwargs)


@pretrained(MobileNet_V3_Small_Weights)
def mobilenet_v3_small(**kwargs: Any) -> MobileNetV3Small:
    """MobileNetV3 small: 2,542,856 parameters."""
    return MobileNetV3Small(**kwargs)
