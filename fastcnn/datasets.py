"""`from fastcnn import datasets`: the data sets, and what they are made of. The code is in data/."""

from .data import DataLoader, Dataset, DownloadError, RandomShift, digits, mnist, read_idx

__all__ = ["DataLoader", "Dataset", "DownloadError", "RandomShift", "digits", "mnist", "read_idx"]
