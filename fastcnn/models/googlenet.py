"""GoogLeNet (Szegedy et al., 2014) with batch normalisation, torchvision's names."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import GoogLeNet_Weights
from fastcnn.nn.registry import Configured, register

GoogLeNetOutputs = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels


class BasicConv2d(nn.Module):
    """Convolution without a bias, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, H, W]."""
        return F.relu(self.bn(self.conv(x)))


def start_truncated(model: nn.Module, std: float = 0.01) -> None:
    """Convolutions and linear layers from N(0, std^2) cut off at +-2."""
    if not nn.init.skipping():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, 0.0, std, -2.0, 2.0)


def scale_as_inception(x: Any) -> Any:
    """From mean and deviation per channel, as torchvision's weights expect, to the range -1 ... 1 of TensorFlow's."""
    parts = [x[:, i : i + 1] * (STD[i] / 0.5) + (MEAN[i] - 0.5) / 0.5 for i in range(3)]
    return F.cat(parts, 1)


class Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and 3x3 (torchvision's 5x5); pooling and 1x1."""

    def __init__(
        self, in_channels: int, ch1x1: int, ch3x3red: int, ch3x3: int, ch5x5red: int, ch5x5: int, pool_proj: int
    ) -> None:
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, ch1x1, kernel_size=1)
        self.branch2 = nn.Sequential(
            BasicConv2d(in_channels, ch3x3red, kernel_size=1), BasicConv2d(ch3x3red, ch3x3, kernel_size=3, padding=1)
        )
        self.branch3 = nn.Sequential(
            BasicConv2d(in_channels, ch5x5red, kernel_size=1), BasicConv2d(ch5x5red, ch5x5, kernel_size=3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), BasicConv2d(in_channels, pool_proj, kernel_size=1)
        )

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, H, W]."""
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """A classifier halfway, for the gradient."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.7) -> None:
        super().__init__()
        self.conv = BasicConv2d(in_channels, 128, kernel_size=1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, H, W]."""
        x = F.flatten(self.conv(F.adaptive_avg_pool2d(x, (4, 4))), 1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


@register
class GoogLeNet(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]; in training with aux_logits (logits, aux_logits2, aux_logits1)."""

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        self.num_classes, self.aux_logits, self.transform_input = num_classes, aux_logits, transform_input
        self.init_weights, self._dropout, self.dropout_aux = init_weights, dropout, dropout_aux
        self.conv1 = BasicConv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(64, 64, kernel_size=1)
        self.conv3 = BasicConv2d(64, 192, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = InceptionAux(512, num_classes, dropout_aux) if aux_logits else None
        self.aux2 = InceptionAux(528, num_classes, dropout_aux) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)
        if init_weights:
            start_truncated(self)

    def _config_value(self, name: str) -> Any:
        return self._dropout if name == "dropout" else super()._config_value(name)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        x = scale_as_inception(x) if self.transform_input else x
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.inception4a(self.maxpool3(self.inception3b(self.inception3a(x))))
        auxiliary = self.training and self.aux1 is not None
        first = self.aux1(x) if auxiliary else None  # type: ignore[misc]
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        second = self.aux2(x) if auxiliary else None  # type: ignore[misc]
        x = self.inception5b(self.inception5a(self.maxpool4(self.inception4e(x))))
        x = self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))
        return GoogLeNetOutputs(x, second, first) if auxiliary else x


@pretrained(GoogLeNet_Weights)
def googlenet(**kwargs: Any) -> GoogLeNet:
    """GoogLeNet: 13,004,888 parameters with its auxiliary heads, 6,624,904 without.

    With published weights aux_logits is False (nobody trained those heads) and transform_input True by default.
    """
    return GoogLeNet(**kwargs)
