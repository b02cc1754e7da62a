"""An ONNX graph as plain JSON-able data, so that a loaded model can be saved and rebuilt without the onnx package.

    opset      the version of the default operator set
    inputs     [[name, rank or None], ...]: what forward() takes
    outputs    [name, ...]
    nodes      [[operator, name, [inputs], [outputs], {attributes}], ...] in the order of computation
    constants  {name: array}: integers, and those floats that say how to compute rather than with what
    weights    {name: [shape, whether it is learned]}: parameters and buffers of the module
Arrays (among constants and attributes) are {"dtype", "shape", "data"}, data in base64.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

KEYS = {"opset", "inputs", "outputs", "nodes", "constants", "weights"}
DTYPES = ("float32", "int64", "bool")
OLDEST = 6  # the operators of opset 6 broadcast only where an attribute says so, else they are those of 7
LARGEST = 1 << 28  # elements of an array that is computed while the graph is built
_SMALL = 64  # floats of at most this size that nothing learns are constants

# operator -> which of its inputs are learned
LEARNED: dict[str, tuple[int, ...]] = {
    "Add": (0, 1), "BatchNormalization": (1, 2), "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "MatMul": (0, 1),
    "Mul": (0, 1), "PRelu": (1,), "RMSNormalization": (1,), "Sub": (1,),
}  # fmt: skip
# of these a number without dimensions is as a rule none that is learned
_ARITHMETIC = ("Add", "Mul", "Sub")
# what these give is learned if their first input is
_MOVES = ("Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
STATE: dict[str, tuple[int, ...]] = {"BatchNormalization": (3, 4)}


def pack(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpack(value: Any, what: str) -> np.ndarray:
    """The array of `pack`; ValueError for anything else (a file's data is not trusted)."""
    try:
        if value["dtype"] not in DTYPES:
            raise ValueError(f"dtype {value['dtype']!r}")
        raw = base64.b64decode(value["data"], validate=True)
        shape = tuple(int(d) for d in value["shape"])
        if any(d < 0 for d in shape) or math.prod(shape) * np.dtype(value["dtype"]).itemsize != len(raw):
            raise ValueError(f"{len(raw)} bytes for shape {shape}")
        return np.frombuffer(raw, value["dtype"]).reshape(shape).copy()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"OnnxModel: {what} is not an array: {error}") from None


def check_size(shape: Any) -> tuple[int, ...]:
    """The shape, if an array of it can be computed while the graph is built; else ValueError."""
    shape = tuple(int(d) for d in shape)
    if any(d < 0 for d in shape) or math.prod(shape) > LARGEST:
        raise ValueError(f"a constant of shape {shape}; up to {LARGEST:,} elements are supported")
    return shape


def filled(value: Any, shape: np.ndarray) -> np.ndarray:
    """What ConstantOfShape gives for its attribute and input."""
    number = np.zeros(1, np.float32) if value is None else unpack(value, "value")
    return np.full(check_size(shape), number.reshape(-1)[0], number.dtype)


def plain(array: np.ndarray, what: str) -> np.ndarray:
    """An array of one of DTYPES: floats become float32, integers int64."""
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "b":
        return array
    raise ValueError(f"{what}: arrays of {array.dtype} are not supported")


