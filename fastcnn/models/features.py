"""Backbones of detectors: a classification network cut at named layers, and maps of smaller size after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastcnn.functional as F
from fastcnn import nn
from fastcnn.graph.trace import Symbol, module_path, tracing, watching
from fastcnn.models.vgg import VGG
from fastcnn.nn import check
from fastcnn.nn.registry import REGISTRY, build, describe, register


class _Enough(Exception):
    """Every layer that is wanted was called: the rest of the network is not."""


def start_xavier(module: nn.Module) -> None:
    """Weights of convolutions from Xavier's uniform distribution, biases 0 (nothing where weights will be loaded)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not nn.init.skipping():
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _spec(model: nn.Module) -> dict[str, Any] | None:
    """The description of a whole model, before it is cut; None if files cannot name it."""
    return describe(model) if REGISTRY.get(type(model).__name__) is type(model) else None


def _block(inputs: int, middle: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """1x1 convolution to `middle` channels, ReLU, convolution to `outputs`, ReLU."""
    last = nn.Conv2d(middle, outputs, kernel, stride, padding)
    return nn.Sequential(nn.Conv2d(inputs, middle, 1), nn.ReLU(), last, nn.ReLU())


@register
class SSDFeatureExtractor(nn.Module):
    """[N, C, H, W] -> the outputs of some layers of a network, and of blocks after the last one, each half the size.

    model: a classification network (models.resnet18(), ...), taken over and cut: what comes after the layers goes.
    layers: dotted paths of modules that its forward() calls once each ("layer2", "features.22"), in order.
    extra: the output channels of the blocks that follow (1x1 convolution to half of them, 3x3 with stride 2).
    input_shape: (C, H, W) of an image for the trial by which the channels are found (`out_channels`).
    State: body.<names of the model>, extra.<i>.<0 and 2>.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        extra: Sequence[int] = (),
        input_shape: Sequence[int] = (3, 224, 224),
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"SSDFeatureExtractor: model must be a Module, got {type(model).__name__}")
        if isinstance(layers, str) or not layers or len(set(layers)) != len(list(layers)):
            raise ValueError(f"SSDFeatureExtractor: layers must be different paths of modules, got {layers!r}")
        self.layers = [str(path) for path in layers]
        self.input_shape = check.integers("SSDFeatureExtractor", "input_shape", list(input_shape), 3, 1)
        self.channels = [check.integer("SSDFeatureExtractor", "extra", c, 2) for c in extra]
        self._spec = _spec(model)
        self.body = model
        self.out_channels = self._cut()
        self.extra = nn.ModuleList()
        for outputs in self.channels:
            self.extra.append(_block(self.out_channels[-1], outputs // 2, outputs, 3, 2, 1))
            self.out_channels.append(outputs)
        start_xavier(self.extra)

    def _calls(self) -> list[tuple[str, Any]]:
        """(path, output) of each module that the model calls, in the order in which they return."""
        calls: list[tuple[str, Any]] = []
        training = [module for module in self.body.modules() if module.training]
        self.body.train()  # auxiliary heads, which a later training would call, included
        try:
            with tracing(), watching(lambda path, output: calls.append((path, output))):
                self.body.forward(Symbol((2, *self.input_shape)))
        except ValueError:
            if not {path for path, _ in calls}.issuperset(self.layers):  # else what failed is cut off
                raise
        finally:
            self.body.eval()
            for module in training:
                module.training = True
        return calls

    def _cut(self) -> list[int]:
        """Drop every module that is not called up to the last of the layers; the channels of the layers."""
        calls = self._calls()
        paths = [path for path, _ in calls]
        for path in self.layers:
            if paths.count(path) != 1:
                known = ", ".join(p for p in paths if p.count(".") < 2)
                times = "is not called" if path not in paths else f"is called {paths.count(path)} times"
                raise ValueError(f"SSDFeatureExtractor: layer {path!r} {times}; forward() calls {known}, ...")
        outputs = dict(calls)
        for path in self.layers:
            if not isinstance(outputs[path], Symbol) or outputs[path].ndim != 4:
                raise ValueError(f"SSDFeatureExtractor: layer {path!r} does not give a map of shape (N, C, H, W)")
        last = max(paths.index(path) for path in self.layers)
        parts = [path.split(".") for path in paths[: last + 1]]
        kept = {".".join(names[:i]) for names in parts for i in range(1, len(names) + 1)}
        for prefix, module in list(self.body.named_modules()):
            for name, _ in list(module.named_children()):
                if (f"{prefix}.{name}" if prefix else name) not in kept:
                    delattr(module, name) if isinstance(module, nn.Sequential) else setattr(module, name, None)
        return [outputs[path].shape[1] for path in self.layers]

    def forward(self, x: Any) -> Any:
        """x: [N, C, H, W]; a tuple of maps."""
        found: dict[str, Any] = {}

        def seen(path: str, output: Any) -> None:
            if path in self.layers:
                found[path] = output
            if len(found) == len(self.layers):
                raise _Enough

        try:
            with module_path("body"), watching(seen):
                self.body.forward(x)
        except _Enough:
            pass
        maps = [found[path] for path in self.layers]
        for block in self.extra:
            maps.append(block(maps[-1]))
        return tuple(maps)

    def config(self) -> dict[str, Any]:
        """The arguments, the model described whole."""
        spec = self._spec or describe(self.body)
        return dict(model=spec, layers=self.layers, extra=self.channels, input_shape=list(self.input_shape))

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> SSDFeatureExtractor:
        """The extractor that config() described."""
        return cls(**{**config, "model": build(config.get("model"), depth + 1)})


@register
class SSDFeatureExtractorVGG(nn.Module):
    """The maps of SSD300 (highres: SSD512) from a VGG (Liu et al., 2016, figure 2): torchvision's names.

    The fully connected layers become a dilated convolution and a 1x1 one; the map of the fourth stage, before its
    pooling, is scaled to norm `scale_weight` at each place. The third pooling is made to round up. model: a VGG-13, 16
    or 19, taken over without its classifier. out_channels: 512, 1024, 512, 256, 256, 256 (and 256 for highres).
    """

    def __init__(self, model: VGG, highres: bool = False) -> None:
        super().__init__()
        if not isinstance(model, VGG):
            raise TypeError(f"SSDFeatureExtractorVGG: model must be a VGG, got {type(model).__name__}")
        self.highres, self._spec = check.flag("SSDFeatureExtractorVGG", "highres", highres), _spec(model)
        layers = list(model.features)
        pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True
        self.scale_weight = nn.Parameter([0.0 if nn.init.skipping() else 20.0] * 512)
        self.features = nn.Sequential(*layers[: pools[3]])
        convolutions = nn.Sequential(
            nn.MaxPool2d(3, 1, 1),
            nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
            nn.ReLU(),
            nn.Conv2d(1024, 1024, 1),
            nn.ReLU(),
        )
        extra = [
            _block(1024, 256, 512, 3, 2, 1),
            _block(512, 128, 256, 3, 2, 1),
            _block(256, 128, 256),
            _block(256, 128, 256),
            *([_block(256, 128, 256, 4)] if self.highres else []),
        ]
        for module in (convolutions, *extra):
            start_xavier(module)
        self.extra = nn.ModuleList([nn.Sequential(*layers[pools[3] : -1], convolutions), *extra])
        self.out_channels = [512, 1024, 512, *[256] * (4 if self.highres else 3)]

    def forward(self, x: Any) -> Any:
        """x: [N, 3, H, W]; a tuple of maps."""
        x = self.features(x)
        maps = [F.normalize(x) * F.reshape(self.scale_weight, (1, 512, 1, 1))]
        for block in self.extra:
            x = block(x)
            maps.append(x)
        return tuple(maps)

    def config(self) -> dict[str, Any]:
        """The arguments, the VGG described whole."""
        return dict(model=self._spec, highres=self.highres)

    @classmethod
    def from_config(cls, config: dict[str, Any], depth: int = 0) -> SSDFeatureExtractorVGG:
        """The extractor that config() described."""
        return cls(**{**config, "model": build(config.get("model"), depth + 1)})
