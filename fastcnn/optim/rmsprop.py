"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastcnn.nn import check
from fastcnn.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """Steps divided by the root of a running mean of squared gradients (Tieleman and Hinton 2012), PyTorch's formula.

    centered: the mean's square is taken off first (Graves 2013, arXiv:1308.0850). weight_decay * p and
    l1_penalty * sign(p) are added to the gradient.
    """

    kernel = "rmsprop"
    saves_step = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        maximize: bool = False,
        *,
        l1_penalty: float = 0.0,
    ) -> None:
        options = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(params, {**options, "centered": centered, "maximize": maximize, "l1_penalty": l1_penalty})

    def _check(self, group: dict[str, Any]) -> None:
        for option in ("lr", "eps", "weight_decay", "momentum", "l1_penalty"):
            check.number(self._name, option, group[option], 0)
        check.number(self._name, "alpha", group["alpha"], 0, 1)
        for option in ("centered", "maximize"):
            check.flag(self._name, option, group[option])

    def _states(self, group: dict[str, Any]) -> dict[str, str]:
        states = {"square_avg": "v"}
        if group["momentum"]:
            states["momentum_buffer"] = "buf"
        if group["centered"]:
            states["grad_avg"] = "avg"
        return states

    def _hyper(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        names = ("lr", "alpha", "eps", "weight_decay", "momentum", "maximize", "l1_penalty")
        return tuple(float(group[name]) for name in names)
