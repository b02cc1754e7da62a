"""Max and average pooling over windows, PyTorch's conventions."""

from __future__ import annotations

from ..graph.lower import LANES_C, LANES_N
from ..graph.trace import add_node
from .base import OPS, Op, check_float, check_rank


def output_size(size, k, stride, pad, dilation, ceil_mode) -> int:
    """PyTorch's rule: with ceil_mode a last window may hang over the end, but must start before it."""
    span = size + 2 * pad - dilation * (k - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + pad else out


def blocked(b, symbol) -> str:
    have = b.layouts(symbol)
    return b.layout if b.layout in have else next((k for k in have if k in (LANES_C, LANES_N)), b.layout)


def _infer(op, inputs, attrs):
    x = inputs[0]
    check_float(op, "input", x)
    check_rank(op, "input", x, 4, "(N, C, H, W)")
    (kh, kw), (sh, sw), (ph, pw) = attrs["kernel"], attrs["stride"], attrs["padding"]
    dh, dw = attrs.get("dilation", (1, 1))
    if ph > kh // 2 or pw > kw // 2:
        raise ValueError(
            f"{op}: padding must be at most half the kernel size, got padding {attrs['padding']} "
            f"and kernel_size {attrs['kernel']}"
        )
    oh = output_size(x.shape[2], kh, sh, ph, dh, attrs["ceil_mode"])
    ow = output_size(x.shape[3], kw, sw, pw, dw, attrs["ceil_mode"])
    if oh < 1 or ow < 1:
        raise ValueError(
            f"{op}: input {x.shape[2]}x{x.shape[3]} is smaller than the window {kh}x{kw} (padding {attrs['padding']})"
        )
    return (*x.shape[:2], oh, ow)


def _window(x_shape, y_shape, attrs, storage):
    (kh, kw), (sh, sw), (ph, pw) = attrs["kernel"], attrs["stride"], attrs["padding"]
    return dict(
        n=storage.n,
        c=storage.c,
        h=x_shape[2],
        w=x_shape[3],
        oh=y_shape[2],
        ow=y_shape[3],
        kh=kh,
        kw=kw,
        stride_h=sh,
        stride_w=sw,
        pad_h=ph,
        pad_w=pw,
    )


def _dilation(attrs):
    dh, dw = attrs["dilation"]
    return dict(dil_h=dh, dil_w=dw)


def _where(symbol, storage):
    return {"idx" if symbol.dtype == "int32" else "taps": storage.at()}


class MaxPool2d(Op):
    """Outputs y and the flat position of every maximum in its plane (int32), or (uint8) its number in its window."""

    name = "max_pool2d"

    def infer(self, inputs, attrs):
        shape = _infer("max_pool2d", inputs, attrs)
        return [(shape, "float32"), (shape, "int32")]

    def grad(self, node, douts, needs):
        y, idx = node.outputs
        return [add_node(OPS["max_pool2d_bwd"], [douts[0], idx], shape=node.inputs[0].shape, pooled=y, **node.attrs)]

    def lower(self, node, b):
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]))
        y = b.out(node.outputs[0], x.layout)
        where = _where(node.outputs[1], b.out(node.outputs[1], x.layout)) if node.outputs[1].id in b.used else {}
        b.emit(
            "max_pool",
            y.floats * 4.0,
            x=x.at(),
            y=y.at(),
            **where,
            **_window(node.inputs[0].shape, node.outputs[0].shape, node.attrs, x),
            **_dilation(node.attrs),
            **x.strides("x"),
            **y.strides("y"),
        )

    def cases(self):
        out = []
        for shape, kernel, change in [
            ((1, 1, 4, 4), (2, 2), {}),
            ((2, 9, 7, 6), (2, 2), {}),
            ((17, 3, 8, 8), (3, 3), {"stride": (2, 2), "padding": (1, 1)}),
            ((2, 17, 6, 7), (3, 3), {"stride": (1, 1), "padding": (1, 1)}),
            ((2, 5, 7, 9), (3, 2), {"stride": (1, 2)}),
            ((1, 17, 9, 9), (3, 3), {"stride": (2, 2), "ceil_mode": True}),
            ((3, 4, 11, 10), (3, 3), {"stride": (2, 1), "dilation": (2, 2), "padding": (1, 1)}),
            ((2, 3, 5, 4), (3, 3), {"stride": (1, 3), "padding": (0, 1)}),
        ]:
            base = dict(kernel=kernel, stride=kernel, padding=(0, 0), dilation=(1, 1), ceil_mode=False)
            out.append(([shape], {**base, **change}))
        return out


