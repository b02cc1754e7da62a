"""fastcnn as a backend of onnx.backend.base: `prepare(model).run(inputs)`, `run_model`, as the ONNX tests call it."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.backend.base import Backend, BackendRep

from .graph import pack, plain
from .load import from_proto
from .model import OnnxModel

# operator -> inputs whose numbers must be known when the graph is built; integers and booleans always are
KNOWN = {"Clip": (1, 2), "Dropout": (1, 2), "Pad": (2,), "Pow": (1,), "Resize": (1, 2), "Upsample": (1,)}


class Rep(BackendRep):
    """A model that is ready to run; inputs that say how to compute (shapes, bounds, indices) are built in per call."""

    def __init__(self, model: OnnxModel):
        self.model = model

    def run(self, inputs: Any, **_: Any) -> tuple[np.ndarray, ...]:
        """The outputs for inputs in the graph's order (or by name)."""
        graph = self.model.graph
        names = [name for name, _ in graph["inputs"]]
        arrays = [inputs[name] for name in names] if isinstance(inputs, dict) else list(inputs)
        known = {
            node[2][i] for node in graph["nodes"] for i in KNOWN.get(node[0], ()) if i < len(node[2]) and node[2][i]
        }
        fixed, given = {}, []
        for name, array in zip(names, map(np.asarray, arrays)):
            if array.dtype.kind not in "f" or name in known:
                fixed[name] = plain(array, f"input {name!r}")
            else:
                given.append(array)
        model = self.model
        if fixed:
            rest = [entry for entry in graph["inputs"] if entry[0] not in fixed]
            constants = {**graph["constants"], **{name: pack(array) for name, array in fixed.items()}}
            model = OnnxModel({**graph, "inputs": rest, "constants": constants})
            model.load_state_dict(self.model.state_dict())
            model.eval()
        outputs = model(*given) if given else _constants(model)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def _constants(model: OnnxModel) -> tuple[np.ndarray, ...]:
    """The outputs of a graph without inputs."""
    from ..graph.autograd import trace
    from ..graph.plan import Program

    inputs, outputs, _ = trace(model.forward, [])
    known = [
        symbol.array if symbol.param is None else symbol.param.numpy() for symbol in outputs if symbol.node is None
    ]
    if len(known) == len(outputs):
        return tuple(known)
    return tuple(Program(inputs, outputs, name="OnnxModel").forward([]))


class FastcnnBackend(Backend):
    """onnx.backend.base.Backend on the CPU."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Rep:
        """The model, ready to run; ValueError for what fastcnn does not support."""
        super().prepare(model, device, **kwargs)
        return Rep(from_proto(model))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


prepare = FastcnnBackend.prepare
run_model = FastcnnBackend.run_model
run_node = FastcnnBackend.run_node
supports_device = FastcnnBackend.supports_device
