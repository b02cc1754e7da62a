"""What is changed in a graph before it is lowered: the named fusions, the layout, the halos."""

from __future__ import annotations

from collections import Counter

from .lower import LANES_C, LANES_N, dims4
from .trace import Node, Symbol, topological

CACHED_BYTES = 1 << 20  # lanes_n pays while a block of images of a layer's input stays about in the L2 cache
MANY_CHANNELS = 128  # from here on lanes_c has no remainder to speak of and packed weights are read in fewer streams


def run(nodes: list[Node], roots: list[Symbol], forward_ids: set[int]) -> list[Node]:
    """All fusions. Each has a test that compares it with FASTCNN_EAGER, which skips them."""
    fuse_activation(nodes, roots)
    fuse_relu_gradient(nodes, roots)
    return topological(roots)


def _uses(nodes, roots) -> Counter:
    uses = Counter(s.id for s in roots)
    for node in nodes:
        uses.update(s.id for s in node.inputs)
    return uses


def _absorb(producer: Node, consumer: Node) -> None:
    """The consumer's work is done by the producer: its output symbol is the producer's from now on."""
    symbol = consumer.outputs[0]
    symbol.node = producer
    producer.outputs[0] = symbol
    consumer.outputs = []


def fuse_activation(nodes, roots) -> None:
    """conv2d or linear, then ReLU: the ReLU goes into the kernel's store."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "map" or node.attrs["kind"] != "relu":
            continue
        producer = node.inputs[0].node
        if producer is not None and producer.op.name in ("conv2d", "linear") and uses[node.inputs[0].id] == 1:
            if not producer.attrs.get("act"):
                producer.attrs = {**producer.attrs, "act": 1}
                _absorb(producer, node)


def fuse_relu_gradient(nodes, roots) -> None:
    """A data or pooling gradient, then the gradient of ReLU: the mask goes into the kernel's store."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "map_bwd" or node.attrs["kind"] != "relu" or not node.outputs:
            continue
        saved, grad = node.inputs
        producer = grad.node
        if producer is None or uses[grad.id] != 1 or producer.attrs.get("mask"):
            continue
        if producer.op.name in ("conv2d_data", "linear_data"):
            mask = saved
        elif producer.op.name == "max_pool2d_bwd" and producer.attrs["pooled"].node.inputs[0] is saved:
            mask = producer.attrs["pooled"]  # a window passes its gradient where its maximum is above 0
        else:
            continue
        producer.inputs.append(mask)
        producer.attrs = {**producer.attrs, "mask": True}
        _absorb(producer, node)


def choose_layout(nodes: list[Node], vw: int) -> str:
    """lanes_n for batches of at least a vector of images on layers small enough, else lanes_c."""
    convolutions = [node for node in nodes if node.op.name == "conv2d"]
    if not convolutions:
        return LANES_C
    for node in convolutions:
        n, c, h, w = dims4(node.inputs[0].shape)
        channels = max(c, node.outputs[0].shape[1])
        if n < vw or channels > MANY_CHANNELS or c * h * w * vw * 4 > CACHED_BYTES:
            return LANES_C
    return LANES_N


def halos(nodes: list[Node], layout: str) -> dict[int, dict[str, tuple[int, int, int, int]]]:
    """{symbol id: {layout: the largest frame any reader wants}}."""
    out: dict[int, dict[str, tuple[int, int, int, int]]] = {}
    for node in nodes:
        for index, (kind, halo) in node.op.halo(node, layout).items():
            if any(halo):
                wanted = out.setdefault(node.inputs[index].id, {})
                wanted[kind] = tuple(max(a, b) for a, b in zip(wanted.get(kind, halo), halo))
    return out
