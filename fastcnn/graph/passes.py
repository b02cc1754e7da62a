"""What is changed in a graph before it is lowered: the named fusions, the layout, the halos."""

from __future__ import annotations

from collections import Counter

from ..ops import OPS
from .lower import LANES_C, LANES_N, dims4
from .trace import Node, Symbol, topological

CACHED_BYTES = 1 << 20  # lanes_n pays while a block of images of a layer's input stays about in the L2 cache
MANY_CHANNELS = 128  # from here on lanes_c has no remainder to speak of and packed weights are read in fewer streams


RECOMPUTED_BYTES = 1 << 20  # a normalised value of at least this size is computed again rather than kept for backward


def run(nodes: list[Node], roots: list[Symbol], layout: str, forward_ids: set[int], vw: int) -> list[Node]:
    """All fusions. Each has a test that compares it with FASTCNN_EAGER, which skips them."""
    if all(node.id in forward_ids for node in nodes):
        forward_ids |= {node.id for node in fold_norm(nodes, roots)}
        keep_weights(nodes)
    fuse_residual(nodes, roots)
    if layout == LANES_C:
        fuse_sum(nodes, roots)
    fuse_activation(nodes, roots)
    fuse_relu_gradient(nodes, roots)
    fuse_norm_mask(nodes, roots)
    if layout == LANES_C:
        narrow_positions(nodes, roots)  # the kernel that pools gives narrow ones
        fuse_pooling(nodes, roots, layout, vw)
    else:
        crop_to_windows(nodes, roots)
        fuse_pooling(nodes, roots, layout, vw)
        fuse_pooling_gradient(nodes, roots)
        narrow_positions(nodes, roots)
    recompute_normalised(nodes, forward_ids, parts(nodes, layout, vw))
    return topological(roots)


def _uses(nodes, roots) -> Counter:
    uses = Counter(s.id for s in roots)
    for node in nodes:
        if node.outputs:  # else another node does its work
            uses.update(s.id for s in node.inputs)
    return uses


def _absorb(producer: Node, consumer: Node) -> None:
    """The consumer's work is done by the producer: its output symbols are the producer's from now on."""
    for symbol in consumer.outputs:
        symbol.node = producer
    producer.outputs, consumer.outputs = consumer.outputs, []


def fold_norm(nodes, roots) -> list[Node]:
    """conv2d or linear, then batch_norm with kept moments, of a graph without gradients: the weights and the bias take
    on the norm's scale and shift, once for all runs between two changes of them. The nodes that see to it."""
    uses, added = _uses(nodes, roots), []
    for node in nodes:
        if node.op.name != "batch_norm" or node.attrs["training"]:
            continue
        producer = node.inputs[0].node
        if producer is None or producer.op.name not in ("conv2d", "linear") or uses[node.inputs[0].id] != 1:
            continue
        kept = [*producer.inputs[1:], *node.inputs[1:]]
        if any(s.param is None and s.array is None for s in kept):
            continue
        folded = Node(OPS["fold_norm"], kept, {k: node.attrs[k] for k in ("eps", "affine")})
        folded.id, folded.path = producer.id - 0.5, node.path
        producer.inputs[1:] = folded.outputs
        _absorb(producer, node)
        added.append(folded)
    return added


def keep_weights(nodes) -> None:
    """conv2d of a graph without gradients: what is made of parameters and constants serves many runs."""
    for node in nodes:
        if node.op.name == "conv2d" and node.outputs:
            weight = node.inputs[1]
            folded = weight.node is not None and weight.node.op.name == "fold_norm"
            if folded or weight.param is not None or weight.array is not None:
                node.attrs = {**node.attrs, "kept": True}


def fuse_activation(nodes, roots) -> None:
    """conv2d, linear or batch_norm, then ReLU: the ReLU goes into the kernel's store."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "map" or node.attrs["kind"] != "relu":
            continue
        producer = node.inputs[0].node
        if (
            producer is not None
            and producer.op.name in ("conv2d", "linear", "batch_norm")
            and uses[node.inputs[0].id] == 1
        ):
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
            above = producer.inputs[0].node
            if above is not None and above.op.name == "conv2d_data" and uses[producer.inputs[0].id] == 1:
                if not above.attrs.get("mask"):  # or is not given any there
                    above.inputs.append(mask)
                    above.attrs = {**above.attrs, "mask": True}
                    _absorb(producer, node)
                    continue
        else:
            continue
        producer.inputs.append(mask)
        producer.attrs = {**producer.attrs, "mask": True}
        _absorb(producer, node)


def fuse_residual(nodes, roots) -> None:
    """batch_norm, then the addition of another value: the addition goes into the normalising pass."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "zip" or node.attrs["kind"] != "add":
            continue
        for mine, other in (node.inputs[::-1], node.inputs):
            producer = mine.node
            if producer is None or producer.op.name != "batch_norm" or uses[mine.id] != 1:
                continue
            if producer.attrs.get("residual") or (other.node is not None and other.node.id > producer.id):
                continue
            producer.inputs.append(other)
            producer.attrs = {**producer.attrs, "residual": True}
            _absorb(producer, node)
            break


