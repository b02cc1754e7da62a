"""SqueezeNet 1.1 (Iandola et al., 2016), torchvision's names."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import SqueezeNet1_1_Weights
from fastcnn.nn.registry import Configured, register


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side."""

    def __init__(self, inplanes: int, squeeze_planes: int, expand1x1_planes: int, expand3x3_planes: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inplanes, squeeze_planes, 1)
        self.expand1x1 = nn.Conv2d(squeeze_planes, expand1x1_planes, 1)
        self.expand3x3 = nn.Conv2d(squeeze_planes, expand3x3_planes, 3, padding=1)

    def forward(self, x: Any) -> Any:
        """x: [N, inplanes, H, W]."""
        x = F.relu(self.squeeze(x))
        return F.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


@register
class SqueezeNet(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2),
            nn.ReLU(),
            pool(),
            Fire(64, 16, 64, 64),
            Fire(128, 16, 64, 64),
            pool(),
            Fire(128, 32, 128, 128),
            Fire(256, 32, 128, 128),
            pool(),
            Fire(256, 48, 192, 192),
            Fire(384, 48, 192, 192),
            Fire(384, 64, 256, 256),
            Fire(512, 64, 256, 256),
        )
        final = nn.Conv2d(512, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), final, nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1)))
        if not nn.init.skipping():
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    if module is final:
                        nn.init.normal_(module.weight, 0.0, 0.01)
                    else:
                        nn.init.kaiming_uniform_(module.weight)
                    nn.init.zeros_(module.bias)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        return F.flatten(self.classifier(self.features(x)), 1)


@pretrained(SqueezeNet1_1_Weights)
def squeezenet1_1(**kwargs: Any) -> SqueezeNet:
    """SqueezeNet 1.1: 1,235,496 parameters."""
    return SqueezeNet(**kwargs)
