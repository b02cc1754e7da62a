"""The base of the optimizers: param groups, flat ranges, hyperparameters that kernels read at run time, state dicts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from fastcnn import _core, config
from fastcnn.optim.flat import Entry, FlatGroup

Step = tuple[str, dict[str, Any]]


class StaleUpdate(RuntimeError):
    """An Update no longer fits the optimizer: call update_steps() again and lower the plan anew."""


class Range:
    """A run of neighbouring parameters that one kernel call updates.

    hyper is the kernel's float64 array: rewritten before each step, so that a plan may keep its address.
    """

    __slots__ = ("entries", "fields", "flat", "group", "hyper", "states", "written")

    def __init__(self, flat: FlatGroup, group: dict[str, Any], entries: list[Entry], states: dict[str, str]) -> None:
        self.flat, self.group, self.entries, self.states = flat, group, entries, states
        self.hyper = np.zeros(16, np.float64)
        self.written: tuple[float, ...] = ()
        first, size = entries[0], sum(entry.size for entry in entries)
        here = slice(first.start, first.start + size)
        grads = slice(first.grad_start, first.grad_start + size)
        there = slice(first.offset, first.offset + size)
        self.fields: dict[str, Any] = {"p": first.block.data[here], "g": first.block.grad[grads]}
        for name, field in states.items():
            self.fields[field] = flat.state(name)[there]
        self.fields.update(hyper=self.hyper, size=size)


class Update(list[Step]):
    """The kernel calls, (name, fields), of one optimizer step over a fixed set of parameters."""

    def __init__(self, kernel: str, ranges: list[Range], entries: int) -> None:
        super().__init__((kernel, one.fields) for one in ranges)
        self.ranges = ranges
        self.entries = entries  # of the whole optimizer, when this was made

    def split(self) -> tuple[dict[int, Step], list[Step]]:
        """The calls for one large parameter each, by its id, and the other ones."""
        pairs = list(zip(self, self.ranges, strict=True))
        large = {id(one.entries[0].param): step for step, one in pairs if one.entries[0].large}
        return large, [step for step, one in pairs if not one.entries[0].large]


class Optimizer:
    """Base class, with PyTorch's interface: param_groups, step, zero_grad, state_dict, load_state_dict.

    params: an iterable of Parameters, or of dicts {"params": ..., "lr": ...} (groups with options of their own).
    Making an optimizer moves the parameters into one flat block; the arrays that Parameter.data gave before are copies
    from then on. TypeError or ValueError for arguments that are not allowed.

    Every optimizer takes l1_penalty=: l1_penalty * sign(p), sign(0) = 0, is added to the gradient of every parameter of
    the group (biases and scales too: a group of their own leaves them out), as l1_penalty * sum(|p|) in the loss would,
    but it does not show in the loss. As a step of finite size, it brings weights near zero rather than to it.
    """

    kernel = ""  # of kernels.def
    saves_step = False  # whether the state dict has a "step" per parameter

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[dict[str, Any]] = []
        self._flats: list[FlatGroup] = []
        self._updates: dict[tuple[bool, ...], Update] = {}
        self._current: Update | None = None
        if isinstance(params, (dict, np.ndarray)) or hasattr(params, "_move"):
            raise TypeError(
                f"{self._name}: params must be an iterable of Parameters or of dicts, got one {type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError(f"{self._name}: params is empty, nothing to optimize")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __getstate__(self) -> dict[str, Any]:
        """For copy.deepcopy and pickle, together with the model: options and states, without the flat blocks."""
        own = {key: value for key, value in self.__dict__.items() if key not in ("_flats", "_updates", "_current")}
        return {**own, "_saved": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("_saved")
        self.__dict__.update(state, _updates={}, _current=None)
        self._flats = [FlatGroup(group["params"]) for group in self.param_groups]
        self.load_state_dict(saved)

    # ---- what a subclass says ------------------------------------------------------------------
    def _check(self, group: dict[str, Any]) -> None:
        """TypeError or ValueError unless the group's options are allowed."""
        raise NotImplementedError

    def _states(self, group: dict[str, Any]) -> dict[str, str]:
        """The states that the group's options call for: name in the state dict -> field of the kernel."""
        raise NotImplementedError

    def _hyper(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """The kernel's hyper array; step is 1 on the first update."""
        raise NotImplementedError

    # ---- PyTorch's interface -------------------------------------------------------------------
    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; options left out are the optimizer's."""
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(f'{self._name}: a param group must be a dict with "params", got {param_group!r}')
        params = param_group["params"]
        params = [params] if hasattr(params, "_move") else list(params)
        group = {**self.defaults, **param_group, "params": params}
        seen = {id(param) for other in self.param_groups for param in other["params"]}
        for param in params:
            if not hasattr(param, "_move"):
                hint = " (pass model.parameters(), not named_parameters())" if isinstance(param, tuple) else ""
                raise TypeError(f"{self._name}: can only optimize Parameters, got {type(param).__name__}{hint}")
            if id(param) in seen:
                raise ValueError(f"{self._name}: a parameter of shape {param.shape} is given more than once")
            seen.add(id(param))
        if not params:
            raise ValueError(f"{self._name}: a param group has no parameters")
        self._check(group)
        self._flats.append(FlatGroup(params))
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: None, or zeros with set_to_none=False."""
        for param in (entry.param for entry in self._entries()):
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad[...] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that requires a gradient and has one. Returns closure's value, if there is one.

        ValueError if a gradient's shape is not its parameter's.
        """
        loss = closure() if closure is not None else None
        active = tuple(e.param.requires_grad and e.param.grad is not None for e in self._entries())
        for entry in (e for e, wanted in zip(self._entries(), active, strict=True) if wanted):
            grad, slot = entry.param.grad, entry.param._grad_slot
            if grad is not slot:
                if np.shape(grad) != slot.shape:
                    raise ValueError(
                        f"{self._name}: a parameter of shape {slot.shape} has a gradient of shape {np.shape(grad)}"
                    )
                slot[...] = grad
        update = self._update(active)
        self._refresh_hyper(update)
        try:
            for name, fields in update:
                _core.run_kernel(name, **fields)
        finally:
            config.weights_changed()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {name: array}}, "param_groups": [...]}, PyTorch's format; the arrays are copies."""
        state: dict[int, dict[str, Any]] = {}
        groups, index = [], 0
        for group, flat in zip(self.param_groups, self._flats, strict=True):
            saved = {key: value for key, value in group.items() if key != "params"}
            saved["params"] = list(range(index, index + len(flat.entries)))
            groups.append(saved)
            for entry in flat.entries:
                if entry.steps:
                    items = {"step": np.array(entry.steps, np.float32)} if self.saves_step else {}
                    for name in self._states(group):
                        items[name] = flat.state_of(entry, name).copy()
                    state[index] = items
                index += 1
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over options and states from state_dict() (or PyTorch's, its tensors as arrays).

        ValueError, before anything has changed, if groups, parameters or shapes do not fit this optimizer.
        """
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                f"{self._name}: the state dict has {len(saved_groups)} param groups, this optimizer has "
                f"{len(self.param_groups)}"
            )
        todo: list[tuple[FlatGroup, Entry, dict[str, Any]]] = []
        for number, (saved, group, flat) in enumerate(zip(saved_groups, self.param_groups, self._flats, strict=True)):
            if len(saved["params"]) != len(flat.entries):
                raise ValueError(
                    f"{self._name}: param group {number} has {len(saved['params'])} parameters in the state "
                    f"dict and {len(flat.entries)} here"
                )
            self._check({**group, **saved})
            wanted = self._states({**group, **saved})
            for index, entry in zip(saved["params"], flat.entries, strict=True):
                items = self._read_state(index, entry, saved_state.get(index, {}), wanted)
                todo.append((flat, entry, items))
        for saved, group in zip(saved_groups, self.param_groups, strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        for flat, entry, items in todo:
            entry.steps = items.pop("steps")
            for name, array in items.items():
                flat.state_of(entry, name)[...] = array
        self._current = None

    def _read_state(self, index: int, entry: Entry, saved: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
        """A parameter's saved state, checked: {"steps": updates so far, name: array or 0}."""
        arrays = {name: np.asarray(saved[name]) for name in wanted if saved.get(name) is not None}
        for name, array in arrays.items():
            if array.shape != tuple(entry.param.shape):
                raise ValueError(
                    f"{self._name}: {name} of parameter {index} has shape {array.shape}, the parameter "
                    f"{tuple(entry.param.shape)}"
                )
        steps = int(saved["step"]) if "step" in saved else int(bool(arrays))
        return {"steps": steps, **{name: arrays.get(name, 0.0) for name in wanted}}

    # ---- for compile_step ----------------------------------------------------------------------
    def _entries(self) -> list[Entry]:
        return [entry for flat in self._flats for entry in flat.entries]

    def update_steps(self, params: Collection[Any] | None = None) -> Update:
        """The kernel calls of one step over the parameters that require gradients, for a plan to carry out.

        params: only these (the ones that get a gradient); None: all. Each item is (kernel name, fields), its pointers
        NumPy arrays that the plan must keep. Gradients are read from Parameter._grad_slot.
        """
        chosen = None if params is None else {id(param) for param in params}
        return self._update(
            tuple(e.param.requires_grad and (chosen is None or id(e.param) in chosen) for e in self._entries())
        )

    def _update(self, active: tuple[bool, ...]) -> Update:
        update = self._updates.get(active)
        if update is None or not self._fits(update):
            ranges, first = [], 0
            for flat, group in zip(self._flats, self.param_groups, strict=True):
                marks = active[first : first + len(flat.entries)]
                first += len(flat.entries)
                states = self._states(group)
                ranges += [Range(flat, group, run, states) for run in flat.runs(marks)]
            update = self._updates[active] = Update(self.kernel, ranges, len(active))
        return update

    def _fits(self, update: Update) -> bool:
        return update.entries == sum(len(flat.entries) for flat in self._flats) and all(
            len({entry.steps for entry in one.entries}) == 1
            and one.states == self._states(one.group)
            and all(entry.block.holds(entry.param) for entry in one.entries)
            for one in update.ranges
        )

    def _refresh_hyper(self, update: Update | None = None) -> None:
        """Count a step and write learning rate and the like where the kernels read them; call before every step.

        update: what update_steps returned; None: the last one used. StaleUpdate, before anything has changed, if it
        must be made anew: parameters that share a kernel call have been stepped different numbers of times (some were
        frozen meanwhile), or options that change the kernel's arguments (momentum from 0) were changed.
        """
        if update is None:
            update = self._current if self._current is not None else self.update_steps()
        stale = (
            update is not self._current
            and not self._fits(update)
            or any(one.states != self._states(one.group) for one in update.ranges)
        )
        if stale:
            raise StaleUpdate(f"{self._name}: call update_steps() again and lower the plan anew")
        self._current = update
        for one in update.ranges:
            step = one.entries[0].steps + 1
            hyper = self._hyper(one.group, step)
            if hyper != one.written:
                one.hyper[: len(hyper)] = one.written = hyper
            if one.states:
                for entry in one.entries:
                    entry.steps = step

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.defaults.items())
        return f"{self._name}({options})"
