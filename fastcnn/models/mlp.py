"""Networks without convolutions: the perceptron, multilayer perceptrons, a highway network."""

from __future__ import annotations

from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.nn.registry import Configured, register


@register
class MLP(Configured, nn.Module):
    """Linear layers with an activation between them: [N, ...] -> [N, sizes[-1]]; sizes: input, hidden layers, output.

    activation: "tanh", "relu" or "sigmoid". Two sizes make Rosenblatt's perceptron (1958), which cannot learn XOR.
    """

    def __init__(self, sizes: Any, activation: str = "tanh") -> None:
        super().__init__()
        self.sizes, self.activation = tuple(sizes), activation
        kinds = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
        if len(self.sizes) < 2 or activation not in kinds:
            raise ValueError(f"MLP: give 2 sizes and an activation of {', '.join(kinds)}, got {sizes}, {activation!r}")
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:])):
            layers += [kinds[activation]()] if i else []
            layers.append(nn.Linear(inputs, outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        """x: [N, ...] with sizes[0] elements an item."""
        return self.layers(x)


@register
class Highway(Configured, nn.Module):
    """A linear layer, `depth` highway layers y = t * h + (1 - t) * x, a linear layer (Srivastava et al., 2015).

    h = relu(H x), t = sigmoid(T x); the biases of T start at gate_bias, so that a layer begins by passing x on.
    """

    def __init__(self, inputs: int, width: int, depth: int, num_classes: int, gate_bias: float = -2.0) -> None:
        super().__init__()
        self.inputs, self.width, self.depth = inputs, width, depth
        self.num_classes, self.gate_bias = num_classes, gate_bias
        self.first = nn.Linear(inputs, width)
        self.transforms = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.gates = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, num_classes)
        if not nn.init.skipping():
            for gate in self.gates:
                nn.init.constant_(gate.bias, gate_bias)

    def forward(self, x: Any) -> Any:
        """x: [N, ...] with `inputs` elements an item."""
        x = F.relu(self.first(F.flatten(x, 1)))
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            t = F.sigmoid(gate(x))
            x = x + t * (F.relu(transform(x)) - x)
        return self.last(x)


def perceptron(inputs: int = 2, outputs: int = 1) -> MLP:
    """One linear layer."""
    return MLP((inputs, outputs))


def mlp(sizes: Any = (2, 2, 1), activation: str = "tanh") -> MLP:
    """A multilayer perceptron; the default is the smallest that learns XOR."""
    return MLP(sizes, activation)


def highway(
    inputs: int = 784, width: int = 50, depth: int = 10, num_classes: int = 10, gate_bias: float = -2.0
) -> Highway:
    """A highway network; the default is for 28 x 28 digits."""
    return Highway(inputs, width, depth, num_classes, gate_bias)
