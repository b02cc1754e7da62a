"""What this machine can do at most - multiply-adds a second, bytes a second - measured once and kept on disk."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import _core, config
from ..data.download import cache_dir

USABLE_CACHE = 0.75  # of the last cache: copies of as much and of twice as much as it holds, on Zen 3, are then right
UNKNOWN_CACHE = 8 << 20  # bytes of the last cache, where the system does not say
MOST_MEMORY = 256 << 20  # bytes that a measurement of the memory's bandwidth takes
SECONDS = 0.08  # of each measurement
CHAINS = 12  # multiply_adds in csrc/kernels.def


@dataclass(frozen=True)
class Roofline:
    """The bounds of one machine at a number of threads: GFLOP/s (a multiply-add is 2) and GB/s (of a copy: bytes read
    and bytes written) of all of them together, bytes up to which a working set counts as cached."""

    cpu: str
    isa: str
    threads: int
    gflops: float
    cache_gbs: float
    memory_gbs: float
    cache_bytes: int

    def compute_ms(self, flop: float, threads: int) -> float:
        """Milliseconds that so many threads take at least to compute."""
        return flop / (self.gflops * threads / self.threads) * 1e-6

    def transfer_ms(self, size: float, threads: int) -> float:
        """Milliseconds that they take at least to read and write so many different bytes: what fits into the cache at
        its bandwidth, each thread having its part of it, the rest at the memory's."""
        cached = min(size, self.cache_bytes)
        return (cached / (self.cache_gbs * threads / self.threads) + (size - cached) / self.memory_gbs) * 1e-6

    def describe(self) -> str:
        """One line."""
        return (
            f"{self.cpu}, {self.isa}, {self.threads} thread{'s' * (self.threads > 1)}: at most "
            f"{self.gflops:.0f} GFLOP/s, {self.cache_gbs:.0f} GB/s for the first {self.cache_bytes / 1e6:.0f} MB "
            f"of a step and {self.memory_gbs:.0f} GB/s for the rest"
        )


_known: dict[tuple[str, str, int], Roofline] = {}


def roofline(threads: int | None = None, again: bool = False) -> Roofline:
    """The bounds at this many threads (get_num_threads()) of the instruction set in use: as they were measured before
    on such a CPU, from the cache folder, else (or with `again`) measured now, in less than half a second."""
    key = (cpu_name(), _core.isa()["name"], config.get_num_threads() if threads is None else threads)
    if again or key not in _known:
        found = None if again else _read(key)
        if found is None:
            found = measure(*key)
            _write(key, found)
        _known[key] = found
    return _known[key]


def _file(key: tuple[str, str, int]) -> Path:
    return cache_dir("roofline") / (re.sub(r"\W+", "-", "-".join(map(str, key))).strip("-").lower() + ".json")


def _read(key: tuple[str, str, int]) -> Roofline | None:
    """What the file says, if it is a whole one for this key and a last cache as large."""
    try:
        found = Roofline(**json.loads(_file(key).read_text("utf-8")))
        measured = (found.gflops, found.cache_gbs, found.memory_gbs)
        fits = (found.cpu, found.isa, found.threads) == key and all(0 < n < 1e15 for n in measured)
        return found if fits and found.cache_bytes == usable_cache_bytes(found.threads) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _write(key: tuple[str, str, int], found: Roofline) -> None:
    """Keep it for the next process; where nothing can be kept, that one measures again."""
    with suppress(OSError):
        path = _file(key)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(asdict(found), indent=1), "utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def cpu_name(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The CPU's model, as the system calls it, and its numbers: virtual machines call many models the same."""
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path(cpuinfo).read_text("utf-8", "replace").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    if "model name" not in found:
        return platform.processor() or platform.machine() or "unknown CPU"
    numbers = [f"{name} {found[name]}" for name in ("cpu family", "model", "stepping") if name in found]
    return f"{found['model name']} ({', '.join(numbers)})" if numbers else found["model name"]


def last_cache_bytes(threads: int, root: str = "/sys/devices/system/cpu/cpu0/cache") -> int:
    """The last level of cache that so many threads, on neighbouring CPUs, have together."""
    sizes = [UNKNOWN_CACHE]
    for folder in sorted(Path(root).glob("index*")):
        try:
            size = int((folder / "size").read_text().strip().removesuffix("K")) << 10
            mask = (folder / "shared_cpu_map").read_text().replace(",", "")
            sharing = max(1, bin(int(mask, 16)).count("1"))
        except (OSError, ValueError):
            continue
        sizes.append(size * -(-threads // sharing))
    return sizes[-1]


def usable_cache_bytes(threads: int) -> int:
    """Up to which a working set counts as cached."""
    return int(USABLE_CACHE * last_cache_bytes(threads))


# ---- measuring -------------------------------------------------------------------------------------------------------
def measure(cpu: str, isa: str, threads: int) -> Roofline:
    """The bounds, from the best of repeated runs of two kernels: multiply_adds, and copy in cache and in memory."""
    cache = last_cache_bytes(threads)
    in_cache = copy_gbs(threads, min(cache // 4, 8 << 20))
    in_memory = copy_gbs(threads, min(4 * cache, MOST_MEMORY))
    return Roofline(cpu, isa, threads, peak_gflops(threads), in_cache, in_memory, usable_cache_bytes(threads))


def peak_gflops(threads: int) -> float:
    """The float32 multiply-add peak of so many threads together, a multiply-add counted as 2."""
    items, rounds, vw = 16 * threads, 4000, _core.isa()["vw"]
    ms = _best_ms("multiply_adds", threads, {"y": _core.aligned_array((items, vw))}, count=items, rounds=rounds)
    return 2e-6 * CHAINS * items * rounds * vw / ms


def copy_gbs(threads: int, size: int) -> float:
    """GB/s of copying `size` / 2 bytes to another place, counted as `size`."""
    count, length = max(1, size // 8 // 4096), 4096
    arrays = {name: _core.aligned_array((count * length,)) for name in ("x", "y")}
    arrays["x"].fill(1)  # until then all its pages are the same one
    fields = dict(n=1, c=count, h=1, len=length, x_n=0, x_c=length, x_h=0, y_n=0, y_c=length, y_h=0)
    return 8e-6 * count * length / _best_ms("copy", threads, arrays, **fields)


def _best_ms(kernel: str, threads: int, arrays: dict[str, np.ndarray], **numbers: int) -> float:
    """The least milliseconds of one of the equal steps of a plan, run again and again."""
    plan = _core.Plan(_core.Arena())
    pointers = {name: (plan.add_array(array), 0) for name, array in arrays.items()}
    for _ in range(8):
        plan.add(kernel, threads, {**pointers, **numbers})
    plan.finish(0)
    timings, best = np.zeros(len(plan)), np.inf
    end = time.perf_counter() + SECONDS
    plan.run((), 0, 1, threads)
    while best == np.inf or time.perf_counter() < end:
        plan.run((), 0, len(plan), threads, timings)
        best = min(best, float(timings.min()))
    return max(best, 1e-6)
