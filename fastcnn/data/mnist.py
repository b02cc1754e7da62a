"""MNIST from the original IDX files: found on disk, or downloaded once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..io.errors import FileFormatError
from . import download as downloading
from .dataset import Dataset
from .download import DownloadError, fetch_gzip
from .idx import read_idx

MEAN, STD = 0.1307, 0.3081  # of the training images' pixels scaled to 0..1

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# File name: sha256 and size of the unpacked content.
FILES = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        47040016,
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        60008,
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        7840016,
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        10008,
    ),
}


def mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> tuple[Dataset, Dataset]:
    """(train, test): 60,000 and 10,000 images 1 x 28 x 28 of handwritten digits, labels 0..9.

    The four IDX files, gzipped or not, are looked for in `root`, then in the cache: FASTCNN_DATA, or
    mnist/ in FASTCNN_HOME or ~/.cache/fastcnn. What is missing is downloaded (unless download=False) into
    `root`, or into the cache if no root was given. Images stay uint8 in memory (55 MB); batches are
    (pixel / 255 - MEAN) / STD.
    Raises FileNotFoundError (download=False), DownloadError or FileFormatError.
    """
    paths = _locate(root, download)
    return _load(paths, "train"), _load(paths, "t10k")


def cache_dir() -> Path:
    """Where MNIST is kept when no folder is named."""
    if os.environ.get("FASTCNN_DATA"):
        return Path(os.environ["FASTCNN_DATA"]).expanduser()
    return downloading.cache_dir("mnist")


def _locate(root: str | os.PathLike[str] | None, download: bool) -> dict[str, Path]:
    """Where each of FILES is, after downloading what is missing."""
    home = cache_dir() if root is None else Path(root).expanduser()
    folders = []
    for top in dict.fromkeys((home, cache_dir())):
        folders += [top, top / "mnist", top / "MNIST" / "raw"]
    found = {}
    for name in FILES:
        spellings = (name, name + ".gz", name.replace("-idx", ".idx"))
        places = (folder / spelling for folder in folders for spelling in spellings)
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            found[name] = path
    missing = [name for name in FILES if name not in found]
    if missing and not download:
        raise FileNotFoundError(
            f"MNIST: {', '.join(missing)} (or .gz) not found in {home}; put the files there, or "
            f"let them be downloaded (download=True)"
        )
    for name in missing:
        sha256, size = FILES[name]
        try:
            found[name] = fetch_gzip(name + ".gz", MIRRORS, home, sha256=sha256, size=size)
        except DownloadError as error:
            files = "\n".join(f"  {other}.gz" for other in FILES)
            raise DownloadError(f"MNIST: {error}\nMNIST is these four files:\n{files}") from None
    return found


def _load(paths: dict[str, Path], part: str) -> Dataset:
    images_path = paths[f"{part}-images-idx3-ubyte"]
    labels_path = paths[f"{part}-labels-idx1-ubyte"]
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or len(images) == 0:
        raise FileFormatError(f"{images_path}: holds {images.dtype} {images.shape}, expected uint8 (N, 28, 28)")
    if labels.dtype != np.uint8 or len(labels) != len(images) or labels.max() > 9:
        raise FileFormatError(
            f"{labels_path}: holds {labels.dtype} {labels.shape} up to {labels.max(initial=0)}, "
            f"expected {len(images)} labels 0..9 (uint8), one per image of {images_path.name}"
        )
    return Dataset(
        images[:, None],
        labels,
        scale=1 / (255 * STD),
        shift=-MEAN / STD,
        classes="0123456789",
        name="mnist",
    )
