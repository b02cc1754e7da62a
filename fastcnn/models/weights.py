"""Pretrained weights: what is published for a network, how it is fetched, and how a builder takes it."""

from __future__ import annotations

import functools
import inspect
import os
import re
import reprlib
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastcnn import nn

SITE = "https://download.pytorch.org/models/"
SUFFIXES = (".pth", ".pt", ".safetensors")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")  # heads that a model can be built without
_HASH = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_OLD_DENSENET = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
_KEYWORDS = """weights: a member of {}, its name, or the path of a .pth, .pt or .safetensors file.
progress: show a download's on a terminal. kwargs: the class's arguments."""

M = TypeVar("M", bound=nn.Module)


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the networks' outputs."""
    return tuple((Path(__file__).parent / "imagenet_classes.txt").read_text("utf-8").splitlines())


class Weights:
    """One published file, and what is known of it: the value of a WeightsEnum's member.

    url: http(s); the file name ends in the first digits of the content's sha256: name-0123abcd.pth. num_classes: of the
    network in the file. categories: gives the names of the classes. preprocess: arguments of image.Preprocess. options:
    constructor arguments that the weights need unless the user says otherwise. untrained: the argument that asks for
    heads which the file has but nobody trained. facts: further entries of `meta`.
    """

    def __init__(
        self,
        url: str,
        *,
        num_classes: int = 1000,
        categories: Callable[[], tuple[str, ...]] | None = imagenet_classes,
        preprocess: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        untrained: str = "",
        **facts: Any,
    ) -> None:
        found = _HASH.search(url)
        if not url.startswith(("http://", "https://")) or found is None:
            raise ValueError(f"Weights: url must be http(s) and end in -<8 or more digits of sha256>.pth, got {url!r}")
        self.url, self.sha256, self.file_name = url, found[1], url.rsplit("/", 1)[-1]
        self.num_classes, self.categories = num_classes, categories
        self.preprocess, self.options, self.untrained, self.facts = preprocess or {}, options or {}, untrained, facts


class WeightsEnum(Enum):
    """The published weights of one network; DEFAULT is the best of them."""

    _value_: Weights

    @classmethod
    def verify(cls, weights: Any) -> Any:
        """The member for a member, its name ("IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2", "DEFAULT") or None.

        Raises ValueError for another name, TypeError for anything else, also for a member of another network.
        """
        if weights is None or isinstance(weights, cls):
            return weights
        if not isinstance(weights, str):
            raise TypeError(
                f"weights must be a member of {cls.__name__}, its name, a path or None, got {reprlib.repr(weights)}"
            )
        name = weights.removeprefix(f"{cls.__name__}.")
        if name not in cls.__members__:
            raise ValueError(
                f"no weights {weights!r} in {cls.__name__}, which has {', '.join(cls.__members__)}; a path to a file "
                f"ends in {', '.join(SUFFIXES)}, or is a pathlib.Path"
            )
        return cls[name]

    @property
    def url(self) -> str:
        """Where the file is published."""
        return self.value.url

    @property
    def transforms(self) -> Callable[..., Any]:
        """transforms() is the fitting image.Preprocess; its arguments can be given others."""
        from fastcnn.image import Preprocess

        return functools.partial(Preprocess, **self.value.preprocess)

    @property
    def meta(self) -> dict[str, Any]:
        """categories (the names of the classes, or None), num_params, min_size and measured figures such as acc@1."""
        categories = self.value.categories
        return {"categories": None if categories is None else list(categories()), **self.value.facts}

    def download(self, progress: bool = True) -> Path:
        """The file in the cache (weights/ in FASTCNN_HOME or ~/.cache/fastcnn), fetched if it is not there.

        FASTCNN_WEIGHTS_URL names a mirror that has the file under the same name. The hash is checked every time.
        Raises DownloadError, FileFormatError, OSError.
        """
        from fastcnn.data.download import cache_dir, fetch_hashed

        mirror, value = os.environ.get("FASTCNN_WEIGHTS_URL"), self.value
        url = f"{mirror.rstrip('/')}/{value.file_name}" if mirror else value.url
        advice = f'(weights/ in FASTCNN_HOME), or give its path: weights="/some/folder/{value.file_name}".'
        return fetch_hashed(url, cache_dir("weights"), sha256=value.sha256, progress=progress, advice=advice)

    def get_state_dict(self, progress: bool = True, check_hash: bool = True) -> dict[str, np.ndarray]:
        """The arrays of the file by name, as they are there. check_hash: for torchvision's callers; it always is."""
        from fastcnn.io import load_state

        return load_state(self.download(progress))

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (type(self), self.name)


