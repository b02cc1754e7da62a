"""VGG (Simonyan and Zisserman, 2014), torchvision's names."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.start import start_convolutions
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import (
    VGG11_BN_Weights,
    VGG11_Weights,
    VGG13_BN_Weights,
    VGG13_Weights,
    VGG16_BN_Weights,
    VGG16_Weights,
    VGG19_BN_Weights,
    VGG19_Weights,
)
from fastcnn.nn.registry import Configured, register

# output channels of the 3x3 convolutions of each stage; a 2x2 max pooling ends a stage
CONFIGURATIONS = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


@register
class VGG(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]; configuration "A", "B", "D" or "E" is VGG-11, -13, -16 or -19."""

    def __init__(
        self,
        configuration: str,
        batch_norm: bool = False,
        num_classes: int = 1000,
        init_weights: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if configuration not in CONFIGURATIONS:
            raise ValueError(f"VGG: configuration must be one of {', '.join(CONFIGURATIONS)}, got {configuration!r}")
        self.configuration, self.batch_norm, self.num_classes = configuration, batch_norm, num_classes
        self.init_weights, self.dropout = init_weights, dropout
        layers: list[nn.Module] = []
        inputs = 3
        for stage in CONFIGURATIONS[configuration]:
            for outputs in stage:
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outputs))
                layers.append(nn.ReLU())
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if init_weights:
            start_convolutions(self, linear_std=0.01)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@pretrained(VGG11_Weights)
def vgg11(**kwargs: Any) -> VGG:
    """VGG-11: 132,863,336 parameters."""
    return VGG("A", **kwargs)


@pretrained(VGG11_BN_Weights)
def vgg11_bn(**kwargs: Any) -> VGG:
    """VGG-11 with batch normalisation: 132,868,840 parameters."""
    return VGG("A", True, **kwargs)


@pretrained(VGG13_Weights)
def vgg13(**kwargs: Any) -> VGG:
    """VGG-13: 133,047,848 parameters."""
    return VGG("B", **kwargs)


@pretrained(VGG13_BN_Weights)
def vgg13_bn(**kwargs: Any) -> VGG:
    """VGG-13 with batch normalisation: 133,053,736 parameters."""
    return VGG("B", True, **kwargs)


@pretrained(VGG16_Weights)
def vgg16(**kwargs: Any) -> VGG:
    """VGG-16: 138,357,544 parameters."""
    return VGG("D", **kwargs)


@pretrained(VGG16_BN_Weights)
def vgg16_bn(**kwargs: Any) -> VGG:
    """VGG-16 with batch normalisation: 138,365,992 parameters."""
    return VGG("D", True, **kwargs)


@pretrained(VGG19_Weights)
def vgg19(**kwargs: Any) -> VGG:
    """VGG-19: 143,667,240 parameters."""
    return VGG("E", **kwargs)


@pretrained(VGG19_BN_Weights)
def vgg19_bn(**kwargs: Any) -> VGG:
    """VGG-19 with batch normalisation: 143,678,248 parameters."""
    return VGG("E", True, **kwargs)
