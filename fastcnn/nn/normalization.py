"""Normalisation within an item: layer, group, instance and local response normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcnn.functional as F
from fastcnn.functional.normalization import tracked_instance_norm
from fastcnn.nn import check, init
from fastcnn.nn.batchnorm import _BatchNorm
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.registry import Configured, register


def _ones(shape: Any) -> Parameter:
    return Parameter(np.full(shape, 0.0 if init.skipping() else 1.0, np.float32))


@register
class LayerNorm(Configured, Module):
    """The last dimensions, of shape normalized_shape, brought to mean 0 and variance 1, times weight, plus bias."""

    weight: Parameter | None
    bias: Any

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = check.integers("LayerNorm", "normalized_shape", shape, len(shape), 1)
        self.eps = check.number("LayerNorm", "eps", eps, 0)
        self.elementwise_affine = check.flag("LayerNorm", "elementwise_affine", elementwise_affine)
        has_bias = check.flag("LayerNorm", "bias", bias) and self.elementwise_affine
        self.register_parameter("weight", _ones(shape) if self.elementwise_affine else None)
        self.register_parameter("bias", Parameter(np.zeros(shape, np.float32)) if has_bias else None)

    def forward(self, x: Any) -> Any:
        """x: [..., *normalized_shape]."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


@register
class GroupNorm(Configured, Module):
    """num_groups groups of channels of each item of [N, C, ...] at mean 0 and variance 1, times weight, plus bias."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_groups = check.integer("GroupNorm", "num_groups", num_groups, 1)
        self.num_channels = check.integer("GroupNorm", "num_channels", num_channels, 1)
        if num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels ({num_channels}) must be a multiple of num_groups ({num_groups})"
            )
        self.eps = check.number("GroupNorm", "eps", eps, 0)
        self.affine = check.flag("GroupNorm", "affine", affine)
        self.register_parameter("weight", _ones(num_channels) if self.affine else None)
        self.register_parameter("bias", Parameter(np.zeros(num_channels, np.float32)) if self.affine else None)

    def forward(self, x: Any) -> Any:
        """x: [N, num_channels, ...]."""
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: input must have {self.num_channels} channels, got shape {x.shape}")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class _InstanceNorm(_BatchNorm):
    """Each item's channels brought to mean 0 and variance 1 (with affine: times weight, plus bias).

    With track_running_stats, running_mean and running_var move in training, by `momentum`, to the means over the items
    of their channels' means and unbiased variances, and are used in evaluation. As in PyTorch, momentum None leaves
    them as they are, and num_batches_tracked stays 0.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    @property
    def momentum(self) -> float | None:
        """How far the running statistics move at each step; None: not at all."""
        return None if self._still else float(self._hyper[0])

    @momentum.setter
    def momentum(self, value: float | None) -> None:
        self._still = value is None
        self._hyper[0] = 0 if value is None else check.number(type(self).__name__, "momentum", value, 0, 1)

    def forward(self, x: Any) -> Any:
        """x: [N, num_features, ...], or one item without the N."""
        if x.ndim == self.dimensions[0] - 1:
            return F.squeeze(self.forward(F.unsqueeze(x, 0)), 0)
        if x.ndim not in self.dimensions or x.shape[1] != self.num_features:
            raise ValueError(
                f"{type(self).__name__}: input must have {self.dimensions[0]} dimensions and {self.num_features} "
                f"channels, got shape {x.shape}"
            )
        if self.running_mean is None:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        if not self.training:
            return F.instance_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, use_input_stats=False, eps=self.eps
            )
        running = self.running_mean.storage, self.running_var.storage, self._hyper
        return tracked_instance_norm(x, running, self.weight, self.bias, self.eps)


@register
class InstanceNorm1d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("Each item's channels", "Each item's channels of [N, C, L]")
    dimensions = (3,)


@register
class InstanceNorm2d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("Each item's channels", "Each item's channels of [N, C, H, W]")
    dimensions = (4,)


@register
class InstanceNorm3d(_InstanceNorm):
    __doc__ = (_InstanceNorm.__doc__ or "").replace("Each item's channels", "Each item's channels of [N, C, D, H, W]")
    dimensions = (5,)


@register
class LocalResponseNorm(Configured, Module):
    """x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = check.integer("LocalResponseNorm", "size", size, 1)
        self.alpha = check.number("LocalResponseNorm", "alpha", alpha)
        self.beta = check.number("LocalResponseNorm", "beta", beta)
        self.k = check.number("LocalResponseNorm", "k", k)

    def forward(self, x: Any) -> Any:
        """x: [N, C, ...]."""
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
