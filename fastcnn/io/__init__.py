"""Files: models and training checkpoints, as safetensors."""

from .checkpoint import load, load_checkpoint, load_state, load_weights, read_info, save, save_checkpoint
from .errors import FileFormatError

__all__ = [
    "FileFormatError",
    "load",
    "load_checkpoint",
    "load_state",
    "load_weights",
    "read_info",
    "save",
    "save_checkpoint",
]
