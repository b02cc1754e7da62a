"""What every framework's file shares: problems, weights, data, timing and fingerprints of results.

NumPy only. Everything random comes from fixed seeds, so that each framework computes the same numbers in its own
process and `compare.py` can check one against another.
"""

from __future__ import annotations

import gzip
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROBLEMS = Path(__file__).resolve().parent.parent / "problems"
BATCH = 64
LEARNING_RATE, MOMENTUM = 0.01, 0.9
STEPS_CHECKED = 10  # losses of the first steps are the fingerprint of a training task

# The networks as plain lists: ("conv", in, out, kernel, padding), ("linear", in, out), and names without numbers.
MODELS = {
    "lenet5": [
        ("conv", 1, 6, 5, 2), ("relu",), ("pool",), ("conv", 6, 16, 5, 0), ("relu",), ("pool",), ("flatten",),
        ("linear", 400, 120), ("relu",), ("linear", 120, 84), ("relu",), ("linear", 84, 10),
    ],
    "keras_cnn": [
        ("conv", 1, 32, 3, 0), ("relu",), ("pool",), ("conv", 32, 64, 3, 0), ("relu",), ("pool",), ("flatten",),
        ("linear", 1600, 1024), ("relu",), ("linear", 1024, 10),
    ],
}  # fmt: skip


# The large networks (torchvision's), with the batch of their training step; inference is at LARGE_BATCH and 1.
LARGE = {"alexnet": 16, "vgg16": 8, "googlenet": 16, "resnet18": 16, "resnet50": 16}
LARGE_BATCH = 32
LARGE_OPTIONS = {
    "alexnet": {"dropout": 0.0}, "vgg16": {"dropout": 0.0, "init_weights": False},
    "googlenet": {"dropout": 0.0, "aux_logits": False, "init_weights": False}, "resnet18": {}, "resnet50": {},
}  # fmt: skip


@dataclass(frozen=True)
class Conv:
    """One line of problems/conv.txt."""

    name: str
    channels: int
    size: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    batch: int = 16

    @property
    def output_size(self) -> int:
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.batch, self.channels, self.size, self.size

    @property
    def w_shape(self) -> tuple[int, ...]:
        return self.outputs, self.channels, self.kernel, self.kernel

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.batch, self.outputs, self.output_size, self.output_size

    @property
    def flops(self) -> float:
        """Of any of the three passes, by the direct method."""
        return 2.0 * np.prod(self.y_shape) * self.channels * self.kernel**2

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, weight and dy: uniform in [-1, 1), the weight scaled by its fan-in."""
        rng = np.random.Generator(np.random.Philox(1))
        x, w, dy = (uniform(rng, s) for s in (self.x_shape, self.w_shape, self.y_shape))
        return x, w / np.float32(np.sqrt(self.channels * self.kernel**2)), dy


def convolutions(quick: bool = False) -> list[Conv]:
    batch = 2 if quick else 16
    return [Conv(name, *map(int, numbers), batch=batch) for name, *numbers in _lines("conv.txt", 6)]


def sgemm_sizes(quick: bool = False) -> list[tuple[str, int]]:
    return [(name, int(n)) for name, n in _lines("sgemm.txt", 1) if not quick or int(n) <= 512]


def _lines(file: str, numbers: int) -> list[list[str]]:
    """The lines of a problem list: a name, which may hold blanks, and so many numbers."""
    lines = (PROBLEMS / file).read_text().splitlines()
    return [line.rsplit(maxsplit=numbers) for line in lines if line and not line.startswith("#")]


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.random(shape, dtype=np.float32) * np.float32(2) - np.float32(1)


def weights(model: str) -> list[np.ndarray]:
    """Weights and biases in the order of the layers, scaled as PyTorch initialises them."""
    rng = np.random.Generator(np.random.Philox(2))
    arrays = []
    for kind, *a in MODELS[model]:
        if kind in ("conv", "linear"):
            shape = (a[1], a[0], a[2], a[2]) if kind == "conv" else (a[1], a[0])
            bound = np.float32(1 / np.sqrt(np.prod(shape[1:])))
            arrays += [uniform(rng, shape) * bound, uniform(rng, shape[:1]) * bound]
    return arrays


def large_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A state dict of these shapes: weights scaled by their fan-in, normalisation as it starts."""
    rng = np.random.Generator(np.random.Philox(7))
    state = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            state[name] = uniform(rng, shape) * np.float32(np.sqrt(6 / np.prod(shape[1:])))
        elif name.endswith(("weight", "running_var")):
            state[name] = np.ones(shape, np.float32)
        else:
            state[name] = np.zeros(shape, np.int64 if name.endswith("num_batches_tracked") else np.float32)
    return state


def large_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of 224 x 224 with labels."""
    rng = np.random.Generator(np.random.Philox(8))
    return uniform(rng, (count, 3, 224, 224)), rng.integers(0, 1000, count)


def matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.Generator(np.random.Philox(6))
    return uniform(rng, (n, n)), uniform(rng, (n, n))


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images with labels, in MNIST's shape."""
    rng = np.random.Generator(np.random.Philox(3))
    return uniform(rng, (count, 1, 28, 28)), rng.integers(0, 10, count)


def mnist(root: str | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """MNIST's training images (uint8, [60000, 1, 28, 28]), labels (int64), and where they came from.

    The IDX files are read from `root` or $FASTCNN_DATA; without them random images of that shape stand in."""
    folder = Path(root or os.environ.get("FASTCNN_DATA", ""))
    found = [next(iter(folder.glob(f"train-{part}*")), None) for part in ("images", "labels")]
    if not (root or os.environ.get("FASTCNN_DATA")) or None in found:
        rng = np.random.Generator(np.random.Philox(4))
        return rng.integers(0, 256, (60000, 1, 28, 28), np.uint8), rng.integers(0, 10, 60000), "random"
    arrays = []
    for path, skip in zip(found, (16, 8), strict=True):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        arrays.append(np.frombuffer(raw, np.uint8, offset=skip))
    return arrays[0].reshape(-1, 1, 28, 28), arrays[1].astype(np.int64), "MNIST"


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


def large_results(times: list[float], losses: list[float], batch: int) -> dict:
    """A training step's time and the peak of its process's memory."""
    peak = resident_mb()
    return {
        f"train b{batch}": result(times, losses, images=batch),
        f"train b{batch} peak MB": {"median": peak, "best": peak, "check": []},
    }


def fingerprint(a: np.ndarray) -> list[float]:
    """Small arrays whole; of large ones 256 elements (corners among them) and 64 sums of magnitudes that cover all."""
    flat = np.ascontiguousarray(a).reshape(-1)
    if flat.size <= 1024:
        return flat.astype(np.float64).tolist()
    where = np.random.Generator(np.random.Philox(5)).integers(0, flat.size, 252)
    where = np.concatenate([[0, a.shape[-1] - 1, flat.size - a.shape[-1], flat.size - 1], where])
    sums = [np.abs(part).mean(dtype=np.float64) for part in np.array_split(flat, 64)]
    return flat[where].astype(np.float64).tolist() + [float(s) for s in sums]


def agree(a: list[float], b: list[float], tolerance: float = 2e-4) -> bool:
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


def resident_mb() -> float:
    """The most memory this process has held at once, in 10^6 bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
