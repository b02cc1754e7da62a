"""Models and training checkpoints in one safetensors file each.

The tensors have their state-dict names, so any safetensors reader can take them. The metadata entry
"fastcnn" is a JSON object:
    format        1
    architecture  {"type": ..., "config": ...} of nn.registry, or null for a class of the user's own
    note          why the architecture is null
    info          anything JSON-able that the caller of save() wants to keep
    checkpoint    only in training checkpoints: epoch, history, optimizer, scheduler, random; their
                  arrays are tensors named "checkpoint/<n>"
Nothing in a file is ever imported, unpickled or run.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import FileFormatError
from .pack import pack, unpack

if TYPE_CHECKING:
    from ..nn import Module

FORMAT = 1
_KEY = "fastcnn"
_RESERVED = "checkpoint/"
PathLike = str | os.PathLike[str]


def save(model: Module, path: PathLike, info: dict[str, Any] | None = None) -> None:
    """Write the model, architecture and weights, to one safetensors file that `load` reads.

    info: a JSON-able dict to keep with it (class names, normalisation, ...); `read_info` returns it.
    The file is written beside `path`, synced to disk and renamed: `path` is never half a file.
    A model with a Module class of your own, or with layers exchanged after construction, cannot be
    rebuilt from a file: its weights are saved, with a UserWarning, for `load_weights`.
    """
    _check_model("save", model)
    _write(path, _state(model), _header(model, info))


def load(path: PathLike) -> Module:
    """The model in a file of `save` (or `save_checkpoint`), in eval mode.

    Raises FileFormatError if the file is damaged, not fastcnn's, or holds weights only.
    """
    from .. import models, onnx  # noqa: F401 - they put their classes into the registry
    from ..nn.registry import build

    header, tensors = _read(path)
    if header is None:
        raise FileFormatError(
            f"{path}: has tensors but no fastcnn architecture; build the model and use "
            f"fastcnn.load_weights(model, path)"
        )
    if header.get("architecture") is None:
        raise FileFormatError(
            f"{path}: holds weights only ({header.get('note') or 'no architecture'}); build the "
            f"model and use fastcnn.load_weights(model, path), or "
            f"model.load_state_dict(fastcnn.load_state(path))"
        )
    try:
        model = build(header["architecture"])
        _match(model, tensors)
        model.load_state_dict(_weights(tensors))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    except (ValueError, TypeError, KeyError, MemoryError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{path}: the architecture cannot be built: {error}") from None
    model.eval()
    return model


def load_state(path: PathLike) -> dict[str, np.ndarray]:
    """The weights in a file, by name, for `model.load_state_dict`: safetensors, of fastcnn or not, or PyTorch's .pth.

    Half floats (float16, bfloat16) come as float32, all else as it is in the file. Of a .pth file that holds more than
    a state dict, the entry "state_dict", "model_state_dict" or "model". FileFormatError for a file that is damaged, or
    asks for anything but data.
    """
    from . import torch_file

    if not torch_file.is_torch_file(Path(path)):
        return _weights(_read(path)[1])
    value = torch_file.read(Path(path))
    for name in ("state_dict", "model_state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(name), dict):
            value = value[name]
    if not isinstance(value, dict):
        raise FileFormatError(f"{path}: a {type(value).__name__}, not a state dict")
    arrays = {name: array for name, array in value.items() if isinstance(array, np.ndarray)}
    if not arrays:
        raise FileFormatError(f"{path}: no tensors among {', '.join(map(str, list(value)[:8]))}")
    return arrays


def load_weights(model: Module, path: PathLike) -> None:
    """Fill the model with the weights of a file that `load_state` reads; names and shapes must all agree.

    Raises FileFormatError, naming the differences, before anything of the model has changed.
    """
    put(model, load_state(path), path)


def put(model: Module, state: dict[str, np.ndarray], path: PathLike) -> None:
    """Fill the model with exactly these arrays, which came from `path`; FileFormatError, and nothing changed, if they
    do not fit."""
    try:
        _match(model, state)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    model.load_state_dict(state)


def read_info(path: PathLike) -> dict[str, Any]:
    """The `info` given to `save`; an empty dict if there was none or the file is not fastcnn's."""
    header = _read(path)[0]
    info = None if header is None else header.get("info")
    return info if isinstance(info, dict) else {}


