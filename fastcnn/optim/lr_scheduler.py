"""Learning rates over time. A scheduler sets lr of every param group when step() is called, once per epoch."""

from __future__ import annotations

import math
from typing import Any

from fastcnn.nn import check
from fastcnn.optim.optimizer import Optimizer


class LRScheduler:
    """Base class: lr = self._lr(initial lr, number of steps so far), PyTorch's closed forms.

    The rate is computed from the initial one alone: a rate set by hand lasts until the next step(), and of two
    schedulers on one optimizer the last one stepped counts (PyTorch's multiply).

    last_epoch: steps taken already, less one; with -1 the groups' present lr becomes their initial lr.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        name = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{name}: optimizer must be an Optimizer, got {type(optimizer).__name__}")
        self.optimizer = optimizer
        self.last_epoch = check.integer(name, "last_epoch", last_epoch, -1)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def _lr(self, base: float, epoch: int) -> float:
        raise NotImplementedError

    def step(self) -> None:
        """Go to the next epoch and set the learning rates."""
        self.last_epoch += 1
        for base, group in zip(self.base_lrs, self.optimizer.param_groups, strict=False):
            group["lr"] = self._lr(base, self.last_epoch)

    def get_last_lr(self) -> list[float]:
        """The present learning rate of each param group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as plain values."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where state_dict() was taken; sets the learning rates. ValueError for a wrong set of names."""
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(f"{type(self).__name__}: expected {sorted(self.state_dict())}, got {sorted(state_dict)}")
        vars(self).update(state_dict)
        for base, group in zip(self.base_lrs, self.optimizer.param_groups, strict=False):
            group["lr"] = self._lr(base, self.last_epoch)


class StepLR(LRScheduler):
    """lr = initial * gamma ** (epoch // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = check.integer("StepLR", "step_size", step_size, 1)
        self.gamma = check.number("StepLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, epoch: int) -> float:
        return base * self.gamma ** (epoch // self.step_size)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (initial - eta_min) * (1 + cos(pi * epoch / T_max)) / 2 (Loshchilov and Hutter 2016)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = check.integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = check.number("CosineAnnealingLR", "eta_min", eta_min, 0)
        super().__init__(optimizer, last_epoch)

    def _lr(self, base: float, epoch: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2