def fuse_sum(nodes, roots) -> None:
    """conv2d or its data gradient, then the addition of another value: the addition goes into the kernel's store."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "zip" or node.attrs["kind"] != "add" or not node.outputs:
            continue
        for mine, other in (node.inputs[::-1], node.inputs):
            producer = mine.node
            if producer is None or producer.op.name not in ("conv2d", "conv2d_data") or uses[mine.id] != 1:
                continue
            if producer.attrs.get("add") or (other.node is not None and other.node.id > producer.id):
                continue
            producer.inputs.append(other)
            producer.attrs = {**producer.attrs, "add": True}
            _absorb(producer, node)
            break


def fuse_norm_mask(nodes, roots) -> None:
    """The gradient of ReLU, then that of batch_norm: the mask goes into the passes that read dy."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "batch_norm_bwd":
            continue
        masked = node.inputs[1].node
        if masked is None or masked.op.name != "map_bwd" or masked.attrs["kind"] != "relu" or not masked.outputs:
            continue
        if uses[node.inputs[1].id] == 1:
            saved, node.inputs[1] = masked.inputs
            node.inputs.append(saved)
            node.attrs = {**node.attrs, "mask": True}


def recompute_normalised(nodes: list[Node], forward_ids: set[int], wholes: dict[int, tuple[Symbol, int]]) -> None:
    """The result of batch_norm (and ReLU) that backward reads is made again there, from the convolution's, which
    backward needs as well: one pass more over memory, instead of memory from the one time to the other. Not where it
    is part of a concatenation (see parts) that backward reads anyway."""
    kept = {s.id for n in nodes if n.outputs and n.id not in forward_ids for s in n.inputs}
    for node in nodes:
        if node.op.name != "batch_norm" or not node.outputs or node.id not in forward_ids:
            continue
        (y,) = node.outputs
        readers = [n for n in nodes if n.outputs and n.id not in forward_ids and y in n.inputs]
        if not readers or not node.attrs["training"] or node.attrs.get("residual") or 4 * y.size < RECOMPUTED_BYTES:
            continue
        if y.id in wholes and wholes[y.id][0].id in kept:
            continue
        again = Node(node.op, node.inputs, {**node.attrs, "running": None})
        again.id, again.path = min(n.id for n in readers) - 0.5, node.path
        for reader in readers:
            reader.inputs = [again.outputs[0] if s is y else s for s in reader.inputs]


GRADIENT_OF = {"conv2d_data": 0, "conv2d_weight": 1, "channel_sum": 0}  # which input is that of a convolution's result
POOLING_2X2 = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}


def crop_to_windows(nodes, roots) -> None:
    """conv2d, then a 2x2 max pooling that alone reads it: a last row or column that no window meets is not computed,
    nor its gradient, which is 0. In conv2d's terms, there is less padding below and on the right."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "max_pool2d" or not node.outputs or node.attrs != POOLING_2X2:
            continue
        y, rest = node.inputs[0], [side % 2 for side in node.inputs[0].shape[2:]]
        if y.node is None or y.node.op.name != "conv2d" or uses[y.id] != 1 or not any(rest):
            continue
        gradients = [n for n in nodes if n.outputs and n.op.name == "max_pool2d_bwd" and node.outputs[1] in n.inputs]
        dys = [n.outputs[0] for n in gradients]
        readers = [n for n in nodes if n.outputs and any(s in dys for s in n.inputs)]
        if uses[node.outputs[1].id] != len(gradients) or sum(uses[s.id] for s in dys) != len(readers):
            continue
        if not all(n.op.name in GRADIENT_OF and n.inputs[GRADIENT_OF[n.op.name]] in dys for n in readers):
            continue
        for symbol in [y, *dys]:
            symbol.shape = (*y.shape[:2], *(side // 2 * 2 for side in y.shape[2:]))
        for n in gradients:
            n.attrs = {**n.attrs, "shape": y.shape}
        for n in [y.node, *readers]:
            if n.op.name != "channel_sum":
                (top, bottom, left, right), (high, wide) = n.attrs["pads"], n.attrs["stride"]
                n.attrs = {**n.attrs, "pads": (top, bottom - rest[0] * high, left, right - rest[1] * wide)}


def fuse_pooling(nodes, roots, layout, vw) -> None:
    """conv2d, then a 2x2 max pooling that alone reads it: the convolution's result is never stored."""
    uses = _uses(nodes, roots)
    for node in nodes:
        if node.op.name != "max_pool2d" or not node.outputs or uses[node.inputs[0].id] != 1:
            continue
        producer = node.inputs[0].node
        if producer is None or producer.op.name != "conv2d" or node.attrs != POOLING_2X2:
            continue
        if producer.attrs.get("pool"):  # it has taken one already, whose result this one reads
            continue
        if layout == LANES_C and node.outputs[1].dtype != "uint8":  # see narrow_positions
            continue
        if producer.op.pools(producer, layout, vw, places=uses[node.outputs[1].id] > 0):
            producer.attrs = {**producer.attrs, "pool": True}
            _absorb(producer, node)


