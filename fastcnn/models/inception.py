"""Inception v3 (Szegedy et al., 2015), torchvision's names."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.googlenet import BasicConv2d, scale_as_inception, start_truncated
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import Inception_V3_Weights
from fastcnn.nn.registry import Configured, register

InceptionOutputs = namedtuple("InceptionOutputs", ["logits", "aux_logits"])


class InceptionA(nn.Module):
    """1x1; 5x5; twice 3x3; pooling: side by side."""

    def __init__(self, inputs: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, kernel_size=1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, kernel_size=1)
        self.branch5x5_2 = BasicConv2d(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, kernel_size=3, padding=1)
        self.branch_pool = BasicConv2d(inputs, pool_features, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch1x1(x), five, three, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionB(nn.Module):
    """3x3; twice 3x3; pooling, all with stride 2: side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, kernel_size=3, stride=2)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return F.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """1x1; 7x7 as 1x7 and 7x1; twice that; pooling: side by side."""

    def __init__(self, inputs: int, channels_7x7: int) -> None:
        super().__init__()
        c, wide, high = channels_7x7, dict(kernel_size=(1, 7), padding=(0, 3)), dict(kernel_size=(7, 1), padding=(3, 0))
        self.branch1x1 = BasicConv2d(inputs, 192, kernel_size=1)
        self.branch7x7_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch7x7_2 = BasicConv2d(c, c, **wide)
        self.branch7x7_3 = BasicConv2d(c, 192, **high)
        self.branch7x7dbl_1 = BasicConv2d(inputs, c, kernel_size=1)
        self.branch7x7dbl_2 = BasicConv2d(c, c, **high)
        self.branch7x7dbl_3 = BasicConv2d(c, c, **wide)
        self.branch7x7dbl_4 = BasicConv2d(c, c, **high)
        self.branch7x7dbl_5 = BasicConv2d(c, 192, **wide)
        self.branch_pool = BasicConv2d(inputs, 192, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return F.cat([self.branch1x1(x), once, twice, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionD(nn.Module):
    """3x3; 7x7 and 3x3; pooling, all with stride 2: side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, kernel_size=1)
        self.branch3x3_2 = BasicConv2d(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, kernel_size=1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = BasicConv2d(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = BasicConv2d(192, 192, kernel_size=3, stride=2)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        return F.cat([three, self.branch7x7x3_4(self.branch7x7x3_3(seven)), F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """1x1; 3x3 as 1x3 beside 3x1; the same after a 3x3; pooling: side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        wide, high = dict(kernel_size=(1, 3), padding=(0, 1)), dict(kernel_size=(3, 1), padding=(1, 0))
        self.branch1x1 = BasicConv2d(inputs, 320, kernel_size=1)
        self.branch3x3_1 = BasicConv2d(inputs, 384, kernel_size=1)
        self.branch3x3_2a = BasicConv2d(384, 384, **wide)
        self.branch3x3_2b = BasicConv2d(384, 384, **high)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 448, kernel_size=1)
        self.branch3x3dbl_2 = BasicConv2d(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = BasicConv2d(384, 384, **wide)
        self.branch3x3dbl_3b = BasicConv2d(384, 384, **high)
        self.branch_pool = BasicConv2d(inputs, 192, kernel_size=1)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return F.cat([*parts, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class InceptionAux(nn.Module):
    """A classifier halfway, for the gradient."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = BasicConv2d(inputs, 128, kernel_size=1)
        self.conv1 = BasicConv2d(128, 768, kernel_size=5)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Any) -> Any:
        """x: [N, inputs, H, W]."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


@register
class Inception3(Configured, nn.Module):
    """[N, 3, 299, 299] -> [N, num_classes]; in training with aux_logits (logits, aux_logits)."""

    def __init__(
        self,
        num_classes: int = 1000,
        aux_logits: bool = True,
        transform_input: bool = False,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.num_classes, self.aux_logits, self.transform_input = num_classes, aux_logits, transform_input
        self.init_weights, self._dropout = init_weights, dropout
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = InceptionAux(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(2048, num_classes)
        if init_weights:
            start_truncated(self, 0.1)

    def _config_value(self, name: str) -> Any:
        return self._dropout if name == "dropout" else super()._config_value(name)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, 299, 299]."""
        x = scale_as_inception(x) if self.transform_input else x
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        auxiliary = self.AuxLogits(x) if self.training and self.AuxLogits is not None else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        x = self.fc(self.dropout(F.flatten(self.avgpool(x), 1)))
        return x if auxiliary is None else InceptionOutputs(x, auxiliary)


@pretrained(Inception_V3_Weights)
def inception_v3(**kwargs: Any) -> Inception3:
    """Inception v3: 27,161,264 parameters with its auxiliary head, 23,834,568 without.

    With published weights transform_input is True by default.
    """
    return Inception3(**kwargs)
