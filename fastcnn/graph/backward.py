"""Reverse-mode differentiation: the gradient of graph outputs as more graph."""

from __future__ import annotations

from .trace import Symbol, module_path, topological


def gradients(outputs: list[Symbol], douts: list[Symbol | None], wrt: list[Symbol]) -> list[Symbol | None]:
    """d(sum of outputs*douts)/d(wrt). None where a symbol does not influence the outputs.

    Only ops on a path from `wrt` to `outputs` get a gradient; an op is told which inputs need one.
    """
    from ..ops.arithmetic import arithmetic

    nodes = topological(outputs)
    needed = {s.id for s in wrt}
    for node in nodes:
        if any(s.id in needed for s in node.inputs):
            needed.update(s.id for s in node.outputs)
    grads: dict[int, Symbol] = {}

    def accumulate(symbol, grad):
        if grad is not None:
            old = grads.get(symbol.id)
            grads[symbol.id] = grad if old is None else arithmetic("add", old, grad)

    for symbol, dout in zip(outputs, douts):
        if symbol.id in needed:
            accumulate(symbol, dout)
    for node in reversed(nodes):
        node_douts = [grads.get(s.id) for s in node.outputs]
        needs = [s.id in needed for s in node.inputs]
        if not any(needs) or all(d is None for d in node_douts):
            continue
        with module_path(node.path):
            node_grads = node.op.grad(node, node_douts, needs)
        for symbol, grad, need in zip(node.inputs, node_grads, needs):
            if need:
                accumulate(symbol, grad)
    return [grads.get(s.id) for s in wrt]
