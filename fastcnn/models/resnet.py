"""ResNet (He et al., 2015), ResNeXt (Xie et al., 2016), wide ResNet (Zagoruyko and Komodakis, 2016).

Names are torchvision's. The CIFAR networks are those of section 4.2 of He et al.: 6n + 2 layers on 32 x 32 images,
shortcuts of zeros (option A).
"""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.start import start_convolutions
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import (
    ResNet18_Weights,
    ResNet34_Weights,
    ResNet50_Weights,
    ResNet101_Weights,
    ResNet152_Weights,
    ResNeXt50_32X4D_Weights,
    Wide_ResNet50_2_Weights,
)
from fastcnn.nn.registry import Configured, register


def conv3x3(inputs: int, outputs: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution, padded to keep the size at stride 1, without a bias."""
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, groups, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without a bias."""
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: Any = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if groups != 1 or base_width != 64 or dilation != 1:
            raise ValueError("BasicBlock: only groups=1, base_width=64 and dilation=1 are possible")
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """x: [N, inplanes, H, W]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: Any = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = conv1x1(inplanes, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride, groups, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Any) -> Any:
        """x: [N, inplanes, H, W]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


BLOCKS: dict[str, Any] = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}


@register
class ResNet(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]: a 7x7 stem, four stages of blocks, the mean over pixels, a linear layer.

    block: BasicBlock or Bottleneck, or its name; layers: blocks per stage. replace_stride_with_dilation: for the last
    three stages, whether dilation takes the place of their stride.
    """

    def __init__(
        self,
        block: Any,
        layers: Any,
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Any = None,
    ) -> None:
        super().__init__()
        self.block = block if isinstance(block, str) else block.__name__
        if self.block not in BLOCKS:
            raise ValueError(f"ResNet: block must be one of {', '.join(BLOCKS)}, got {block!r}")
        kind = BLOCKS[self.block]
        self.layers, self.num_classes = tuple(layers), num_classes
        self.zero_init_residual = zero_init_residual
        self.groups, self.width_per_group = groups, width_per_group
        self.replace_stride_with_dilation = replace_stride_with_dilation
        dilate = [False, *(replace_stride_with_dilation or (False,) * 3)]
        if len(self.layers) != 4 or len(dilate) != 4:
            raise ValueError("ResNet: layers needs 4 numbers, replace_stride_with_dilation 3")
        self._inputs, self._dilation = 64, 1
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._stage(kind, 64, self.layers[0], 1, dilate[0])
        self.layer2 = self._stage(kind, 128, self.layers[1], 2, dilate[1])
        self.layer3 = self._stage(kind, 256, self.layers[2], 2, dilate[2])
        self.layer4 = self._stage(kind, 512, self.layers[3], 2, dilate[3])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * kind.expansion, num_classes)
        start_convolutions(self)
        if zero_init_residual and not nn.init.skipping():
            for module in self.modules():
                if isinstance(module, (BasicBlock, Bottleneck)):
                    nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)

    def _stage(self, kind: Any, planes: int, count: int, stride: int, dilate: bool) -> nn.Sequential:
        first_dilation, outputs, downsample = self._dilation, planes * kind.expansion, None
        if dilate:
            self._dilation, stride = self._dilation * stride, 1
        if stride != 1 or self._inputs != outputs:
            downsample = nn.Sequential(conv1x1(self._inputs, outputs, stride), nn.BatchNorm2d(outputs))
        rest = (self.groups, self.width_per_group)
        blocks = [kind(self._inputs, planes, stride, downsample, *rest, first_dilation)]
        self._inputs = outputs
        blocks += [kind(outputs, planes, 1, None, *rest, self._dilation) for _ in range(1, count)]
        return nn.Sequential(*blocks)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.flatten(self.avgpool(x), 1))


class _ZeroShortcut(nn.Module):
    """Every second pixel, and as many channels of zeros as are missing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels

    def forward(self, x: Any) -> Any:
        """x: [N, channels, H, W]."""
        more = self._channels - x.shape[1]
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more // 2, more - more // 2))


@register
class CifarResNet(Configured, nn.Module):
    """[N, 3, 32, 32] -> [N, num_classes]: three stages of `blocks` BasicBlocks with 16, 32 and 64 channels."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.blocks, self.num_classes = blocks, num_classes
        self.conv1, self.bn1, self.relu = conv3x3(3, 16), nn.BatchNorm2d(16), nn.ReLU()
        inputs = 16
        for number, planes in enumerate((16, 32, 64), 1):
            shortcut = None if planes == inputs else _ZeroShortcut(planes)
            stage = [BasicBlock(inputs, planes, 1 if shortcut is None else 2, shortcut)]
            stage += [BasicBlock(planes, planes) for _ in range(1, blocks)]
            setattr(self, f"layer{number}", nn.Sequential(*stage))
            inputs = planes
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, num_classes)
        start_convolutions(self)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, 32, 32]."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.flatten(self.avgpool(x), 1))


@pretrained(ResNet18_Weights)
def resnet18(**kwargs: Any) -> ResNet:
    """ResNet-18: 11,689,512 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **kwargs)


@pretrained(ResNet34_Weights)
def resnet34(**kwargs: Any) -> ResNet:
    """ResNet-34: 21,797,672 parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **kwargs)


@pretrained(ResNet50_Weights)
def resnet50(**kwargs: Any) -> ResNet:
    """ResNet-50: 25,557,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **kwargs)


@pretrained(ResNet101_Weights)
def resnet101(**kwargs: Any) -> ResNet:
    """ResNet-101: 44,549,160 parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **kwargs)


@pretrained(ResNet152_Weights)
def resnet152(**kwargs: Any) -> ResNet:
    """ResNet-152: 60,192,808 parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **kwargs)


@pretrained(ResNeXt50_32X4D_Weights)
def resnext50_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-50, 32 groups of 4 channels: 25,028,904 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"groups": 32, "width_per_group": 4, **kwargs})


@pretrained(Wide_ResNet50_2_Weights)
def wide_resnet50_2(**kwargs: Any) -> ResNet:
    """ResNet-50 with twice the width inside its blocks: 68,883,240 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **{"width_per_group": 128, **kwargs})


def cifar_resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 for 32 x 32 images: 269,722 parameters for 10 classes."""
    return CifarResNet(3, num_classes)


def cifar_resnet56(num_classes: int = 10) -> CifarResNet:
    """ResNet-56 for 32 x 32 images: 853,018 parameters for 10 classes."""
    return CifarResNet(9, num_classes)
