"""A model as an ONNX file: its evaluation-mode graph, op by op. Needs the onnx package (extra "onnx")."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..graph.autograd import trace
from ..graph.trace import Node, Symbol, topological
from ..nn import Module
from .expressions import EXPRESSIONS
from .package import require_onnx
from .writer import Writer, Written, for_any_batch

OLDEST = 13


def export(
    model: Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...],
    opset: int = 13,
    dynamic_batch: bool = True,
) -> None:
    """Write the model as it computes in evaluation mode, with its weights under their state-dict names.

    input_shape: (N, C, ...). opset: 13 to the newest that the installed onnx package knows; the file's IR version is
    the oldest that has it. dynamic_batch: the first dimension may be of any size when the file is run, not only N.
    The file is checked with onnx.checker before it is written. The model does not change. The graph's input is called
    "input", its output "output", or "output_0" and so on (with "_" behind it where a parameter has that name).

    Errors: ImportError without the onnx package; ValueError for an opset outside, a layer that cannot be expressed, or
    one whose form depends on the batch size where dynamic_batch is asked for.
    """
    onnx = require_onnx("onnx.export")
    if not isinstance(model, Module):
        raise TypeError(f"onnx.export: model must be a fastcnn Module, got {type(model).__name__}")
    newest = onnx.defs.onnx_opset_version()
    if isinstance(opset, bool) or not isinstance(opset, int) or not OLDEST <= opset <= newest:
        raise ValueError(f"onnx.export: opset must be an int from {OLDEST} to {newest}, got {opset!r}")
    shape = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if len(shape) < 2 or not all(isinstance(d, (int, np.integer)) and d > 0 for d in shape):
        raise ValueError(f"onnx.export: input_shape must be positive ints (N, C, ...), got {input_shape!r}")
    if dynamic_batch:  # two sizes that tell what depends on it; of 1, dimensions would vanish
        shape = (max(shape[0], 2), *shape[1:])
    writer, outputs = _write(model, shape, opset)
    if dynamic_batch:
        other, _ = _write(model, (2 * shape[0] + 1, *shape[1:]), opset)
        for_any_batch(writer, other)
    proto = _proto(onnx, writer, shape, outputs, type(model).__name__, dynamic_batch)
    onnx.checker.check_model(proto, full_check=True)
    temporary = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            file.write(proto.SerializeToString())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _write(model: Module, shape: tuple[int, ...], opset: int) -> tuple[Writer, list[tuple[str, tuple[int, ...]]]]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        inputs, outputs, _ = trace(model.forward, [np.broadcast_to(np.float32(0), shape)])
    finally:
        for module, training in modes:
            module.training = training
    writer = Writer(opset)
    names = {id(value): name for name, value in model._named_state()}
    writer.taken = set(names.values())
    writer.input = writer.free("input")
    known = {inputs[0].id: writer.input}

    def name(symbol: Symbol) -> str:
        if symbol.id not in known and symbol.node is not None:
            raise ValueError(
                f"onnx.export: the positions that layer {symbol.node.label()} gives are counted otherwise in ONNX"
            )
        if symbol.id not in known:  # a leaf
            value = symbol.array if symbol.param is None else symbol.param.storage
            if symbol.id in writer.spread:
                value = value.reshape(-1)[0]  # a number that was spread over some shape
            known[symbol.id] = writer.constant(value, value.dtype, names.get(id(symbol.param)))
        return known[symbol.id]

    nodes = topological(outputs)
    writer.spread = _spread(nodes, outputs)
    for node in nodes:
        writer.place = node.path
        express = EXPRESSIONS.get(node.op.name)
        if express is None:
            raise ValueError(f"onnx.export: layer {node.label()} cannot be expressed in ONNX by fastcnn")
        known[node.outputs[0].id] = express(writer, node, *(name(symbol) for symbol in node.inputs))
    writer.place = ""
    named = []
    for i, symbol in enumerate(outputs):
        output = writer.free("output" if len(outputs) == 1 else f"output_{i}")
        writer.nodes.append(Written("Identity", [name(symbol)], [output], {}, ""))
        named.append((output, symbol.shape))
    return writer, named


def _spread(nodes: list[Node], outputs: list[Symbol]) -> set[int]:
    """The ids of what only operands of Add, Sub, Mul and Div are spread over a shape for, which these do themselves: at
    most one operand of each."""
    others = {symbol.id for node in nodes if node.op.name != "zip" for symbol in node.inputs}
    others |= {symbol.id for symbol in outputs}
    found: set[int] = set()
    zips = [node.inputs for node in nodes if node.op.name == "zip"]
    for symbol in (symbol for operands in zips for symbol in operands):
        expanded = symbol.node is not None and symbol.node.op.name == "expand"
        number = symbol.node is None and symbol.array is not None and symbol.array.size and np.ptp(symbol.array) == 0
        if symbol.id not in others and (expanded or number):
            found.add(symbol.id)
    for a, b in zips:
        if {a.id, b.id} <= found:
            found.discard(b.id if a.node is None else a.id)
    return found


def _proto(onnx: Any, writer: Writer, shape: Any, outputs: Any, title: str, dynamic_batch: bool) -> Any:
    helper, number = onnx.helper, onnx.TensorProto.FLOAT

    def described(name: str, shape: tuple[int, ...]) -> Any:
        dims: list[Any] = list(shape)
        if dynamic_batch and dims:
            dims[0] = "N"
        return helper.make_tensor_value_info(name, number, dims)

    used = {name for node in writer.nodes for name in node.inputs}
    tensors = {n: onnx.numpy_helper.from_array(array, n) for n, array in writer.constants.items() if n in used}
    # initializers are what can be learned, or says how to compute
    fixed = [n for n in tensors if n in writer.own and writer.constants[n].dtype.kind == "f"]
    graph = helper.make_graph(
        [helper.make_node("Constant", [], [n], name=n, value=tensors.pop(n)) for n in fixed]
        + [helper.make_node(n.kind, n.inputs, n.outputs, name=n.outputs[0], **n.attributes) for n in writer.nodes],
        title,
        [described(writer.input, shape)],
        [described(name, s) for name, s in outputs],
        list(tensors.values()),
    )
    opsets = [helper.make_opsetid("", writer.opset)]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets), producer_name="fastcnn"
    )
