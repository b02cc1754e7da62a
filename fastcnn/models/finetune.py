"""What fine-tuning courses do with a trained network: another head, or its inner values as features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastcnn import nn
from fastcnn.nn import check

_AUXILIARY = ("aux1", "aux2", "AuxLogits", "aux_classifier")


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """Exchange the last Linear (or, where there is none, the last Conv2d) for a fresh one with num_classes outputs.

    Auxiliary heads are exchanged too, and the model's num_classes follows, so that it can be saved; of a detector, the
    whole classification head. Returns the model; ValueError if it has neither layer.
    """
    num_classes = check.integer("replace_head", "num_classes", num_classes, 1)
    if hasattr(model, "_replace_head"):  # a model whose head is more than its last layer
        model._replace_head(num_classes)
        return model
    heads = [child for name, child in model.named_children() if name in _AUXILIARY]
    main = [module for name, module in model.named_children() if name not in _AUXILIARY]
    for parts in [main, *([head] for head in heads)]:
        found = [place for part in parts for place in _places(model, part)]
        linear = [place for place in found if isinstance(place[2], nn.Linear)]
        if not found:
            raise ValueError(f"replace_head: {type(model).__name__} has no Linear and no Conv2d")
        parent, name, old = (linear or found)[-1]
        setattr(parent, name, _fresh(old, num_classes))
    if hasattr(model, "num_classes"):
        model.num_classes = num_classes
    return model


def _places(root: nn.Module, part: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """(parent, name, layer) of every Linear and Conv2d in `part`, which may be one itself."""
    for parent in [root, *part.modules()]:
        for name, child in parent.named_children():
            inside = child is part if parent is root else True
            if inside and isinstance(child, (nn.Linear, nn.Conv2d)):
                yield parent, name, child


def _fresh(old: Any, outputs: int) -> Any:
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs, bias=old.bias is not None)
    arguments = (old.stride, old.padding, old.dilation, old.groups)
    return nn.Conv2d(old.in_channels, outputs, old.kernel_size, *arguments, bias=old.bias is not None)


def extract_features(model: nn.Module, x: Any, layer: str, batch_size: int = 64) -> np.ndarray:
    """What the layer of this dotted path ("avgpool", "layer4.1.conv2") gives for x, in evaluation mode: [N, ...].

    Nothing behind the layer is computed. ValueError for a path that forward() does not call, or of several outputs.
    """
    from fastcnn.arrays import gate
    from fastcnn.graph.autograd import trace
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol, recording

    def features(batch: Any) -> Any:
        with recording() as records:
            model.forward(batch)
        outputs = [output for path, _, output in records if path == layer]
        if not outputs:
            paths = ", ".join(path for path, _, _ in records)
            raise ValueError(f"extract_features: no layer {layer!r}; forward() calls {paths}")
        if not isinstance(outputs[-1], Symbol):
            raise ValueError(f"extract_features: layer {layer!r} gives several values")
        return outputs[-1]

    batch_size = check.integer("extract_features", "batch_size", batch_size, 1)
    x = gate(x, "extract_features: x")
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        programs, parts = {}, []
        for start in range(0, len(x), batch_size):
            batch = x[start : start + batch_size]
            if batch.shape not in programs:
                inputs, outputs, _ = trace(features, [batch])
                programs[batch.shape] = Program(inputs, outputs, name="extract_features")
            parts.append(programs[batch.shape].forward([np.ascontiguousarray(batch)])[0])
        return np.concatenate(parts)
    finally:
        for module in training:
            module.training = True
