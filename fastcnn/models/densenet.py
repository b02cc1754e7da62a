"""DenseNet (Huang et al., 2016), torchvision's names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import DenseNet121_Weights
from fastcnn.nn.registry import Configured, register


class DenseLayer(nn.Module):
    """Normalisation, ReLU and convolution twice: 1x1 to bn_size * growth_rate channels, 3x3 to growth_rate."""

    def __init__(self, inputs: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, bn_size * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bn_size * growth_rate)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(bn_size * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.drop_rate = drop_rate

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        x = self.conv1(self.relu1(self.norm1(x)))
        x = self.conv2(self.relu2(self.norm2(x)))
        return F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x


class DenseBlock(nn.Module):
    """Layers that each read the block's input and all earlier layers' outputs."""

    def __init__(self, layers: int, inputs: int, growth_rate: int, bn_size: int, drop_rate: float) -> None:
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(inputs + i * growth_rate, growth_rate, bn_size, drop_rate)
            setattr(self, f"denselayer{i + 1}", layer)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        for layer in self.children():
            x = F.cat([x, layer(x)], 1)
        return x


def _transition(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs), relu=nn.ReLU(), conv=nn.Conv2d(inputs, outputs, 1, bias=False),
            pool=nn.AvgPool2d(2, 2),
        )
    )  # fmt: skip


@register
class DenseNet(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]."""

    def __init__(
        self,
        growth_rate: int = 32,
        block_config: Any = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        drop_rate: float = 0.0,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.growth_rate, self.block_config, self.num_init_features = (
            growth_rate,
            tuple(block_config),
            num_init_features,
        )
        self.bn_size, self.drop_rate, self.num_classes = bn_size, drop_rate, num_classes
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, num_init_features, 7, 2, 3, bias=False),
            norm0=nn.BatchNorm2d(num_init_features),
            relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )
        features = num_init_features
        for i, layers in enumerate(self.block_config, 1):
            parts[f"denseblock{i}"] = DenseBlock(layers, features, growth_rate, bn_size, drop_rate)
            features += layers * growth_rate
            if i < len(self.block_config):
                parts[f"transition{i}"] = _transition(features, features // 2)
                features //= 2
        parts["norm5"] = nn.BatchNorm2d(features)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(features, num_classes)
        if not nn.init.skipping():
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), (1, 1))
        return self.classifier(F.flatten(x, 1))


@pretrained(DenseNet121_Weights)
def densenet121(**kwargs: Any) -> DenseNet:
    """DenseNet-121: 7,978,856 parameters."""
    return DenseNet(**kwargs)
