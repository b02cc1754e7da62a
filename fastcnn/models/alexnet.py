"""AlexNet: torchvision's ("one weird trick", Krizhevsky, 2014) and the original (Krizhevsky et al., 2012)."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.models.weights import pretrained
from fastcnn.models.weights_table import AlexNet_Weights
from fastcnn.nn.registry import Configured, register


@register
class AlexNet(Configured, nn.Module):
    """[N, 3, H, W] -> [N, num_classes]; made for 224 x 224."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]."""
        return self.classifier(F.flatten(self.avgpool(self.features(x)), 1))


@register
class AlexNet2012(Configured, nn.Module):
    """[N, 3, 227, 227] -> [N, num_classes]: two groups of channels (two GPUs), local response normalisation."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.5) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        norm: dict[str, Any] = dict(
            size=5, alpha=5e-4, beta=0.75, k=2.0
        )  # PyTorch's alpha is over size: 1e-4 times the sum
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4),
            nn.ReLU(),
            nn.LocalResponseNorm(**norm),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2),
            nn.ReLU(),
            nn.LocalResponseNorm(**norm),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        if not nn.init.skipping():
            self._start()

    def _start(self) -> None:
        """Section 5 of the paper: weights from N(0, 0.01^2); biases 1 in layers 2, 4, 5 and the hidden linear ones."""
        ones = (self.features[4], self.features[10], self.features[12], self.classifier[0], self.classifier[3])
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.constant_(module.bias, 1.0 if any(module is m for m in ones) else 0.0)

    def forward(self, x: Any) -> Any:
        """x: [N, 3, 227, 227]."""
        return self.classifier(F.flatten(self.features(x), 1))


@pretrained(AlexNet_Weights)
def alexnet(**kwargs: Any) -> AlexNet:
    """AlexNet as torchvision has it: 61,100,840 parameters."""
    return AlexNet(**kwargs)


def alexnet_2012(**kwargs: Any) -> AlexNet2012:
    """AlexNet as published in 2012: 60,965,224 parameters."""
    return AlexNet2012(**kwargs)
