"""How every framework's file measures: timing, memory, and fingerprints of results. NumPy only."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import common, problems

TOLERANCE = 2e-4  # of two frameworks' results


def timed(call, seconds: float = 1.0, least: int = 5, warm: int = 2) -> list[float]:
    """Seconds of each call, after `warm` calls, for about `seconds` in all and at least `least` calls."""
    for _ in range(warm):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def result(times: list[float], check=None, **more) -> dict:
    """One measured thing as JSON: median and best of its calls, and a fingerprint of what was computed."""
    values = [] if check is None else fingerprint(np.asarray(check))
    return {"median": statistics.median(times), "best": min(times), "check": values, **more}


def time_training(name: str, quick: bool, prepare: Callable) -> dict[str, dict]:
    """Times `prepare(x, y)`, which must give a function that makes one training step and returns its loss.

    The losses of the first steps are the fingerprint; the memory is the process's peak while training."""
    large = name in common.LARGE
    batch = (common.QUICK_BATCH if quick else common.LARGE[name]) if large else common.BATCH
    reset_peak()
    step = prepare(*(common.large_images if large else common.images)(batch))
    losses = [float(step()) for _ in range(2 if large else 10)]
    if large:
        times = timed(step, 1 if quick else 5, least=3, warm=1)
    else:
        times = timed(step, 0.5 if quick else 3, warm=5)
    return {f"train b{batch}": result(times, losses, images=batch), f"train b{batch} peak MB": memory()}


def time_inference(name: str, quick: bool, prepare: Callable) -> dict[str, dict]:
    """Times `prepare(x)`, which must give a function that returns the logits of x, for a large batch and for one image.

    The memory is the process's peak at the large batch, which comes first."""
    large, out = name in common.LARGE, {}
    reset_peak()
    for batch in ((common.QUICK_BATCH if quick else common.LARGE_BATCH) if large else common.BATCH, 1):
        call = prepare((common.large_images if large else common.images)(batch)[0])
        check = np.array(call())
        if large:
            times = timed(call, 0.5 if quick else 3, least=3, warm=1)
        else:
            times = timed(call, 0.3 if quick else 1.5, warm=20)
        out[f"infer b{batch}"] = result(times, check, images=batch)
        if batch > 1:
            out[f"infer b{batch} peak MB"] = memory()
    return out


def time_scaled(quick: bool, prepare: Callable) -> dict[str, dict]:
    """Times `prepare(model, what, x, y)` at every size that this machine has the memory for. It must give a function
    that makes a training step of a fresh network and returns the loss, or that returns the logits of x."""
    out = {}
    for size in problems.scaled(quick):
        if size.bytes > available_bytes():
            continue
        call = prepare(size.model, size.what, *size.arrays())
        check = np.array(call())
        times = timed(call, 0.1 if quick else 1, least=3, warm=20 if size.model == "lenet5" else 1)
        out[size.name] = result(times, check, place=size.place)
        del call  # and with it the network, before the next is made
    return out


def fingerprint(a: np.ndarray) -> list[float]:
    """Small arrays whole; of large ones 256 elements (corners among them) and 64 sums of magnitudes that cover all."""
    flat = np.ascontiguousarray(a).reshape(-1)
    if flat.size <= 1024:
        return flat.astype(np.float64).tolist()
    where = np.random.Generator(np.random.Philox(5)).integers(0, flat.size, 252)
    where = np.concatenate([[0, a.shape[-1] - 1, flat.size - a.shape[-1], flat.size - 1], where])
    sums = [np.abs(part).mean(dtype=np.float64) for part in np.array_split(flat, 64)]
    return flat[where].astype(np.float64).tolist() + [float(s) for s in sums]


def agree(a: list[float], b: list[float], tolerance: float = TOLERANCE) -> bool:
    """Whether two fingerprints are equal to within rounding, relative to their typical magnitude."""
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or not np.isfinite(x).all():
        return False
    if not x.size:
        return True
    return bool(np.all(np.abs(x - y) <= tolerance * (np.abs(y) + np.sqrt(np.mean(y * y)))))


def import_seconds(module: str, quick: bool) -> list[float]:
    """Warm seconds that `import module` takes once NumPy is there, each in a fresh interpreter."""
    code = f"import numpy, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(4 if quick else 11)]
    return [float(run.stdout) for run in runs[1:]]


def reset_peak() -> None:
    """Count the peak of memory from now on (Linux), so that making weights and loading them is not in it."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def available_bytes() -> float:
    """The memory that this machine can give."""
    info = Path("/proc/meminfo")
    return int(info.read_text().split("MemAvailable:")[1].split()[0]) * 1024 if info.exists() else 8e9


def resident_mb(now: bool = False) -> float:
    """The most memory this process has held at once, in 10^6 bytes; with `now` what it holds, where the system says."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmRSS:" if now else "VmHWM:")[1].split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


def memory() -> dict:
    """resident_mb as a result."""
    peak = resident_mb()
    return {"median": peak, "best": peak, "check": []}
