"""Builds the one extension module: fastcnn._core = the Cython door + dispatch + one static library per ISA.

Environment: FASTCNN_EMULATE_AVX512=1 compiles the 16-lane kernels for AVX2 machines (tests);
FASTCNN_SANITIZE=address|undefined builds with a sanitizer; FASTCNN_DEBUG=1 keeps debug symbols;
FASTCNN_OPENMP_PREFIX names the folder of libomp on macOS (default: what Homebrew says).
"""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

MACOS = sys.platform == "darwin"
EMULATE_AVX512 = os.environ.get("FASTCNN_EMULATE_AVX512", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTCNN_SANITIZE", "")
DEBUG = bool(SANITIZE) or os.environ.get("FASTCNN_DEBUG", "0") not in ("", "0")

if MACOS:  # a universal Python compiles for two machines at once, whose ISA flags exclude each other
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
    X86 = "x86_64" in os.environ["ARCHFLAGS"]
else:
    X86 = platform.machine().lower() in ("x86_64", "amd64")

# Never -march=native (a wheel must run elsewhere), never -ffast-math (it changes NumPy's denormals when loaded).
FLAGS = [
    "-std=gnu11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fPIC",
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
    "-g" if DEBUG else "-g0",
]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
ISA_FLAGS = {"scalar": []}  # the compiler's baseline
if X86:
    ISA_FLAGS["avx2"] = AVX2
    ISA_FLAGS["avx512"] = AVX2 if EMULATE_AVX512 else AVX2 + AVX512


def openmp():
    """Flags that compile and link OpenMP."""
    if not MACOS:
        return ["-fopenmp"], ["-fopenmp"]
    prefix = os.environ.get("FASTCNN_OPENMP_PREFIX", "")
    if not prefix:
        try:
            prefix = subprocess.check_output(["brew", "--prefix", "libomp"], text=True).strip()
        except (OSError, subprocess.CalledProcessError):
            prefix = "/usr/local"
    return ["-Xpreprocessor", "-fopenmp", f"-I{prefix}/include"], [f"-L{prefix}/lib", "-lomp"]


OPENMP, LINK = openmp()
LINK = LINK + ["-lm"]
MACROS = [("FC_EMULATE_AVX512", "1")] if EMULATE_AVX512 else []
if SANITIZE:
    flags = [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
    FLAGS, LINK = FLAGS + flags, LINK + [f"-fsanitize={SANITIZE}"]

# Every object depends on every file of csrc/ (they include each other freely) and on the flags.
DEPENDS = sorted(path for path in glob("csrc/**/*", recursive=True) if os.path.isfile(path)) + ["setup.py"]


class BuildLibraries(build_clib):
    """Builds the libraries side by side, and again when the flags have changed."""

    def build_libraries(self, libraries):
        if self.compiler.compiler_type == "msvc":
            sys.exit("fastcnn needs GCC or Clang: its kernels use their vector extensions")
        os.makedirs(self.build_temp, exist_ok=True)
        stamp = os.path.join(self.build_temp, "flags.txt")
        flags = "\n".join([repr(libraries), repr(MACROS), os.environ.get("CC", ""), os.environ.get("CFLAGS", "")])
        if not os.path.exists(stamp) or Path(stamp).read_text() != flags:
            Path(stamp).write_text(flags)
        for _, info in libraries:
            info["obj_deps"] = {"": [*DEPENDS, stamp]}
        core.depends.append(stamp)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda library: super(BuildLibraries, self).build_libraries([library]), libraries))


class BuildExtension(build_ext):
    """Builds the libraries first, whatever command asked for the extension."""

    def run(self):
        self.run_command("build_clib")
        super().run()


libraries = [
    (f"fastcnn_{isa}", {"sources": [f"csrc/isa/{isa}.c"], "include_dirs": ["csrc"], "cflags": FLAGS + flags})
    for isa, flags in ISA_FLAGS.items()
]
core = Extension(
    "fastcnn._core",
    ["fastcnn/_core.pyx", *sorted(glob("csrc/*.c"))],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), *MACROS],
    extra_compile_args=FLAGS + OPENMP,
    extra_link_args=LINK,
    depends=DEPENDS,
)
core.cython_directives = {"language_level": "3"}

setup(
    libraries=libraries,
    ext_modules=[core],
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtension},
)