def pretrained(published: type[WeightsEnum]) -> Callable[[Callable[..., M]], Callable[..., M]]:
    """Decorator of a builder `name(**kwargs)`: it becomes `name(*, weights=None, progress=True, **kwargs)`.

    weights: a member of `published` or its name, or the path of a .pth, .pt or .safetensors file. The network is built
    as the file needs it and filled; kwargs may ask for other things as long as the file fits.
    """

    def decorate(make: Callable[..., M]) -> Callable[..., M]:
        def build(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> M:
            if weights is None:
                return make(**kwargs)
            path = _path(weights)
            if path is None:
                known = _member(make.__name__, published, weights, kwargs)
            else:
                known = _published_as(path, published)
            kwargs = {**(known.value.options if known else {}), **kwargs}
            with nn.init.skip():
                model = make(**kwargs)
            fill(model, path or known.download(progress))
            if known and kwargs.get(known.value.untrained):
                message = f"{make.__name__}: {known!r} has no trained auxiliary heads: train them before you use them"
                warnings.warn(message, UserWarning, stacklevel=2)
            return model

        for name in ("__module__", "__name__", "__qualname__"):
            setattr(build, name, getattr(make, name))
        build.__doc__ = f"{inspect.cleandoc(make.__doc__ or '')}\n\n{_KEYWORDS.format(published.__name__)}"
        build.__annotations__["return"] = make.__annotations__.get("return", "nn.Module")
        build.weights_enum = published  # type: ignore[attr-defined]
        return build

    return decorate


def fill(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Put a file's arrays into the model: as io.load_weights, and it takes what older PyTorch wrote.

    Auxiliary heads that the model lacks are left out; counters of batches that a file from before they existed lacks
    stay as they are; DenseNet's old names (norm.1) are understood. FileFormatError, and the model as it was, if the
    arrays do not fit.
    """
    from fastcnn.io.checkpoint import load_state, put

    state = {_OLD_DENSENET.sub(r"\1\2", name): array for name, array in load_state(path).items()}
    own = dict(model._named_state())
    for prefix in AUXILIARY:
        if not any(name.startswith(prefix) for name in own):
            state = {name: array for name, array in state.items() if not name.startswith(prefix)}
    if not any(name.endswith("num_batches_tracked") for name in state):
        state |= {name: counter.numpy() for name, counter in own.items() if name.endswith("num_batches_tracked")}
    put(model, state, path)


def _path(weights: Any) -> Path | None:
    """The path that `weights` is, if it is one."""
    if isinstance(weights, os.PathLike):
        return Path(weights)
    return Path(weights) if isinstance(weights, str) and weights.endswith(SUFFIXES) else None


def _published_as(path: Path, published: type[WeightsEnum]) -> Any:
    """The member whose file this is, by its name, or None: it needs the same options when it comes from elsewhere."""
    return next((member for member in published if member.value.file_name == path.name), None)


def _member(builder: str, published: type[WeightsEnum], weights: Any, kwargs: dict[str, Any]) -> Any:
    """The member that a builder was given, if it is one for this builder and these arguments."""
    try:
        member = published.verify(weights)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{builder}: {error}") from None
    wanted, there = kwargs.get("num_classes", member.value.num_classes), member.value.num_classes
    if wanted != there:
        raise ValueError(
            f"{builder}: {member!r} are for {there} classes, which num_classes={wanted} does not fit; build the "
            f"network without num_classes, then give it another head: models.replace_head(model, {wanted})"
        )
    return member
