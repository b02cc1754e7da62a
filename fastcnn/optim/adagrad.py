"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastcnn.nn import check
from fastcnn.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of squared gradients (Duchi et al. 2011), PyTorch's formula.

    lr / (1 + (step - 1) * lr_decay) is the rate of a step; weight_decay * p and l1_penalty * sign(p) are
    added to the gradient.
    """

    kernel = "adagrad"
    saves_step = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        maximize: bool = False,
        *,
        l1_penalty: float = 0.0,
    ) -> None:
        options = dict(lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay, maximize=maximize)
        options["initial_accumulator_value"] = initial_accumulator_value
        super().__init__(params, {**options, "l1_penalty": l1_penalty})

    def _check(self, group: dict[str, Any]) -> None:
        for option in ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value", "l1_penalty"):
            check.number(self._name, option, group[option], 0)
        check.flag(self._name, "maximize", group["maximize"])

    def _states(self, group: dict[str, Any]) -> dict[str, str]:
        return {"sum": "v"}

    def _hyper(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        names = ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value")
        return (*(float(group[name]) for name in names), float(step), float(group["maximize"]), group["l1_penalty"])
