"""Batch normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn.functional.normalization import channel_norm
from fastcnn.nn import check, init
from fastcnn.nn.module import Buffer, Module, Parameter
from fastcnn.nn.registry import Configured, register


class _BatchNorm(Configured, Module):
    """Each channel of x (N, C, ...) with its mean taken away, divided by sqrt(var + eps), times weight, plus bias.

    In training the mean and the biased variance are the batch's, and running_mean and running_var (unbiased) move to
    them by `momentum` (None: their average over all batches); in evaluation the running ones are used, or without
    track_running_stats again the batch's. State: weight, bias (affine), running_mean, running_var,
    num_batches_tracked. A batch with one value per channel has no variance: ValueError in training.
    """

    dimensions: tuple[int, ...] = ()
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Any  # Buffer or None, all three
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.num_features = check.integer(name, "num_features", num_features, 1)
        self.eps = check.number(name, "eps", eps, 0)
        self._hyper = np.zeros(1)  # read by every run: a new momentum needs no new plan
        self.momentum = momentum
        self.affine = check.flag(name, "affine", affine)
        self.track_running_stats = check.flag(name, "track_running_stats", track_running_stats)
        features = np.zeros(self.num_features, np.float32)
        self.register_parameter("weight", Parameter(features + (not init.skipping())) if self.affine else None)
        self.register_parameter("bias", Parameter(features) if self.affine else None)
        if self.track_running_stats:
            self.running_mean, self.running_var = Buffer(features), Buffer(features + 1)
            self.num_batches_tracked = Buffer(np.zeros((), np.int64))
        else:
            self.running_mean = self.running_var = self.num_batches_tracked = None

    @property
    def momentum(self) -> float | None:
        """How far the running statistics move at each step; None: the plain average of all steps."""
        return None if self._hyper[0] < 0 else float(self._hyper[0])

    @momentum.setter
    def momentum(self, value: float | None) -> None:
        self._hyper[0] = -1 if value is None else check.number(type(self).__name__, "momentum", value, 0, 1)

    def forward(self, x: Any) -> Any:
        name = type(self).__name__
        if x.ndim not in self.dimensions:
            allowed = " or ".join(str(d) for d in self.dimensions)
            raise ValueError(f"{name}: input must have {allowed} dimensions (N, C, ...), got shape {x.shape}")
        if x.shape[1] != self.num_features:
            raise ValueError(f"{name}: input has {x.shape[1]} channels (shape {x.shape}), expected {self.num_features}")
        weight, bias = self.weight, self.bias
        if self.running_mean is None:
            return channel_norm(x, None, None, weight, bias, self.eps, layer=name)[0]
        if not self.training:
            return channel_norm(x, self.running_mean, self.running_var, weight, bias, self.eps)[0]
        tracked = self.num_batches_tracked.storage
        running = (self.running_mean.storage, self.running_var.storage, tracked, self._hyper)
        return channel_norm(x, None, None, weight, bias, self.eps, running, layer=name)[0]

    def reset_running_stats(self) -> None:
        """Forget what was seen."""
        if self.running_mean is not None:
            self.running_mean[...], self.running_var[...], self.num_batches_tracked[...] = 0, 1, 0

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


@register
class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L); see BatchNorm2d."""

    dimensions = (2, 3)


@register
class BatchNorm2d(_BatchNorm):
    __doc__ = (_BatchNorm.__doc__ or "").replace("(N, C, ...)", "(N, C, H, W)")
    dimensions = (4,)


@register
class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W); see BatchNorm2d."""

    dimensions = (5,)
