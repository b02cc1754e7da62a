"""The data of the examples: MNIST where it is, else the digits that fastcnn carries, and parts of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from fastcnn import Dataset, datasets


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that all examples have."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--data-dir", help="folder of MNIST's four IDX files (.gz or not); by default fastcnn's cache")
    result.add_argument("--seed", type=int, default=0, help="of weights and order")
    return result


def load(data_dir: str | None) -> tuple[Dataset, Dataset]:
    """(train, test) of MNIST from data_dir or the cache, else of the embedded digits; says which."""
    try:
        train, test = datasets.mnist(data_dir, download=False)
    except FileNotFoundError as error:
        print(f"{error}\nUsing the embedded digits instead.")
        train, test = datasets.digits()
    print(f"{train.name}: {len(train)} images to train, {len(test)} to test")
    return train, test


def subset(data: Dataset, classes: Sequence[int], per_class: int | None = None) -> Dataset:
    """The images of these classes, at most per_class of each, labelled 0, 1, ... in the order of `classes`."""
    chosen = np.sort(np.concatenate([np.flatnonzero(data.labels == c)[:per_class] for c in classes]))
    labels = np.searchsorted(classes, data.labels[chosen])
    names = [data.classes[c] for c in classes] if data.classes else None
    return Dataset(data.images[chosen], labels, data.scale, data.shift, classes=names, name=data.name)
