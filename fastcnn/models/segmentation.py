"""Networks that label every pixel: FCN on ResNet-50 (Long et al., 2014), U-Net (Ronneberger et al., 2015)."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.resnet import resnet50
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import FCN_ResNet50_Weights
from fastcnn.nn.registry import Configured, register


class _Backbone(nn.Module):
    """ResNet-50 without its head, the last two stages dilated: outputs of layer3 and layer4."""

    def __init__(self) -> None:
        super().__init__()
        net = resnet50(replace_stride_with_dilation=(False, True, True), num_classes=1)
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(net, name))

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return x, self.layer4(x)


class FCNHead(nn.Sequential):
    """3x3 convolution to a quarter of the channels, normalisation, ReLU, dropout, 1x1 convolution to the classes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        middle = inputs // 4
        layers = [nn.Conv2d(inputs, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()]
        super().__init__(*layers, nn.Dropout(0.1), nn.Conv2d(middle, outputs, 1))


@register
class FCN(Configured, nn.Module):
    """[N, 3, H, W] -> logits [N, num_classes, H, W]; with aux_loss, in training, a pair (logits, auxiliary logits)."""

    def __init__(self, num_classes: int = 21, aux_loss: bool = False) -> None:
        super().__init__()
        self.num_classes, self.aux_loss = num_classes, aux_loss
        self.backbone = _Backbone()
        self.classifier = FCNHead(2048, num_classes)
        self.aux_classifier = FCNHead(1024, num_classes) if aux_loss else None

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        size = x.shape[2:]
        middle, last = self.backbone(x)
        out = F.interpolate(self.classifier(last), size=size, mode="bilinear", align_corners=False)
        if not self.training or self.aux_classifier is None:
            return out
        return out, F.interpolate(self.aux_classifier(middle), size=size, mode="bilinear", align_corners=False)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


@register
class UNet(Configured, nn.Module):
    """[N, in_channels, H, W] -> logits [N, num_classes, H, W]; H and W multiples of 2^depth.

    `depth` halvings, channels `width`, 2 width, ...; convolutions are padded and normalised (the paper's are not).
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 2, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.in_channels, self.num_classes, self.width, self.depth = in_channels, num_classes, width, depth
        channels = [width << i for i in range(depth + 1)]
        self.down = nn.ModuleList([_double(i, o) for i, o in zip([in_channels, *channels], channels)])
        pairs = list(zip(channels[:0:-1], channels[-2::-1]))
        self.up = nn.ModuleList([nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs])
        self.merge = nn.ModuleList([_double(i, o) for i, o in pairs])
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Any) -> Any:
        """x: [N, in_channels, H, W]."""
        unit = 1 << self.depth
        if x.ndim != 4:
            raise ValueError(f"UNet: input must have 4 dimensions (N, C, H, W), got shape {x.shape}")
        if x.shape[2] % unit or x.shape[3] % unit:
            raise ValueError(
                f"UNet: height and width must be multiples of {unit} (depth {self.depth}), got {x.shape[2:]}"
            )
        seen = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.max_pool2d(x, 2))
            seen.append(x)
        for up, merge, skip in zip(self.up, self.merge, seen[-2::-1]):
            x = merge(F.cat([skip, up(x)], 1))
        return self.head(x)


@pretrained(FCN_ResNet50_Weights)
def fcn_resnet50(**kwargs: Any) -> FCN:
    """FCN on a dilated ResNet-50: 32,957,013 parameters for 21 classes (35,322,218 with the auxiliary head).

    With published weights aux_loss is True by default.
    """
    return FCN(**kwargs)


def unet(**kwargs: Any) -> UNet:
    """U-Net with 64 to 1024 channels: 31,036,546 parameters for one input channel and two classes."""
    return UNet(**kwargs)
