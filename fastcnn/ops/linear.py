"""Linear layers and matrix products: conv_lanes_n on lanes_n values, gemm and gemv on plain ones."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..graph.lower import LANES_C, LANES_N, PLAIN
from ..graph.trace import add_node
from .base import OPS, Op, check_float, check_rank

GEMV_ROWS = 4  # up to so many rows, the weights are read where they lie instead of packed
FAR_FLOATS = 1 << 18  # of weights that lie beyond the L2 cache
# The kinds of gemm_update: optimizers' kernels and the names of their states.
UPDATES = {"sgd": ("buf",), "adam": ("m", "v", "vmax"), "rmsprop": ("v", "buf", "avg"), "adagrad": ("v",)}
PACKED_FLOATS = 1 << 21  # of a matrix larger than this (8 MB) and than the other one, so much at a time is packed


def emit_gemm(b, m, n, k, a, a_m, a_k, w, w_k, w_n, c, bias=None, mask=None, act=0):
    """C[m][n] = A*B on plain values; w_k, w_n are the strides of B's rows and columns."""
    if m <= 2 * b.gemm_n and n * k >= FAR_FLOATS and min(n, k) >= 4 * m:
        return _emit_transposed(b, m, n, k, a, a_m, a_k, w, w_k, w_n, c, bias, mask, act)
    most = max(1, max(PACKED_FLOATS, m * k) // (k * b.gemm_n)) * b.gemm_n
    parts = -(-n // most)
    width = -(-n // (parts * b.gemm_n)) * b.gemm_n  # parts of about one size
    for first in range(0, n, width):
        count = min(width, n - first)
        packed = _pack_columns(b, w.at(first * w_n), count, k, w_k, w_n)
        at = {name: s.at(first) if s else None for name, s in (("bias", bias), ("mask", mask), ("c", c))}
        _emit_product(b, a.at(), packed, m, count, k, a_m, a_k, n, act, **at)


def _emit_transposed(b, m, n, k, a, a_m, a_k, w, w_k, w_n, c, bias, mask, act):
    """The same for few rows of A and a large B, as C' = B'*A', turned: only A is packed whole. B is read once, block by
    block or, where its columns lie along memory (w_k 1), without being packed."""
    width = -(-m // b.vw) * b.vw
    turned = b.scratch(n * width)
    _emit_product(b, w.at(), _pack_columns(b, a.at(), m, k, a_k, a_m), n, width, k, w_n, w_k, width, 0, turned.at())
    b.emit(
        "transpose",
        m * n,
        x=turned.at(),
        bias=bias.at() if bias else None,
        mask=mask.at() if mask else None,
        y=c.at(),
        m=n,
        n=m,
        x_m=width,
        y_n=n,
        act=act,
    )


def _pack_columns(b, w, n, k, w_k, w_n):
    packed = b.scratch(-(-n // b.gemm_n) * b.gemm_n * k)
    b.emit("gemm_pack_b", packed.floats, b=w, bp=packed.at(), k=k, n=n, b_k=w_k, b_n=w_n)
    return packed


def _emit_product(b, a, packed, m, n, k, a_m, a_k, c_m, act, c, bias=None, mask=None):
    size = _core.gemm_scratch(m)
    scratch = b.scratch(size * b.threads)
    b.emit(
        "gemm",
        float(m) * n * k,
        a=a,
        bp=packed.at(),
        bias=bias,
        mask=mask,
        c=c,
        scratch=scratch.at(),
        m=m,
        n=n,
        k=k,
        a_m=a_m,
        a_k=a_k,
        c_m=c_m,
        scratch_size=size,
        act=act,
        accumulate=0,
    )


def emit_gemm_update(b, update, m, n, k, a, a_m, a_k, w, w_k, w_n):
    """Update an m x n parameter by the gradient A*B, which is never stored."""
    packed = _pack_columns(b, w.at(), n, k, w_k, w_n)
    size = _core.gemm_update_scratch(k)
    scratch = b.scratch(size * b.threads)
    states = [update.states.get(name) for name in UPDATES[update.kernel]]
    b.changes = update.param
    b.emit(
        "gemm_update",
        float(m) * n * k,
        a=a.at(),
        bp=packed.at(),
        p=update.states["p"].at(),
        **{f"s{i}": state.at() for i, state in enumerate(states) if state},
        hyper=update.hyper.at(),
        scratch=scratch.at(),
        kind=list(UPDATES).index(update.kernel),
        m=m,
        n=n,
        k=k,
        a_m=a_m,
        a_k=a_k,
        scratch_size=size,
    )
    b.changes = None


def emit_linear_n(b, x, w, bias, mask, y, k, w_step, w_m, outs, act):
    """y[blocks][outs][VW] from x[blocks][k][VW]: the image blocks are the pixels of a row."""
    runs = b.constant(np.zeros((1, 2), np.int64))
    panels = b.constant(np.array([[0, 0, 0, outs]], np.int64))
    m = {"m_n": 0, "m_c": mask.sc if mask else 0, "m_h": 0, "m_w": mask.sn if mask else 0}
    b.emit(
        "conv_lanes_n",
        float(x.images) * k * outs,
        x=x.at(),
        w=w.at(),
        bias=bias.at() if bias else None,
        mask=mask.at() if mask else None,
        y=y.at(),
        runs=runs.at(),
        panels=panels.at(),
        rows=None,
        cols=None,
        n=1,
        oh=1,
        ow=x.n,
        nruns=1,
        run_len=k,
        x_step=b.vw,
        w_step=w_step,
        w_m=w_m,
        npanels=1,
        x_n=0,
        x_h=0,
        x_w=x.sn,
        y_n=0,
        y_c=y.sc,
        y_h=0,
        y_w=y.sn,
        **m,
        act=act,
        pool=0,
    )


class Linear(Op):
    """inputs x[n][in], weight[out][in], optionally bias[out]."""

    name = "linear"

    def infer(self, inputs, attrs):
        x, w = inputs[:2]
        for argument, symbol in zip(("input", "weight", "bias"), inputs):
            check_float("linear", argument, symbol)
        check_rank("linear", "input", x, 2, "(N, in_features)")
        check_rank("linear", "weight", w, 2, "(out_features, in_features)")
        if x.shape[1] != w.shape[1]:
            raise ValueError(
                f"linear: input has {x.shape[1]} features (shape {x.shape}), expected {w.shape[1]} (weight {w.shape})"
            )
        if len(inputs) > 2 and inputs[2].shape != (w.shape[0],):
            raise ValueError(f"linear: bias must have shape ({w.shape[0]},), got {inputs[2].shape}")
        return [((x.shape[0], w.shape[0]), "float32")]

    def grad(self, node, douts, needs):
        x, w = node.inputs[:2]
        dy = douts[0]
        return [
            add_node(OPS["linear_data"], [dy, w]) if needs[0] else None,
            add_node(OPS["linear_weight"], [x, dy]) if needs[1] else None,
            add_node(OPS["channel_sum"], [dy]) if needs[2:3] == [True] else None,
        ]

    def lower(self, node, b):
        (n, k), outs, act = node.inputs[0].shape, node.inputs[1].shape[0], node.attrs.get("act", 0)
        w = b.get(node.inputs[1], PLAIN, dense=True)
        bias = b.get(node.inputs[2], PLAIN, dense=True) if len(node.inputs) > 2 else None
        if b.layout == LANES_N:
            x, y = b.get(node.inputs[0], LANES_N), b.out(node.outputs[0], LANES_N)
            return emit_linear_n(b, x, w, bias, None, y, k, 1, k, outs, act)
        x, y = b.get(node.inputs[0], PLAIN, dense=True), b.out(node.outputs[0], PLAIN)
        if n <= GEMV_ROWS:
            b.emit(
                "gemv",
                float(n) * k * outs,
                x=x.at(),
                w=w.at(),
                bias=bias.at() if bias else None,
                y=y.at(),
                m=n,
                n=outs,
                k=k,
                x_m=k,
                w_n=k,
                y_m=outs,
                act=act,
            )
        else:
            emit_gemm(b, n, outs, k, x, k, 1, w, 1, k, y, bias=bias, act=act)

    def cases(self):
        out = []
        for n, k, outs in [(1, 5, 3), (3, 16, 17), (8, 33, 10), (17, 64, 1), (64, 40, 31), (5, 1, 7), (2, 130, 65)]:
            out += [([(n, k), (outs, k), (outs,)], {}), ([(n, k), (outs, k)], {})]
        return out


class LinearData(Op):
    """dx[n][in] from dy[n][out] and weight; with attrs mask, a third input: dx is kept where it is > 0."""

    name = "linear_data"

    def infer(self, inputs, attrs):
        return [((inputs[0].shape[0], inputs[1].shape[1]), "float32")]

    def grad(self, node, douts, needs):
        dy, w = node.inputs[:2]
        g = douts[0]
        return [
            add_node(OPS["linear"], [g, w]) if needs[0] else None,
            add_node(OPS["linear_weight"], [g, dy]) if needs[1] else None,
        ]

    def lower(self, node, b):
        (n, outs), k = node.inputs[0].shape, node.inputs[1].shape[1]
        w = b.get(node.inputs[1], PLAIN, dense=True)
        layout = LANES_N if b.layout == LANES_N else PLAIN
        if layout == LANES_N and w.floats >= FAR_FLOATS and n % b.vw == 0 and not node.attrs.get("mask"):
            return self._lower_far(node, b, n, outs, k, w)
        dy = b.get(node.inputs[0], layout, dense=True)
        mask = b.get(node.inputs[2], layout, dense=True) if node.attrs.get("mask") else None
        dx = b.out(node.outputs[0], layout)
        if layout == LANES_N:
            emit_linear_n(b, dy, w, None, mask, dx, outs, k, 1, k, 0)
        else:
            emit_gemm(b, n, k, outs, dy, outs, 1, w, k, 1, dx, mask=mask)

    def _lower_far(self, node, b, n, outs, k, w):
        """lanes_n by way of the transposed gradient: gemm packs the weights' columns block by block."""
        dy, dx, transposed = b.get(node.inputs[0], PLAIN, dense=True), b.out(node.outputs[0], LANES_N), b.scratch(k * n)
        emit_gemm(b, k, n, outs, w, 1, k, dy, 1, outs, transposed)
        strides = dict(x_n=b.vw, x_c=n, x_h=0, y_n=dx.sn, y_c=dx.sc, y_h=0)
        b.emit("copy", dx.floats, x=transposed.at(), y=dx.at(), n=dx.n, c=k, h=1, len=b.vw, **strides)


class LinearWeight(Op):
    """dweight[out][in] from x[n][in] and dy[n][out]."""

    name = "linear_weight"

    def infer(self, inputs, attrs):
        return [((inputs[1].shape[1], inputs[0].shape[1]), "float32")]

    def lower(self, node, b):
        (n, k), outs = node.inputs[0].shape, node.inputs[1].shape[1]
        x, dy = (b.get(s, PLAIN, dense=True) for s in node.inputs)
        kept = any(b.is_kept(s) for s in (x, dy))  # a parameter, say, that this one's update would change meanwhile
        update = None if kept else b.only_update(node.outputs[0])
        if update is not None:
            emit_gemm_update(b, update, outs, k, n, dy, 1, outs, x, k, 1)
        else:
            emit_gemm(b, outs, k, n, dy, 1, outs, x, k, 1, b.out(node.outputs[0], PLAIN))


class Matmul(Op):
    """a[m][k] @ b[k][n]."""

    name = "matmul"

    def infer(self, inputs, attrs):
        a, w = inputs
        for argument, symbol in zip(("a", "b"), inputs):
            check_float("matmul", argument, symbol)
            check_rank("matmul", argument, symbol, 2, "")
        if a.shape[1] != w.shape[0]:
            raise ValueError(f"matmul: shapes {a.shape} and {w.shape} do not fit")
        return [((a.shape[0], w.shape[1]), "float32")]

    def grad(self, node, douts, needs):
        a, w = node.inputs
        return [
            add_node(OPS["linear"], [douts[0], w]) if needs[0] else None,
            add_node(OPS["linear_weight"], [douts[0], a]) if needs[1] else None,
        ]

    def lower(self, node, b):
        (m, k), n = node.inputs[0].shape, node.inputs[1].shape[1]
        a, w = (b.get(s, PLAIN, dense=True) for s in node.inputs)
        emit_gemm(b, m, n, k, a, k, 1, w, n, 1, b.out(node.outputs[0], PLAIN))

    def cases(self):
        return [
            ([(m, k), (k, n)], {}) for m, k, n in [(1, 1, 1), (7, 5, 17), (33, 20, 9), (50, 300, 47), (130, 70, 65)]
        ]


__all__ = ["LANES_C", "emit_gemm"]
