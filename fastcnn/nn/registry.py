"""The closed list of layers that a file may name: architecture <-> plain JSON, without importing by name.

`describe(module)` gives {"type": name, "config": constructor arguments}; `build(spec)` makes the module again. Only
classes in REGISTRY can be described or built.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from fastcnn.nn import init
from fastcnn.nn.module import Module

REGISTRY: dict[str, type] = {}
MAX_DEPTH = 64  # of nested containers in a file

T = TypeVar("T", bound=type)


def register(cls: T) -> T:
    """Class decorator: let files name this module class (by its bare name)."""
    name = cls.__name__
    if REGISTRY.get(name, cls) is not cls:
        raise ValueError(f"register: a module named {name!r} is registered already")
    REGISTRY[name] = cls
    return cls


class Configured:
    """Mixin: config() and from_config() for modules that keep each constructor argument as an attribute."""

    def config(self) -> dict[str, Any]:
        """Constructor arguments as JSON-able values: type(self)(**config) is the same architecture."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: self._config_value(name) for name in names}

    def _config_value(self, name: str) -> Any:
        value = getattr(self, name)
        if name == "bias":  # the attribute is the parameter, the argument says whether there is one
            return value is not None
        return list(value) if isinstance(value, tuple) else value

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> Any:
        """The module with these constructor arguments; `depth` counts the containers around it."""
        return cls(**config)


def describe(module: Module) -> dict[str, Any]:
    """{"type": ..., "config": ...} of a module of a registered class; TypeError for any other."""
    cls = type(module)
    if REGISTRY.get(cls.__name__) is not cls:
        raise TypeError(
            f"{cls.__name__} is not a registered module: only fastcnn's layers and models, alone or in nn.Sequential, "
            "have an architecture that can be written to a file; keep a model of your own by its state_dict()"
        )
    return {"type": cls.__name__, "config": module.config()}


def build(spec: Any, depth: int = 0) -> Module:
    """The module that `spec` (from describe, or from a file: nothing in it is trusted) names.

    Its parameters are zeros, to be filled by load_state_dict. ValueError: malformed, unknown or too deeply nested.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"architecture: containers are nested more than {MAX_DEPTH} deep")
    if not isinstance(spec, dict) or set(spec) != {"type", "config"}:
        raise ValueError('architecture: expected {"type": ..., "config": ...} for every module')
    name, config = spec["type"], spec["config"]
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(f"architecture: unknown module {name!r}; known are {', '.join(sorted(REGISTRY))}")
    if not isinstance(config, dict):
        raise ValueError(f"architecture: the config of {name} must be an object, got {type(config).__name__}")
    with init.skip():
        try:
            return REGISTRY[name].from_config(config, depth)  # type: ignore[attr-defined]
        except TypeError as error:
            raise ValueError(f"architecture: {name} does not accept {config!r}: {error}") from error
