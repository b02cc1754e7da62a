"""Windows of pixels given by tables: resampling, padding, adaptive pooling, pooling of one and three dimensions."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from ..graph.lower import PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float
from .pool import blocked


class Table:
    """For each of `outs` pixels, the `ins` pixels that it reads: index[starts[j]:starts[j + 1]], and their weights.

    `shape` is the spatial shape that the outs form; `axes`, of a table made by `separable`, its one-dimensional ones.
    Tables are compared and hashed by content.
    """

    axes: tuple = ()

    def __init__(self, ins: int, shape: tuple[int, ...], starts, index, weights=None):
        self.ins, self.shape, self.outs = int(ins), tuple(shape), math.prod(shape)
        self.starts, self.index = np.asarray(starts, np.int64), np.asarray(index, np.int64)
        self.weights = np.ones(len(self.index)) if weights is None else np.asarray(weights, np.float64)
        parts = (self.ins, self.shape, self.starts.tobytes(), self.index.tobytes(), self.weights.tobytes())
        self._key = hash(parts)

    def __hash__(self):
        return self._key

    def __eq__(self, other):
        return isinstance(other, Table) and self._key == other._key and self.shape == other.shape

    @functools.cached_property
    def transposed(self) -> Table:
        """Which outs read each of the ins."""
        rows = np.repeat(np.arange(self.outs), np.diff(self.starts))
        order = np.argsort(self.index, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(self.index, minlength=self.ins))])
        return Table(self.outs, (self.ins,), starts, rows[order], self.weights[order])

    def dense(self) -> np.ndarray:
        """The matrix [outs][ins], for tests."""
        out = np.zeros((self.outs, self.ins))
        np.add.at(out, (np.repeat(np.arange(self.outs), np.diff(self.starts)), self.index), self.weights)
        return out


@functools.lru_cache(maxsize=256)
def separable(sizes: tuple[int, ...], axes: tuple[tuple[tuple[tuple[int, float], ...], ...], ...]) -> Table:
    """The product of one-dimensional tables: axes[d][j] = ((index, weight), ...) along dimension d of `sizes`."""
    starts, index, weights = [0], [], []
    steps = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
    for windows in itertools.product(*axes):
        for taps in itertools.product(*windows):
            index.append(sum(i * step for (i, _), step in zip(taps, steps)))
            weights.append(math.prod(weight for _, weight in taps))
        starts.append(len(index))
    table = Table(math.prod(sizes), tuple(len(axis) for axis in axes), starts, index, weights)
    table.axes = axes
    return table


def _dense(b, symbol, layout):
    """(where to write a symbol densely, what to call afterwards)."""
    y = b.out(symbol, layout)
    if y.dense:
        return y, lambda: None
    dense = b.new(symbol.shape, layout)
    return dense, lambda: b.copy(dense, y)


def _tables(b, table: Table, weighted: bool):
    fields = dict(starts=b.constant(table.starts).at(), index=b.constant(table.index).at())
    return {**fields, "weights": b.constant(table.weights.astype(np.float32)).at()} if weighted else fields


def _spatial(name, x, table):
    check_float(name, "input", x)
    if math.prod(x.shape[2:]) != table.ins:
        raise ValueError(f"{name}: a table for {table.ins} pixels cannot read an input of shape {x.shape}")
    return (*x.shape[:2], *table.shape)


class GatherSum(Op):
    """x (N, C, *in) through attrs table: (N, C, *table.shape). attrs resize, of interpolation, says how it was meant:
    (mode, align_corners, the factor given or None per axis)."""

    name = "gather_sum"

    def infer(self, inputs, attrs):
        shape = _spatial("gather_sum", inputs[0], attrs["table"])
        return [(attrs.get("shape") or shape, "float32")]

    def grad(self, node, douts, needs):
        back = node.attrs["table"].transposed
        return [add_node(OPS["gather_sum"], [douts[0]], table=back, shape=node.inputs[0].shape)]

    def lower(self, node, b):
        table = node.attrs["table"]
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]), dense=True)
        y, finish = _dense(b, node.outputs[0], x.layout)
        b.emit(
            "gather_sum",
            float(x.n * x.c * len(table.index) * b.vw),
            x=x.at(),
            y=y.at(),
            planes=x.n * x.c,
            ins=table.ins,
            outs=table.outs,
            **_tables(b, table, True),
        )
        finish()

    def cases(self):
        axis = (((0, 1.0),), ((0, 0.25), (1, 0.75)), ((2, 1.0), (3, -2.0), (0, 0.5)), ((1, 1.0),))
        line = separable((5,), (axis,))
        plane = separable((5, 4), (axis, axis[:3]))
        return [([shape], {"table": line}) for shape in [(1, 1, 5), (9, 3, 5)]] + [
            ([shape], {"table": plane}) for shape in [(2, 17, 5, 4), (17, 2, 5, 4)]
        ]


class GatherMax(Op):
    """The maximum of each window of attrs table, and where it is (int32, flat in the plane)."""

    name = "gather_max"

    def infer(self, inputs, attrs):
        shape = _spatial("gather_max", inputs[0], attrs["table"])
        return [(shape, "float32"), (shape, "int32")]

    def grad(self, node, douts, needs):
        shape, table = node.inputs[0].shape, node.attrs["table"]
        return [add_node(OPS["gather_max_bwd"], [douts[0], node.outputs[1]], shape=shape, table=table)]

    def lower(self, node, b):
        table = node.attrs["table"]
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]), dense=True)
        y, finish = _dense(b, node.outputs[0], x.layout)
        idx = b.out(node.outputs[1], x.layout).at() if node.outputs[1].id in b.used else None
        b.emit(
            "gather_max",
            float(x.n * x.c * len(table.index) * b.vw),
            x=x.at(),
            y=y.at(),
            idx=idx,
            planes=x.n * x.c,
            ins=table.ins,
            outs=table.outs,
            **_tables(b, table, False),
        )
        finish()

    def cases(self):
        axis = (((0, 1.0), (1, 1.0)), ((1, 1.0), (2, 1.0), (3, 1.0)), ((4, 1.0),))
        return [
            ([(2, 3, 5)], {"table": separable((5,), (axis,))}),
            ([(17, 2, 5, 5)], {"table": separable((5, 5), (axis, axis[:2]))}),
            ([(2, 9, 5, 5)], {"table": separable((5, 5), (axis, axis))}),
        ]


class GatherMaxBwd(Op):
    name = "gather_max_bwd"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def lower(self, node, b):
        back = node.attrs["table"].transposed
        dy = b.get(node.inputs[0], blocked(b, node.inputs[1]), dense=True)
        idx = b.get(node.inputs[1], dy.layout, dense=True)
        dx, finish = _dense(b, node.outputs[0], dy.layout)
        b.emit(
            "gather_max_bwd",
            float(dy.n * dy.c * len(back.index) * b.vw),
            dy=dy.at(),
            idx=idx.at(),
            dx=dx.at(),
            planes=dy.n * dy.c,
            ins=node.attrs["table"].ins,
            outs=node.attrs["table"].outs,
            **_tables(b, back, False),
        )
        finish()


def _positions(b, symbol):
    idx = b.get(symbol, PLAIN, dense=True)
    return {"narrow" if symbol.dtype == "int32" else "wide": idx.at()}


class Scatter(Op):
    """Max unpooling: x (N, C, *in) to the positions idx, of one shape, in planes of attrs spatial; 0 elsewhere."""

    name = "scatter"

    def extra(self, node):
        return {}

    def infer(self, inputs, attrs):
        return [((*inputs[0].shape[:2], *attrs["spatial"]), "float32")]

    def grad(self, node, douts, needs):
        idx = node.inputs[1]
        return [add_node(OPS["gather"], [douts[0], idx], spatial=node.inputs[0].shape[2:]) if needs[0] else None, None]

    def lower(self, node, b):
        x = b.get(node.inputs[0], PLAIN, dense=True)
        y, finish = _dense(b, node.outputs[0], PLAIN)
        planes = math.prod(x.shape[:2])
        ins, outs = math.prod(x.shape[2:]), math.prod(node.attrs["spatial"])
        b.emit(
            self.name, x.floats + y.floats, x=x.at(), y=y.at(), planes=planes, ins=ins, outs=outs,
            **_positions(b, node.inputs[1]), **self.extra(node),
        )  # fmt: skip
        finish()


class Gather(Scatter):
    """x (N, C, *in) read at the positions idx, which have the output's shape; 0 at positions outside.

    attrs classes and ignore_index (both or none): positions are class indices, checked before each run; those equal to
    ignore_index give 0.
    """

    name = "gather"

    def extra(self, node):
        return {"skip": node.attrs.get("ignore_index", -1)}

    def grad(self, node, douts, needs):
        idx = node.inputs[1]
        return [add_node(OPS["scatter"], [douts[0], idx], spatial=node.inputs[0].shape[2:]) if needs[0] else None, None]
