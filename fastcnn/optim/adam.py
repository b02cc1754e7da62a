"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastcnn.nn import check
from fastcnn.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014, arXiv:1412.6980), PyTorch's formula.

    weight_decay * p and l1_penalty * sign(p) are added to the gradient. amsgrad: divide by the largest second moment
    so far. maximize: ascend.
    """

    kernel = "adam"
    saves_step = True
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        maximize: bool = False,
        *,
        l1_penalty: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
                "l1_penalty": l1_penalty,
            },
        )

    def _check(self, group: dict[str, Any]) -> None:
        for option in ("lr", "eps", "weight_decay", "l1_penalty"):
            check.number(self._name, option, group[option], 0)
        for option in ("amsgrad", "maximize"):
            check.flag(self._name, option, group[option])
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{self._name}: betas must be a pair of numbers, got {betas!r}")
        for index, beta in enumerate(betas):
            if not 0 <= check.number(self._name, f"betas[{index}]", beta) < 1:
                raise ValueError(f"{self._name}: betas[{index}] must be in [0, 1), got {beta}")

    def _states(self, group: dict[str, Any]) -> dict[str, str]:
        states = {"exp_avg": "m", "exp_avg_sq": "v"}
        return {**states, "max_exp_avg_sq": "vmax"} if group["amsgrad"] else states

    def _hyper(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return (
            group["lr"],
            beta1,
            beta2,
            group["eps"],
            group["weight_decay"],
            float(step),
            float(self.decoupled),
            float(group["maximize"]),
            group["l1_penalty"],
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: p -= lr * weight_decay * p (Loshchilov and Hutter 2017, arXiv:1711.05101).

    l1_penalty * sign(p) is added to the gradient, as in Adam.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        maximize: bool = False,
        *,
        l1_penalty: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize, l1_penalty=l1_penalty)
