"""Flat storage: parameters, gradients and optimizer states as views of a few float32 blocks.

An optimizer's update is then one kernel call per run of neighbouring parameters, and one for each large parameter: a
training step makes that as soon as it has the gradient. Each parameter starts at a multiple of ALIGN floats; the gaps
hold zeros and stay zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastcnn import _core

ALIGN = 16  # floats: one 64-byte cache line, one AVX-512 vector
LARGE = 1 << 16  # floats: a quarter of a megabyte, next to which a kernel call of its own costs nothing


def padded(size: int) -> int:
    """`size` rounded up to a multiple of ALIGN."""
    return -(-size // ALIGN) * ALIGN


def aligned_zeros(size: int) -> np.ndarray:
    """`size` zeros, float32, at a 64-byte boundary. MemoryError if there is no room."""
    raw = np.zeros(size + ALIGN - 1, np.float32)
    start = (-_address(raw) % (4 * ALIGN)) // 4
    return raw[start : start + size]


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _view(flat: np.ndarray, start: int, shape: tuple[int, ...]) -> np.ndarray:
    return flat[start : start + int(np.prod(shape, dtype=np.int64))].reshape(shape)


class Block:
    """One block of parameter values, and one of their gradients: in the same order, but the large ones at the end, so
    that a training step, which does not store those, leaves the memory for them untouched.

    Making it moves the parameters in (param._move) and tells each where its gradient goes (param._grad_slot). A
    parameter keeps its block alive (param._block), so one that lives in a block never needs to move again: plans that
    hold its address stay right when another optimizer is made over it.
    """

    def __init__(self, params: Sequence[Any]) -> None:
        sizes = [padded(int(np.prod(param.shape, dtype=np.int64))) for param in params]
        self.data = aligned_zeros(sum(sizes))
        self.grad = aligned_zeros(self.data.size)
        start, small, large = 0, 0, sum(size for size in sizes if size < LARGE)
        for param, size in zip(params, sizes, strict=True):
            param._move(_view(self.data, start, param.shape))
            param._grad_slot = _view(self.grad, small if size < LARGE else large, param.shape)
            param._block = self
            start += size
            if size < LARGE:
                small += size
            else:
                large += size
        _core.release_memory()  # that of the arrays from which the parameters came

    def holds(self, param: Any) -> bool:
        """Whether the parameter's storage still is inside this block."""
        base = param.storage.base  # of a deep copy: None
        return base is not None and base is self.data.base

    def start(self, param: Any) -> int:
        """Where the parameter begins, in floats."""
        return (_address(param.storage) - _address(self.data)) // 4

    def grad_start(self, param: Any) -> int:
        """Where its gradient begins, in floats."""
        return (_address(param._grad_slot) - _address(self.grad)) // 4


class Entry:
    """One parameter of an optimizer: where its value lives and where its state does.

    start, grad_start: in its block; offset: in the group's state blocks; size: in floats, gap included; steps: updates
    of its state so far.
    """

    __slots__ = ("block", "grad_start", "offset", "param", "size", "start", "steps")

    def __init__(self, param: Any, offset: int) -> None:
        self.param = param
        self.block: Block = param._block
        self.start, self.grad_start = self.block.start(param), self.block.grad_start(param)
        self.offset = offset
        self.size = padded(int(np.prod(param.shape, dtype=np.int64)))
        self.steps = 0

    @property
    def large(self) -> bool:
        return self.size >= LARGE

    def continues(self, other: Entry) -> bool:
        """Whether one kernel call is to update `other` and then this one."""
        return (
            not (self.large or other.large)
            and self.block is other.block
            and self.start == other.start + other.size
            and self.offset == other.offset + other.size
            and self.steps == other.steps
        )


class FlatGroup:
    """The parameters of one param group in flat storage, with state blocks of the same order.

    Parameters that live in no block yet are moved into a new one; the others stay where they are.
    """

    def __init__(self, params: Sequence[Any]) -> None:
        homeless = [p for p in params if getattr(p, "_block", None) is None or not p._block.holds(p)]
        if homeless:
            Block(homeless)
        self.entries: list[Entry] = []
        self.size = 0
        for param in params:
            self.entries.append(Entry(param, self.size))
            self.size += self.entries[-1].size
        self._states: dict[str, np.ndarray] = {}

    def state(self, name: str) -> np.ndarray:
        """The flat block of one state ("exp_avg"), zeros at first."""
        if name not in self._states:
            self._states[name] = aligned_zeros(self.size)
        return self._states[name]

    def state_of(self, entry: Entry, name: str) -> np.ndarray:
        """One parameter's view of a state, in the parameter's shape."""
        return _view(self.state(name), entry.offset, entry.param.shape)

    def runs(self, active: Sequence[bool]) -> list[list[Entry]]:
        """The entries marked in `active`, in runs that one kernel call can update."""
        runs: list[list[Entry]] = []
        previous = None
        for entry, wanted in zip(self.entries, active, strict=True):
            if wanted and previous is not None and entry.continues(previous):
                runs[-1].append(entry)
            elif wanted:
                runs.append([entry])
            previous = entry if wanted else None
        return runs
