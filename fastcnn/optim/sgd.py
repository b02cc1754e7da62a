"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastcnn.nn import check
from fastcnn.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Gradient descent with momentum, PyTorch's formula.

    g += l1_penalty * sign(p) + weight_decay * p;  buf = momentum * buf + (1 - dampening) * g (buf = g at first);
    p -= lr * (g + momentum * buf if nesterov else buf). lr has no default. maximize: ascend instead.
    """

    kernel = "sgd"

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        maximize: bool = False,
        *,
        l1_penalty: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
                "l1_penalty": l1_penalty,
            },
        )

    def _check(self, group: dict[str, Any]) -> None:
        for option in ("lr", "momentum", "weight_decay", "l1_penalty"):
            check.number(self._name, option, group[option], 0)
        check.number(self._name, "dampening", group["dampening"])
        check.flag(self._name, "maximize", group["maximize"])
        if check.flag(self._name, "nesterov", group["nesterov"]) and (
            group["momentum"] == 0 or group["dampening"] != 0
        ):
            raise ValueError(
                f"{self._name}: nesterov needs momentum > 0 and dampening = 0, got momentum="
                f"{group['momentum']} and dampening={group['dampening']}"
            )

    def _states(self, group: dict[str, Any]) -> dict[str, str]:
        return {"momentum_buffer": "buf"} if group["momentum"] else {}

    def _hyper(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        return (
            group["lr"],
            group["momentum"],
            group["dampening"],
            group["weight_decay"],
            float(group["nesterov"]),
            float(step == 1),
            float(group["maximize"]),
            group["l1_penalty"],
        )
