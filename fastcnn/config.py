"""Process-wide settings: threads, instruction set, random seed, versions that plans depend on."""

from __future__ import annotations

import math
import os
from pathlib import Path

from . import _core

MAX_THREADS = 1024
_threads: int | None = None
_weights = 0
_statistics = 0
_structure = 0
_settings = 0


def _cgroup_quota(root: str = "/sys/fs/cgroup") -> float:
    """CPUs that the container's quota allows (inf without one); cgroup v2, then v1."""
    try:
        fields = Path(root, "cpu.max").read_text().split()
        if fields[0] != "max":
            return int(fields[0]) / int(fields[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        quota = int(Path(root, "cpu/cpu.cfs_quota_us").read_text())
        period = int(Path(root, "cpu/cpu.cfs_period_us").read_text())
        if quota > 0:
            return quota / period
    except (OSError, ValueError):
        pass
    return math.inf


def flag(variable: str) -> bool:
    """Whether an environment variable is set to something other than nothing or 0."""
    return os.environ.get(variable, "") not in ("", "0")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_THREADS


def default_threads() -> tuple[int, str]:
    """How many threads plans use by default, and why. ValueError for a FASTCNN_NUM_THREADS that is no such number."""
    text = os.environ.get("FASTCNN_NUM_THREADS", "").strip()
    if text:
        if not _is_count(text):
            raise ValueError(f"FASTCNN_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, got {text!r}")
        return int(text), f"FASTCNN_NUM_THREADS={text}"
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # a list is one per level of nesting
    if _is_count(text):
        return int(text), f"OMP_NUM_THREADS={text}"
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    if quota < affinity:
        return max(1, math.floor(quota)), f"container quota of {quota:g} CPUs"
    return affinity, f"{affinity} CPUs in the process's affinity"


def get_num_threads() -> int:
    """Threads that plans use: FASTCNN_NUM_THREADS, OMP_NUM_THREADS, else the floor of min(affinity, quota)."""
    global _threads
    if _threads is None:
        _threads = default_threads()[0]
    return _threads


def set_num_threads(n: int) -> None:
    """Use n threads from now on. Results do not depend on it."""
    global _threads
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"set_num_threads: n must be an int, got {n!r}")
    if not 1 <= n <= MAX_THREADS:
        raise ValueError(f"set_num_threads: n must be 1 to {MAX_THREADS}, got {n}")
    _threads = int(n)
    settings_changed()


CONV_ALGORITHMS = ("auto", "direct", "winograd")
_conv_algorithm = "auto"


def get_conv_algorithm() -> str:
    """What set_conv_algorithm last chose."""
    return _conv_algorithm


def set_conv_algorithm(name: str) -> None:
    """How 3x3 and 5x5 convolutions of stride 1 and, where channels are the lanes, 3x3 to 6x6 ones of stride 2 and first
    layers (up to 4 channels) of stride 2 and more are computed from now on.

    "direct": as the sum that defines them (normwise error about 1e-6). "winograd": by Winograd's algorithm on tiles of
    2x2 to 7x7 outputs, an eighth to a half of the multiplications (normwise error up to 2e-5); a NaN or infinity in
    the input then reaches all of the outputs of its tiles, also those whose own windows it is not in. "auto": by
    whichever is less work.
    Other convolutions are always direct.
    """
    global _conv_algorithm
    if name not in CONV_ALGORITHMS:
        raise ValueError(f"set_conv_algorithm: name must be one of {', '.join(CONV_ALGORITHMS)}, got {name!r}")
    _conv_algorithm = name
    structure_changed()


def weights_version() -> int:
    """Grows whenever some parameter's values change other than by a hand-out of `Parameter.data`."""
    return _weights


def weights_changed() -> None:
    global _weights
    _weights += 1


def statistics_version() -> int:
    """Grows whenever a forward run leaves other running statistics in modules."""
    return _statistics


def statistics_changed() -> None:
    global _statistics
    _statistics += 1


def structure_version() -> int:
    """Grows whenever a module gets or loses an attribute, or a parameter moves."""
    return _structure


def structure_changed() -> None:
    global _structure
    _structure += 1
    settings_changed()


def settings_version() -> int:
    """Grows whenever the structure changes, a module begins or ends to train, or set_num_threads is called."""
    return _settings


def settings_changed() -> None:
    global _settings
    _settings += 1


def show_config() -> str:
    """Version, instruction set chosen and available, threads and why, compiler, kernels; prints and returns it."""
    from . import __version__

    threads, why = default_threads()
    if _threads not in (None, threads):
        why = "set_num_threads"
    chosen = _core.isa()
    available = ", ".join(f"{name}{'' if ok else ' (not on this machine)'}" for name, ok in _core.isas())
    text = "\n".join(
        [
            f"fastcnn {__version__}",
            f"instruction set  {chosen['name']} ({chosen['vw']} lanes); available: {available}",
            f"threads          {get_num_threads()} ({why})",
            f"compiler         {_core.compiler()}",
            f"kernels          {len(_core.KERNELS)}: {', '.join(_core.KERNELS)}",
            *_openmp_notes(),
        ]
    )
    print(text)
    return text


def _openmp_notes() -> list[str]:
    """A line when several OpenMP runtimes are loaded in this process: they compete for the cores."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split()[-1] for line in lines if "/" in line}
    found = sorted(p for p in paths if Path(p).name.startswith(("libgomp", "libomp", "libiomp")))
    return [f"OpenMP           {', '.join(found)}" + (" - more than one: expect contention" if len(found) > 1 else "")]