def save_checkpoint(
    path: PathLike,
    model: Module,
    optimizer: Any = None,
    epoch: int = 0,
    history: dict[str, list[float]] | None = None,
    scheduler: Any = None,
    info: dict[str, Any] | None = None,
) -> None:
    """Write all that training needs to go on: a file of `save` and the optimizer's state in it.

    epoch: the number of epochs done. history: lists of numbers, kept as they are. The state of
    fastcnn's random generator goes along. `load` reads the model alone.
    """
    from .. import random

    _check_model("save_checkpoint", model)
    state = {
        "epoch": int(epoch),
        "history": {name: list(values) for name, values in (history or {}).items()},
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
        "random": random.generator().bit_generator.state,
    }
    extra: list[np.ndarray] = []
    header = _header(model, info)
    header["checkpoint"] = pack(state, extra)
    tensors = _state(model)
    tensors.update({f"{_RESERVED}{i}": _dense(array) for i, array in enumerate(extra)})
    _write(path, tensors, header)


def load_checkpoint(path: PathLike, model: Module, optimizer: Any = None, scheduler: Any = None) -> dict[str, Any]:
    """Put a checkpoint's state into the model and, if given, the optimizer and the scheduler.

    Returns {"epoch": epochs done, "history": ..., "info": ...}. Raises FileFormatError if the file
    is damaged, holds no checkpoint or does not fit; then the model is as it was.
    """
    from .. import random

    header, tensors = _read(path)
    try:
        if header is None or "checkpoint" not in header:
            raise FileFormatError("holds no training checkpoint")
        _match(model, tensors)
        state = _checkpoint(header["checkpoint"], tensors)
        before = {name: np.array(value) for name, value in model.state_dict().items()}
        generator = random.generator().bit_generator
        generator_before = generator.state
        try:
            model.load_state_dict(_weights(tensors))
            generator.state = state["random"]
            for target, key in ((scheduler, "scheduler"), (optimizer, "optimizer")):
                if target is not None:
                    target.load_state_dict(state[key])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            model.load_state_dict(before)
            generator.state = generator_before
            raise FileFormatError(f"the checkpoint does not fit: {error}") from None
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    info = header.get("info")
    return {
        "epoch": state["epoch"],
        "history": state["history"],
        "info": info if isinstance(info, dict) else {},
    }


