"""Builds the one extension module: fastcnn._core = Cython door + dispatch + one static library per ISA."""

import platform
import sys

from setuptools import Extension, setup

X86 = platform.machine().lower() in ("x86_64", "amd64")
FLAGS = ["-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fPIC",
         "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
ISA_FLAGS = {"scalar": []}
if X86:
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISA_FLAGS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma",
                           "-mprefer-vector-width=512"]
OPENMP = ["-Xpreprocessor", "-fopenmp"] if sys.platform == "darwin" else ["-fopenmp"]
OPENMP_LINK = ["-lomp"] if sys.platform == "darwin" else ["-fopenmp"]

libraries = [
    (f"fastcnn_{isa}", {"sources": [f"csrc/isa/{isa}.c"], "include_dirs": ["csrc"], "cflags": FLAGS + flags})
    for isa, flags in ISA_FLAGS.items()
]
core = Extension(
    "fastcnn._core",
    ["fastcnn/_core.pyx", "csrc/dispatch.c", "csrc/run.c", "csrc/memory.c"],
    include_dirs=["csrc"],
    extra_compile_args=FLAGS + OPENMP,
    extra_link_args=OPENMP_LINK,
)

setup(libraries=libraries, ext_modules=[core])
