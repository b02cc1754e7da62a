"""What every framework's file shares: problems, weights, data, timing and fingerprints of results.

NumPy only. Everything random comes from fixed seeds, so that each framework computes the same numbers in its own
process and `compare.py` can check one against another.
"""

from __future__ import annotations

import gc
import gzip
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BENCH = Path(__file__).resolve().parent.parent
PROBLEMS = BENCH / "problems"
BATCH = 64
MOMENTUM = 0.9

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
QUICK_BATCH = 4  # of either, with --quick
LARGE_OPTIONS = {
    "alexnet": {"dropout": 0.0}, "vgg16": {"dropout": 0.0, "init_weights": False},
    "googlenet": {"dropout": 0.0, "aux_logits": False, "init_weights": False}, "resnet18": {}, "resnet50": {},
}  # fmt: skip

# A task is one of these names and "_train" or "_infer".
NETWORKS = {"lenet": "lenet5", "keras_cnn": "keras_cnn", **{name: name for name in LARGE}}
TRAIN, INFER = ([f"{name}_{what}" for name in NETWORKS] for what in ("train", "infer"))


def network(task: str) -> tuple[str, str] | None:
    """("lenet5", "train") of "lenet_train"; None for a task that is not a network's."""
    name, _, what = task.rpartition("_")
    return (NETWORKS[name], what) if task in TRAIN + INFER else None


def learning_rate(name: str) -> float:
    """Small enough that rounding alone does not move the losses that are compared (ResNet-50's bends sharply)."""
    return {"resnet50": 2e-5}.get(name, 1e-4) if name in LARGE else 0.01


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


def time_training(name: str, quick: bool, prepare: Callable) -> dict[str, dict]:
    """Times `prepare(x, y)`, which must give a function that makes one training step and returns its loss.

    The losses of the first steps are the fingerprint; the memory is the process's peak while training."""
    large = name in LARGE
    batch = (QUICK_BATCH if quick else LARGE[name]) if large else BATCH
    reset_peak()
    step = prepare(*(large_images if large else images)(batch))
    losses = [float(step()) for _ in range(2 if large else 10)]
    if large:
        times = timed(step, 1 if quick else 5, least=3, warm=1)
    else:
        times = timed(step, 0.5 if quick else 3, warm=5)
    return {f"train b{batch}": result(times, losses, images=batch), f"train b{batch} peak MB": memory()}


def time_inference(name: str, quick: bool, prepare: Callable) -> dict[str, dict]:
    """Times `prepare(x)`, which must give a function that returns the logits of x, for a large batch and for one image.

    The memory is the process's peak at the large batch, which comes first."""
    large, out = name in LARGE, {}
    reset_peak()
    for batch in ((QUICK_BATCH if quick else LARGE_BATCH) if large else BATCH, 1):
        call = prepare((large_images if large else images)(batch)[0])
        check = np.array(call())
        if large:
            times = timed(call, 0.5 if quick else 3, least=3, warm=1)
        else:
            times = timed(call, 0.3 if quick else 1.5, warm=20)
        out[f"infer b{batch}"] = result(times, check, images=batch)
        if batch > 1:
            out[f"infer b{batch} peak MB"] = memory()
    return out


def exported(name: str, batch: int) -> str:
    """The path of the network as ONNX, written by fastcnn.onnx.export for this batch.

    Made once per run of compare.py, by a process of its own: its memory is not the peer's."""
    if importlib.util.find_spec("onnx") is None:
        raise ModuleNotFoundError("the exporter needs the onnx package", name="onnx")
    path = Path(os.environ["FASTCNN_BENCH_MODELS"]) / f"{name}_b{batch}.onnx"
    if not path.exists():
        code = f"from frameworks import fastcnn_; fastcnn_.export({name!r}, {batch}, {str(path)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=BENCH, check=True)
    return str(path)


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


def reset_peak() -> None:
    """Count the peak of memory from now on (Linux), so that making weights and loading them is not in it."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def resident_mb() -> float:
    """The most memory this process has held at once, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts in bytes


def memory() -> dict:
    """resident_mb as a result."""
    peak = resident_mb()
    return {"median": peak, "best": peak, "check": []}