def _checkpoint(packed: Any, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    extra = [tensors[f"{_RESERVED}{i}"] for i in range(len(tensors) - len(_weights(tensors)))]
    state = unpack(packed, extra)
    try:
        epoch, history = state["epoch"], state["history"]
        ok = isinstance(epoch, int) and 0 <= epoch < 2**31 and isinstance(history, dict)
        ok = ok and all(isinstance(values, list) for values in history.values())
        ok = ok and {"optimizer", "scheduler", "random"} <= set(state)
    except (TypeError, KeyError):
        ok = False
    if not ok:
        raise FileFormatError("the checkpoint's state is malformed")
    return state


def _check_model(name: str, model: Any) -> None:
    from ..nn.module import Module

    if not isinstance(model, Module):
        hint = " (the model comes before the path)" if isinstance(model, (str, Path)) and name == "save" else ""
        raise TypeError(f"{name}: model must be a fastcnn Module, got {type(model).__name__}{hint}")


def _header(model: Module, info: dict[str, Any] | None) -> dict[str, Any]:
    architecture, note = _architecture(model)
    header: dict[str, Any] = {"format": FORMAT, "architecture": architecture}
    if note:
        header["note"] = note
        warnings.warn(f"saving weights only: {note}", UserWarning, stacklevel=3)
    if info:
        header["info"] = info
    return header


def _architecture(model: Module) -> tuple[dict[str, Any] | None, str]:
    """(the architecture, "") or (None, why it cannot be written)."""
    from ..nn.registry import build, describe

    try:
        spec = json.loads(json.dumps(describe(model), allow_nan=False))
        twin = build(spec)
    except (TypeError, ValueError) as error:
        return None, str(error)
    if _tree(twin, []) != _tree(model, []):
        return None, (
            f"this {type(model).__name__} differs from what its constructor arguments build "
            f"(layers were exchanged or shared)"
        )
    return spec, ""


def _tree(module: Module, seen: list[Module]) -> Any:
    """What two modules must agree in to be the same architecture; a shared module appears as its
    place in the walk."""
    from ..nn.container import Sequential

    for place, other in enumerate(seen):
        if other is module:
            return place
    seen.append(module)
    contained = isinstance(module, Sequential)  # its configuration is its children
    config = module.config() if hasattr(module, "config") and not contained else None
    own = {name: np.shape(value) for name, value in module.state_dict().items() if "." not in name}
    children = [(name, _tree(child, seen)) for name, child in module.named_children()]
    return type(module), config, own, children


def _state(model: Module) -> dict[str, np.ndarray]:
    return {name: _dense(value) for name, value in model.state_dict().items()}


def _dense(value: Any) -> np.ndarray:
    """C-order, native byte order (safetensors writes the raw memory); 0-d stays 0-d."""
    array = np.asarray(value)
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def _weights(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in tensors.items() if not name.startswith(_RESERVED)}


def _match(model: Module, tensors: dict[str, np.ndarray]) -> None:
    """FileFormatError unless the file's weights are exactly the model's, by name and shape."""
    have = {name: value.shape for name, value in model._named_state()}
    weights = _weights(tensors)
    wrong = [f"{name} is missing in the file" for name in have if name not in weights]
    wrong += [f"{name} is not in the model" for name in weights if name not in have]
    for name in have.keys() & weights.keys():
        if have[name] != weights[name].shape:
            wrong.append(f"{name} is {weights[name].shape}, the model's {have[name]}")
        elif weights[name].dtype.kind not in "fiu":
            wrong.append(f"{name} is {weights[name].dtype}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise FileFormatError(f"the weights do not fit the model: {'; '.join(wrong[:5])}{more}")


def _read(path: PathLike) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """(fastcnn's header or None, every tensor) of a safetensors file; FileFormatError if damaged."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # Python's own errors for a file that is missing, a folder, not readable
        pass
    try:
        with safe_open(os.fspath(path), framework="np") as file:
            text = (file.metadata() or {}).get(_KEY)
            half = any(file.get_slice(name).get_dtype() in ("F16", "BF16") for name in file.keys())  # noqa: SIM118
            tensors = {} if half else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if half:
            tensors = _read_half(path)
    except SafetensorError as error:
        raise FileFormatError(f"{path}: neither a whole safetensors file ({error}) nor a PyTorch file") from None
    except (TypeError, AttributeError, ValueError, KeyError) as error:
        raise FileFormatError(f"{path}: a tensor has a type NumPy lacks: {error}") from None
    if text is None:
        return None, tensors
    try:
        header = json.loads(text)
        number = header["format"]
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileFormatError(f"{path}: fastcnn's metadata is malformed") from None
    if number > FORMAT:
        raise FileFormatError(f"{path}: written in format {number} by a newer fastcnn; this one reads up to {FORMAT}")
    return header, tensors


def _read_half(path: PathLike) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file with half floats in it, these as float32 (NumPy has no bfloat16)."""
    from safetensors import deserialize

    plain = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
    tensors = {}
    for name, part in deserialize(Path(path).read_bytes()):
        data, kind = part["data"], part["dtype"]
        if kind == "BF16":  # the upper half of a float32
            array = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif kind == "F16":
            array = np.frombuffer(data, "<f2").astype(np.float32)
        else:
            array = np.frombuffer(data, plain[kind]).copy()
        tensors[name] = array.reshape(part["shape"])
    return tensors


def _write(path: PathLike, tensors: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    final = Path(os.path.realpath(path))
    if not final.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {final.parent}")
    metadata = {_KEY: json.dumps(header)}
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "xb") as file:  # with the mode that the umask gives: safetensors' is 0600
            mode = os.fstat(file.fileno()).st_mode & 0o777
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from None
        os.chmod(temporary, mode)
        _sync(temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
