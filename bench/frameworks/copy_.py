"""A yardstick, not a peer: a copy of memory that moves as many bytes as an operation, between arrays of its size."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from . import measure, problems

CONFIGS = {"streaming": ["memcpy", "loop"]}
SOURCE = """
#include <string.h>
#include <time.h>

/* Seconds of one copy of `bytes`, over about `seconds` of them. */
double copies(float *restrict to, const float *restrict from, long bytes, int loop, double seconds)
{
    struct timespec t0, t1;
    double elapsed = 0;
    long count = 0;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    while (elapsed < seconds) {
        for (int n = 0; n < (bytes < 1 << 20 ? 64 : 1); n++, count++) {
            if (loop)
                for (long i = 0; i < bytes / 4; i++) to[i] = from[i];
            else
                memcpy(to, from, bytes);
            __asm__ volatile("" : : "r"(to), "r"(from) : "memory");
        }
        clock_gettime(CLOCK_MONOTONIC, &t1);
        elapsed = (t1.tv_sec - t0.tv_sec) + 1e-9 * (t1.tv_nsec - t0.tv_nsec);
    }
    return elapsed / count;
}
"""


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    return {}


def compiled(source: str) -> ctypes.CDLL | None:
    """The C source as a library for this machine, or None without a C compiler. Its functions run without the GIL."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        c_file, library = Path(folder, "source.c"), Path(folder, "library.so")
        c_file.write_text(source)
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        if subprocess.run([compiler, *flags, str(c_file), "-o", str(library)]).returncode:
            return None
        return ctypes.CDLL(str(library))


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    library = compiled('#pragma GCC optimize("no-tree-loop-distribute-patterns")\n' + SOURCE)
    if library is None:
        raise ModuleNotFoundError("no C compiler", name="a C compiler")
    library.copies.restype = ctypes.c_double
    library.copies.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_double]
    out, seconds = {}, 0.02 if quick else 0.1
    with ThreadPoolExecutor(threads) as pool:
        for p in problems.streaming(quick):
            floats = p.held // 8 // threads  # of each of the two arrays, in each thread
            arrays = [[np.ones(floats, np.float32) for _ in range(2)] for _ in range(threads)]

            def work(pair, floats=floats):
                return library.copies(pair[0].ctypes.data, pair[1].ctypes.data, floats * 4, config == "loop", seconds)

            times = []
            for _ in range(5):
                rate = sum(2 * floats * 4 / each for each in pool.map(work, arrays))  # bytes a second
                times.append(p.moved / rate)
            out[p.name] = measure.result(times)
    return out
