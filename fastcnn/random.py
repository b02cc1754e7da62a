"""The library's random numbers: initialisation, data order, dropout."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_generator = np.random.default_rng(0)


class _Own(threading.local):
    generator: np.random.Generator | None = None


_own = _Own()


def manual_seed(seed: int) -> None:
    """Start all random numbers of the library from `seed` (an int >= 0)."""
    global _generator
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or int(seed) < 0:
        raise ValueError(f"manual_seed: seed must be an int >= 0, got {seed!r}")
    _generator = np.random.default_rng(int(seed))


def generator() -> np.random.Generator:
    """The generator that initialisers draw from."""
    return _own.generator or _generator


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, in this thread, the library's random numbers start from `seed`; those outside go on as if nothing was."""
    old, _own.generator = _own.generator, np.random.default_rng(seed)
    try:
        yield
    finally:
        _own.generator = old


def next_seed() -> int:
    """A fresh 64-bit seed for one run of a program with dropout."""
    return int(generator().integers(0, 2**63))
