"""Networks and their weights by name, as torchvision.models has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from fastcnn import nn
from fastcnn.models.weights import WeightsEnum

# functions of fastcnn.models that build no network
_OTHERS = {
    "get_model", "get_model_builder", "get_model_weights", "get_weight", "input_shape", "list_models", "replace_head",
}  # fmt: skip


def list_models(
    module: ModuleType | None = None,
    include: Iterable[str] | str | None = None,
    exclude: Iterable[str] | str | None = None,
) -> list[str]:
    """The names of the networks, in order.

    module: only those whose builder this module or package (fastcnn.models.resnet) defines; include, exclude: shell
    patterns ("resnet*") of which one must match, or none may.
    """
    from fastcnn import models

    names = sorted(name for name in models.__all__ if name.islower() and name not in _OTHERS)
    if module is not None:
        names = [n for n in names if f"{vars(models)[n].__module__}.".startswith(f"{module.__name__}.")]
    if include:
        names = [name for name in names if _matches(name, include)]
    return [name for name in names if not (exclude and _matches(name, exclude))]


def get_model_builder(name: str) -> Callable[..., nn.Module]:
    """The function of fastcnn.models with this name, upper or lower case; ValueError if there is none."""
    from fastcnn import models

    known = list_models()
    if not isinstance(name, str) or name.lower() not in known:
        raise ValueError(f"unknown model {name!r}; there are {', '.join(known)}")
    return getattr(models, name.lower())


def get_model(name: str, **config: Any) -> nn.Module:
    """The network of this name; config: its builder's arguments, `weights` among them."""
    build = get_model_builder(name)
    if not hasattr(build, "weights_enum"):
        if config.pop("weights", None) is not None:
            raise ValueError(f"{name}: no weights are published for it; fastcnn.load_weights(model, path) reads a file")
        config.pop("progress", None)
    return build(**config)


def get_model_weights(name: Callable[..., nn.Module] | str) -> type[WeightsEnum]:
    """The enum of a network's published weights, by its name or builder; ValueError if there are none."""
    build = get_model_builder(name) if isinstance(name, str) else name
    enum = getattr(build, "weights_enum", None)
    if enum is None:
        raise ValueError(f"no weights are published for {getattr(build, '__name__', build)}")
    return enum


def get_weight(name: str) -> WeightsEnum:
    """The member of this full name, such as "ResNet50_Weights.IMAGENET1K_V2"; ValueError if there is none."""
    from fastcnn import models

    kind, _, member = name.partition(".")
    enum = getattr(models, kind, None)
    if not isinstance(enum, type) or not issubclass(enum, WeightsEnum) or member not in enum.__members__:
        raise ValueError(f"no weights {name!r}; a full name is such as ResNet50_Weights.IMAGENET1K_V2")
    return enum[member]


def _matches(name: str, patterns: Iterable[str] | str) -> bool:
    return any(fnmatchcase(name, p) for p in ([patterns] if isinstance(patterns, str) else patterns))
