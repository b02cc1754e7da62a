"""What every framework's file shares: networks, weights and data.

NumPy only. Everything random comes from fixed seeds, so that each framework computes the same numbers in its own
process and `compare.py` can check one against another.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

BENCH = Path(__file__).resolve().parent.parent
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


def large_images(count: int, side: int = 224) -> tuple[np.ndarray, np.ndarray]:
    """Random images of side x side with labels."""
    rng = np.random.Generator(np.random.Philox(8))
    return uniform(rng, (count, 3, side, side)), rng.integers(0, 1000, count)


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images with labels, in MNIST's shape."""
    rng = np.random.Generator(np.random.Philox(3))
    return uniform(rng, (count, 1, 28, 28)), rng.integers(0, 10, count)


def mnist_files(root: str) -> list[Path]:
    """The IDX files of MNIST's training images and labels in a folder, or in MNIST/raw under it; [] unless both are."""
    for folder in (Path(root), Path(root, "MNIST", "raw")):
        found = [next(iter(sorted(folder.glob(f"train-{part}*"))), None) for part in ("images", "labels")]
        if None not in found:
            return found
    return []


def mnist() -> tuple[np.ndarray, np.ndarray, str]:
    """MNIST's training images (uint8, [60000, 1, 28, 28]), labels (int64), and what they are.

    The files are read from $FASTCNN_DATA; without them random images of that shape stand in."""
    root = os.environ.get("FASTCNN_DATA", "")
    files = mnist_files(root) if root else []
    if not files:
        rng = np.random.Generator(np.random.Philox(4))
        return rng.integers(0, 256, (60000, 1, 28, 28), np.uint8), rng.integers(0, 10, 60000), "random images"
    arrays = []
    for path, skip in zip(files, (16, 8), strict=True):
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
        arrays.append(np.frombuffer(raw, np.uint8, offset=skip))
    return arrays[0].reshape(-1, 1, 28, 28), arrays[1].astype(np.int64), "MNIST"


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
