"""Data sets and batches; also importable as `fastcnn.datasets`."""

from .augment import RandomShift
from .dataset import Dataset
from .digits import digits
from .download import DownloadError
from .idx import read_idx
from .loader import DataLoader
from .mnist import mnist

__all__ = ["DataLoader", "Dataset", "DownloadError", "RandomShift", "digits", "mnist", "read_idx"]
