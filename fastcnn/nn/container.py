"""Containers of modules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import fastcnn.functional as F
from fastcnn.nn import check
from fastcnn.nn.module import Module
from fastcnn.nn.registry import Configured, build, describe, register


@register
class Sequential(Module):
    """Modules called one after the other: Sequential(a, b, ...) or Sequential(OrderedDict(name=module, ...)).

    Children are named "0", "1", ... or by the dict's keys. Indexing gives a module, slicing a Sequential that shares
    its modules. TypeError for anything that is not a module, IndexError past the end.
    """

    _modules: dict[str, Any]

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], dict):
            items: Iterable[tuple[str, Any]] = args[0].items()
        else:
            items = ((str(index), module) for index, module in enumerate(args))
        for name, module in items:
            self._put(name, module)

    def _put(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: child {name!r} must be a fastcnn Module, got {type(module).__name__}")
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"Sequential: a child's name must be text without a dot, got {name!r}")
        if name not in self._modules and hasattr(self, name):
            raise ValueError(f"Sequential: {name!r} is an attribute already, choose another name")
        setattr(self, name, module)

    def _name(self, index: int) -> str:
        names = list(self._modules)
        if not -len(names) <= index < len(names):
            raise IndexError(f"Sequential: index {index} is out of range for {len(names)} modules")
        return names[index]

    def _replace(self, modules: dict[str, Any]) -> None:
        """Have these children instead, in this order."""
        for name in list(self._modules):
            delattr(self, name)
        for name, module in modules.items():
            self._put(name, module)

    def _rename(self, modules: Iterable[Module]) -> None:
        """Have these children instead, named "0", "1", ..."""
        self._replace({str(index): module for index, module in enumerate(modules)})

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[self._name(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: only a Module can be put at {index}, got {type(module).__name__}")
        self._replace({**self._modules, self._name(index): module})

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [self._name(index)]:
            delattr(self, name)
        if names == [str(i) for i in range(len(names))]:  # keep numbered children numbered
            self._rename(list(self))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules.values()))

    def append(self, module: Module) -> Sequential:
        """Add a module at the end; returns self."""
        self._put(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        """Add modules at the end; returns self."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        """Put a module before position `index`; children become numbered; returns self."""
        modules = list(self)
        modules.insert(index, module)
        self._rename(modules)
        return self

    def forward(self, x: Any) -> Any:
        """x: what the first module takes."""
        for module in self._modules.values():
            x = module(x)
        return x

    def config(self) -> dict[str, Any]:
        """{"modules": [[name, described module], ...]}, JSON-able."""
        return {"modules": [[name, describe(module)] for name, module in self._modules.items()]}

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> Sequential:
        """The container that config() described; ValueError when malformed."""
        items = config.get("modules")
        if set(config) != {"modules"} or not isinstance(items, list):
            raise ValueError('architecture: Sequential needs {"modules": [[name, module], ...]}')
        sequential = cls()
        for item in items:
            if not isinstance(item, (list, tuple)) or len(item) != 2:
                raise ValueError("architecture: a child of Sequential must be [name, module]")
            if item[0] in sequential._modules:
                raise ValueError(f"architecture: Sequential has two children named {item[0]!r}")
            sequential._put(item[0], build(item[1], depth + 1))
        return sequential


@register
class Identity(Configured, Module):
    """x as it is."""

    def forward(self, x: Any) -> Any:
        """x: any shape."""
        return x


@register
class Concat(Configured, Module):
    """The arrays of a list (or several arguments) one after the other along dim."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = check.integer("Concat", "dim", dim)

    def forward(self, *xs: Any) -> Any:
        """xs: arrays whose shapes differ along dim only."""
        return F.cat(list(xs[0]) if len(xs) == 1 and isinstance(xs[0], (list, tuple)) else list(xs), self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"


class _Uncalled(Sequential):
    """A container that is never called itself: its children's labels name it too."""

    def _label_of(self, name: str) -> str:
        return f"{self._label}.{name}" if self._label else name

    def _labelled(self, label: str) -> None:
        super()._labelled(label)
        for name, module in self._modules.items():
            module._labelled(self._label_of(name))


@register
class ModuleList(_Uncalled):
    """A list of modules, named "0", "1", ...; it has no forward()."""

    def __init__(self, modules: Any = ()) -> None:
        super().__init__(*modules)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self._modules.values())[index])
        return super().__getitem__(index)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        self.extend(modules)
        return self

    def forward(self, x: Any) -> Any:
        """NotImplementedError: call its modules."""
        raise NotImplementedError("ModuleList has no forward(): call the modules in it")


@register
class ModuleDict(_Uncalled):
    """Modules by name; it has no forward()."""

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Any) -> None:
        """Add modules from a mapping or (name, module) pairs."""
        for name, module in modules.items() if hasattr(modules, "items") else modules:
            self[name] = module

    def __getitem__(self, name: Any) -> Any:
        return self._modules[name]

    def __setitem__(self, name: Any, module: Module) -> None:
        self._put(name, module)

    def __delitem__(self, name: Any) -> None:
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules))

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, module) pairs."""
        return self._modules.items()

    def forward(self, x: Any) -> Any:
        """NotImplementedError: call its modules."""
        raise NotImplementedError("ModuleDict has no forward(): call the modules in it")