def fuse_pooling_gradient(nodes, roots) -> None:
    """The gradient of a 2x2 max pooling that is part of conv2d: what needs no more than the places of the maxima does
    without the gradient of the whole plane."""
    for node in nodes:
        if node.op.name != "max_pool2d_bwd" or not node.outputs or node.attrs.get("mask"):
            continue
        if not node.attrs["pooled"].node.attrs.get("pool"):
            continue
        dy, idx = node.inputs
        for reader in nodes:
            if node.outputs[0] not in reader.inputs or not reader.outputs:
                continue
            if reader.op.name == "channel_sum":
                reader.inputs = [dy]
            elif reader.op.name == "conv2d_weight" and reader.inputs[0] is not node.outputs[0]:
                if reader.op.takes_pooled(reader):
                    reader.inputs = [reader.inputs[0], dy, idx]
                    reader.attrs = {**reader.attrs, "pooled": True}


def narrow_positions(nodes, roots) -> None:
    """Positions of maxima that only gradients read: their numbers in their windows, a byte each."""
    read = {s.id for s in roots}
    for node in nodes:
        if node.outputs and node.op.name != "max_pool2d_bwd":
            read.update(s.id for s in node.inputs)
    for node in nodes:
        if node.op.name == "max_pool2d" and node.outputs and node.outputs[1].id not in read:
            if node.attrs["kernel"][0] * node.attrs["kernel"][1] <= 256:
                node.outputs[1].dtype = "uint8"


def choose_layout(nodes: list[Node], vw: int) -> str:
    """lanes_n for batches of at least a vector of images on layers small enough, else lanes_c."""
    convolutions = [node for node in nodes if node.op.name == "conv2d"]
    for node in convolutions:
        n, c, h, w = dims4(node.inputs[0].shape)
        channels = max(c, node.outputs[0].shape[1])
        if n < vw or channels > MANY_CHANNELS or c * h * w * vw * 4 > CACHED_BYTES:
            return LANES_C
    return LANES_N if convolutions else LANES_C


def parts(nodes: list[Node], layout: str, vw: int) -> dict[int, tuple[Symbol, int]]:
    """{symbol id: the concatenation of channels that it can be written into at once, and its first channel there}."""
    out: dict[int, tuple[Symbol, int]] = {}
    for node in nodes:
        if (
            layout != LANES_C
            or node.op.name != "cat"
            or not node.outputs
            or node.attrs["dim"] != 1
            or node.outputs[0].ndim < 3
        ):
            continue
        channel, found = 0, {}
        for symbol in node.inputs:
            if channel % vw:
                found = {}
                break
            if symbol.node is not None:
                found.setdefault(symbol.id, (node.outputs[0], channel))
            channel += symbol.shape[1]
        out = {**found, **out}
    return out


def halos(nodes: list[Node], layout: str) -> dict[int, dict[str, tuple[int, int, int, int]]]:
    """{symbol id: {layout: the largest frame any reader wants}}."""
    out: dict[int, dict[str, tuple[int, int, int, int]]] = {}
    for node in nodes:
        for index, (kind, halo) in node.op.halo(node, layout).items():
            if any(halo):
                wanted = out.setdefault(node.inputs[index].id, {})
                wanted[kind] = tuple(max(a, b) for a, b in zip(wanted.get(kind, halo), halo))
    return out
