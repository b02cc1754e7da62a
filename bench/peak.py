"""The float32 multiply-add peak of this machine, measured by a loop in C that is compiled on the fly.

python bench/peak.py prints GFLOP/s at 1 thread and at all; without a C compiler it says so and prints nothing else.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCE = """
#ifdef __AVX512F__
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#include <time.h>
typedef float vec __attribute__((vector_size(LANES * 4)));

#define STEP(v) v = v * x + y; __asm__ volatile("" : "+x"(v)); /* one chain stays in one register */

/* The best GFLOP/s of one thread over about `seconds`. */
double peak(double seconds)
{
    vec x = {0}, y = {0};
    x += 0.999f;
    y += 1e-3f;
    vec a = y, b = y, c = y, d = y, e = y, f = y, g = y, h = y, i = y, j = y, k = y, l = y;
    double best = 0, total = 0;
    while (total < seconds) {
        struct timespec t0, t1;
        clock_gettime(CLOCK_MONOTONIC, &t0);
        for (int n = 0; n < 400000; n++) {
            STEP(a) STEP(b) STEP(c) STEP(d) STEP(e) STEP(f)
            STEP(g) STEP(h) STEP(i) STEP(j) STEP(k) STEP(l)
        }
        clock_gettime(CLOCK_MONOTONIC, &t1);
        double elapsed = (t1.tv_sec - t0.tv_sec) + 1e-9 * (t1.tv_nsec - t0.tv_nsec);
        double rate = 2.0 * LANES * 12 * 400000 / elapsed * 1e-9;
        total += elapsed;
        if (rate > best) best = rate;
    }
    a = a + b + c + d + e + f + g + h + i + j + k + l;
    return a[0] == 12345.0f ? 0 : best;
}
"""


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


def measure(threads: int = 1, seconds: float = 0.5) -> float | None:
    """The peak of `threads` threads together in GFLOP/s, or None when there is no C compiler."""
    library = compiled(SOURCE if os.uname().machine in ("x86_64", "AMD64") else SOURCE.replace("+x", "+w"))
    if library is None:
        return None
    library.peak.restype, library.peak.argtypes = ctypes.c_double, [ctypes.c_double]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(library.peak, [seconds] * threads))


if __name__ == "__main__":
    for count in sorted({1, os.cpu_count() or 1}):
        rate = measure(count)
        print("no C compiler" if rate is None else f"{count} thread(s): {rate:.0f} GFLOP/s")