def read(onnx: Any, proto: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the graph as above, the arrays of its weights) of an onnx.ModelProto. ValueError for what is not supported."""
    graph, opset = proto.graph, _opset(proto)
    if proto.functions:
        raise ValueError("functions of the file's own are not supported")
    if graph.sparse_initializer:
        raise ValueError("sparse initializers are not supported")
    arrays = {
        tensor.name: plain(np.asarray(onnx.numpy_helper.to_array(tensor)), f"initializer {tensor.name!r}")
        for tensor in graph.initializer
    }
    if len(arrays) != len(graph.initializer):
        raise ValueError("two initializers have the same name")
    learnable = set(arrays)
    nodes: list[list[Any]] = []
    for index, node in enumerate(graph.node):
        name = node.name or f"number {index}"
        if node.domain not in ("", "ai.onnx"):
            versions = [entry.version for entry in proto.opset_import if entry.domain == node.domain]
            raise ValueError(
                f"node {name} is of operator {node.domain}.{node.op_type} (opset {(versions or ['unknown'])[0]}), "
                "which is not supported"
            )
        place = f"node {name} ({node.op_type}, opset {opset})"
        attributes = {a.name: _attribute(onnx, a, place) for a in node.attribute}
        if node.op_type == "Constant":
            arrays[node.output[0]] = _constant(attributes, name)
        elif node.op_type == "ConstantOfShape" and node.input[0] in arrays:
            arrays[node.output[0]] = filled(attributes.get("value"), arrays[node.input[0]])
            learnable.add(node.output[0])
        else:
            nodes.append([node.op_type, name, list(node.input), list(node.output), attributes])
    inputs = [[v.name, _rank(onnx, v)] for v in graph.input if v.name not in arrays]
    learned, state = _roles(nodes, LEARNED), _roles(nodes, STATE)
    single = _roles(nodes, {kind: places for kind, places in LEARNED.items() if kind not in _ARITHMETIC})
    for kind, _, sources, targets, _ in reversed(nodes):
        if kind in _MOVES and sources and learned & set(targets):
            learned.add(sources[0])
            single.add(sources[0])
    weights, constants = {}, {}
    for name, array in arrays.items():
        learns = name in learned & learnable and array.dtype == np.float32 and (array.ndim > 0 or name in single)
        if array.dtype == np.float32 and array.size and (learns or name in state or array.size > _SMALL):
            weights[name] = (array, learns)
        else:
            constants[name] = pack(array)
    used = {name for node in nodes for name in node[2]} | {v.name for v in graph.output}
    spec = {
        "opset": opset,
        "inputs": inputs,
        "outputs": [v.name for v in graph.output],
        "nodes": nodes,
        "constants": {name: value for name, value in constants.items() if name in used},
        "weights": {name: [list(a.shape), learns] for name, (a, learns) in weights.items() if name in used},
    }
    return spec, {name: array for name, (array, _) in weights.items() if name in used}


def _opset(proto: Any) -> int:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    version = versions.get("", versions.get("ai.onnx"))
    if version is None:
        raise ValueError("the file names no version of the default operator set")
    if version < OLDEST:
        raise ValueError(f"opset {version} is older than {OLDEST}")
    return int(version)


def _rank(onnx: Any, value: Any) -> int | None:
    tensor = value.type.tensor_type
    allowed = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
    if not value.type.HasField("tensor_type") or tensor.elem_type not in allowed:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if value.type.HasField("tensor_type") else "no tensor"
        raise ValueError(f"input {value.name!r} is {kind}; only float32 and integer tensors are supported")
    return len(tensor.shape.dim) if tensor.HasField("shape") else None


def _attribute(onnx: Any, attribute: Any, place: str) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, onnx.TensorProto):
        return pack(plain(np.asarray(onnx.numpy_helper.to_array(value)), f"{place}: attribute {attribute.name}"))
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return list(value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, bytes) for v in value):
        return [v.decode("utf-8", "replace") for v in value]
    raise ValueError(f"{place}: attribute {attribute.name!r} holds a {type(value).__name__}, which is not supported")


def _constant(attributes: dict[str, Any], name: str) -> np.ndarray:
    if len(attributes) == 1:
        (key, value), *_ = attributes.items()
        if key == "value":
            return unpack(value, f"the value of node {name}")
        if key in ("value_float", "value_floats", "value_int", "value_ints"):
            return np.asarray(value, np.float32 if "float" in key else np.int64)
    raise ValueError(f"node {name} (Constant): only tensors and numbers are supported, got {', '.join(attributes)}")


def _roles(nodes: list[list[Any]], table: dict[str, tuple[int, ...]]) -> set[str]:
    return {inputs[i] for kind, _, inputs, _, _ in nodes for i in table.get(kind, ()) if i < len(inputs) and inputs[i]}