class MaxPool2dBwd(Op):
    """dx from dy and the positions; with attrs mask, a third input: the pooled output."""

    name = "max_pool2d_bwd"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def lower(self, node, b):
        idx_layout = next(k for k in b.layouts(node.inputs[1]) if k in (LANES_C, LANES_N))
        idx = b.get(node.inputs[1], idx_layout)
        dy = b.get(node.inputs[0], idx_layout)
        mask = b.get(node.inputs[2], idx_layout) if node.attrs.get("mask") else None
        dx = b.out(node.outputs[0], idx_layout)
        m = mask.strides("m") if mask else {"m_n": 0, "m_c": 0, "m_h": 0}
        b.emit(
            "max_pool_bwd",
            dx.floats * 2.0,
            dy=dy.at(),
            **_where(node.inputs[1], idx),
            mask=mask.at() if mask else None,
            dx=dx.at(),
            **_window(node.attrs["shape"], node.inputs[0].shape, node.attrs, dx),
            **_dilation(node.attrs),
            **dy.strides("y"),
            **m,
            **dx.strides("x"),
        )


class AvgPool2d(Op):
    name = "avg_pool2d"

    def infer(self, inputs, attrs):
        return [(_infer("avg_pool2d", inputs, attrs), "float32")]

    def grad(self, node, douts, needs):
        return [add_node(OPS["avg_pool2d_bwd"], [douts[0]], shape=node.inputs[0].shape, **node.attrs)]

    def lower(self, node, b):
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]))
        y = b.out(node.outputs[0], x.layout)
        b.emit(
            "avg_pool",
            y.floats * 4.0,
            x=x.at(),
            y=y.at(),
            **_window(node.inputs[0].shape, node.outputs[0].shape, node.attrs, x),
            count_include_pad=int(node.attrs["count_include_pad"]),
            divisor=node.attrs["divisor"] or 0,
            **x.strides("x"),
            **y.strides("y"),
        )

    def cases(self):
        out = []
        for shape, kernel, change in [
            ((1, 1, 4, 4), (2, 2), {}),
            ((2, 9, 7, 6), (3, 3), {"stride": (2, 2), "padding": (1, 1)}),
            ((9, 3, 7, 6), (3, 3), {"stride": (2, 2), "padding": (1, 1), "count_include_pad": False}),
            ((2, 5, 7, 9), (3, 2), {"stride": (2, 2), "ceil_mode": True, "padding": (1, 1)}),
            ((3, 4, 5, 5), (2, 3), {"stride": (1, 1), "divisor": 5}),
        ]:
            base = dict(
                kernel=kernel, stride=kernel, padding=(0, 0), ceil_mode=False, count_include_pad=True, divisor=None
            )
            out.append(([shape], {**base, **change}))
        return out


class AvgPool2dBwd(Op):
    name = "avg_pool2d_bwd"

    def infer(self, inputs, attrs):
        return [(attrs["shape"], "float32")]

    def lower(self, node, b):
        dy = b.get(node.inputs[0], blocked(b, node.inputs[0]))
        dx = b.out(node.outputs[0], dy.layout)
        b.emit(
            "avg_pool_bwd",
            dx.floats * 2.0,
            dy=dy.at(),
            dx=dx.at(),
            **_window(node.attrs["shape"], node.inputs[0].shape, node.attrs, dx),
            count_include_pad=int(node.attrs["count_include_pad"]),
            divisor=node.attrs["divisor"] or 0,
            **dy.strides("y"),
            **dx.strides("x"),
        )
