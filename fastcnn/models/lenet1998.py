"""LeNet-5 as LeCun, Bottou, Bengio and Haffner published it (1998)."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.nn.registry import Configured, register

# Table I of the paper: the maps of S2 that each map of C3 sees.
CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1), (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5),
    (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2), (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def squash(x: Any) -> Any:
    """The paper's 1.7159 * tanh(2x / 3)."""
    return F.tanh(x * (2 / 3)) * 1.7159


class Subsampling(nn.Module):
    """Sums of 2x2 pixels times one learned coefficient per map, plus a bias."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.full((maps, 1, 1), 0.0 if nn.init.skipping() else 0.25, np.float32))
        self.bias = nn.Parameter(np.zeros((maps, 1, 1), np.float32))

    def forward(self, x: Any) -> Any:
        """x: [N, maps, H, W]."""
        return F.avg_pool2d(x, 2) * 4.0 * self.weight + self.bias


class Connected(nn.Conv2d):
    """A convolution without some of its connections."""

    def forward(self, x: Any, connections: Any) -> Any:  # type: ignore[override]
        """x: [N, in_channels, H, W]; connections: 0 or 1, broadcast to the weight."""
        return F.conv2d(x, self.weight * connections, self.bias)


@register
class LeNet5of1998(Configured, nn.Module):
    """[N, 1, 32, 32] -> [N, 10] squared distances to the classes' 7 x 12 code vectors: the smallest is the answer.

    60,000 trainable parameters, and 900 weights of C3's absent connections that a mask keeps out. codes: [10, 84] of -1
    and 1; the paper draws stylised characters, here they default to fixed random ones.
    """

    def __init__(self, codes: Any = None) -> None:
        super().__init__()
        self.C1 = nn.Conv2d(1, 6, 5)
        self.S2 = Subsampling(6)
        self.C3 = Connected(6, 16, 5)
        self.S4 = Subsampling(16)
        self.C5 = nn.Conv2d(16, 120, 5)
        self.F6 = nn.Linear(120, 84)
        if codes is None:
            codes = np.where(np.random.Generator(np.random.Philox(1998)).random((10, 84)) < 0.5, -1.0, 1.0)
        codes = np.asarray(codes, np.float32)
        if codes.ndim != 2 or codes.shape[1] != 84:
            raise ValueError(f"LeNet5of1998: codes must have shape (classes, 84), got {codes.shape}")
        self.register_buffer("codes", codes)
        mask = np.zeros((16, 6, 1, 1), np.float32)
        for row, maps in enumerate(CONNECTIONS):
            mask[row, list(maps)] = 1
        self.register_buffer("connections", mask)

    def _config_value(self, name: str) -> Any:
        return self.codes.numpy().tolist()

    def forward(self, x: Any) -> Any:
        """x: [N, 1, 32, 32], background -0.1 and foreground 1.175 in the paper."""
        x = squash(self.S2(squash(self.C1(x))))
        x = self.C3(x, self.connections)
        x = squash(self.C5(squash(self.S4(squash(x)))))
        x = squash(self.F6(F.flatten(x, 1)))
        difference = F.unsqueeze(x, 1) - F.unsqueeze(self.codes, 0)
        return F.sum(F.square(difference), 2)


def lenet5_1998(codes: Any = None) -> LeNet5of1998:
    """LeNet-5 of 1998: scaled tanh, C3's connection table, trainable subsampling, radial-basis outputs."""
    return LeNet5of1998(codes)
