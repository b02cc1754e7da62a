"""How the weights of the larger networks start."""

from __future__ import annotations

from fastcnn import nn


def start_convolutions(model: nn.Module, linear_std: float | None = None, zero_bias: bool = True) -> None:
    """Convolutions from N(0, 2 / fan_out) (He et al., 2015), their biases 0; linear layers, where linear_std is given,
    from N(0, linear_std^2) with biases 0. Nothing where weights will be loaded."""
    if nn.init.skipping():
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None and zero_bias:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, 0.0, linear_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
