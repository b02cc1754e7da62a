"""Every op in plain NumPy float64: what the kernels are compared with."""

import math

import numpy as np


def windows(x, kernel, stride, dilation):
    """View (N, C, OH, OW, KH, KW) of the windows of a padded x."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    v = np.lib.stride_tricks.sliding_window_view(x, (dh * (kh - 1) + 1, dw * (kw - 1) + 1), axis=(2, 3))
    return v[:, :, ::sh, ::sw, ::dh, ::dw]


def conv2d(x, w, b=None, *, stride, pads, dilation, groups):
    top, bottom, left, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    xs, ws = np.split(x, groups, 1), np.split(w, groups, 0)
    y = np.concatenate(
        [
            np.einsum("ncijkl,ockl->noij", windows(xg, w.shape[2:], stride, dilation), wg, optimize=True)
            for xg, wg in zip(xs, ws)
        ],
        1,
    )
    return y if b is None else y + b[None, :, None, None]


def conv2d_grads(x, w, dy, *, stride, pads, dilation, groups):
    """(dx, dw): scatter of dy over the windows, tap by tap."""
    top, bottom, left, right = pads
    xp = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    (oh, ow), cg, og = dy.shape[2:], w.shape[1], w.shape[0] // groups
    for g in range(groups):
        c, o = slice(g * cg, (g + 1) * cg), slice(g * og, (g + 1) * og)
        for i in range(w.shape[2]):
            for j in range(w.shape[3]):
                h, v = i * dilation[0], j * dilation[1]
                at = np.s_[:, c, h : h + stride[0] * oh : stride[0], v : v + stride[1] * ow : stride[1]]
                dxp[at] += np.einsum("nohw,oc->nchw", dy[:, o], w[o, :, i, j])
                dw[o, :, i, j] = np.einsum("nohw,nchw->oc", dy[:, o], xp[at])
    return dxp[:, :, top : top + x.shape[2], left : left + x.shape[3]], dw


def pool_windows(x, attrs, fill):
    """Windows over x framed with `fill`, also those that ceil_mode lets hang over the end; and flat positions."""
    (kh, kw), (sh, sw), (ph, pw) = attrs["kernel"], attrs["stride"], attrs["padding"]
    dh, dw = attrs.get("dilation", (1, 1))
    h, w = x.shape[2:]
    over = [s + d * (k - 1) for s, k, d in ((sh, kh, dh), (sw, kw, dw))]
    frame = ((0, 0), (0, 0), (ph, ph + over[0]), (pw, pw + over[1]))
    where = np.pad(np.arange(h * w).reshape(1, 1, h, w), frame, constant_values=-1)
    v = windows(np.pad(x, frame, constant_values=fill), (kh, kw), (sh, sw), (dh, dw))
    oh, ow = (sizes(n, k, s, p, d, attrs["ceil_mode"]) for n, k, s, p, d in ((h, kh, sh, ph, dh), (w, kw, sw, pw, dw)))
    return v[:, :, :oh, :ow], windows(where, (kh, kw), (sh, sw), (dh, dw))[:, :, :oh, :ow]


def sizes(n, k, s, p, d, ceil_mode):
    span = n + 2 * p - d * (k - 1) - 1
    out = (-(-span // s) if ceil_mode else span // s) + 1
    return out - 1 if ceil_mode and (out - 1) * s >= n + p else out


def max_pool2d(x, **attrs):
    """(y, flat positions): of the first maximum, or the last NaN."""
    v, where = pool_windows(x, attrs, -np.inf)
    v, where = (
        v.reshape(*v.shape[:4], -1),
        np.broadcast_to(where.reshape(1, 1, *where.shape[2:4], -1), (*v.shape[:4], where.shape[4] * where.shape[5])),
    )
    nan = np.isnan(v)
    rank = np.where(where < 0, -np.inf, np.where(np.isneginf(v), -1e300, v))
    last = v.shape[-1] - 1 - nan[..., ::-1].argmax(-1)
    best = np.where(nan.any(-1), last, rank.argmax(-1))[..., None]
    return np.take_along_axis(v, best, -1)[..., 0], np.take_along_axis(where, best, -1)[..., 0]


def max_pool2d_grad(x, dy, **attrs):
    _, where = max_pool2d(x, **attrs)
    dx = np.zeros((*x.shape[:2], x.shape[2] * x.shape[3]))
    n, c = np.indices(where.shape)[:2]
    np.add.at(dx, (n, c, where), dy)
    return dx.reshape(x.shape)


def avg_divisor(x, attrs):
    ph, pw = attrs["padding"]
    if attrs["divisor"]:
        return attrs["divisor"]
    ones = np.ones((1, 1, *x.shape[2:]))
    if attrs["count_include_pad"]:
        ones = np.ones((1, 1, x.shape[2] + 2 * ph, x.shape[3] + 2 * pw))
        shifted = {**attrs, "padding": (0, 0), "ceil_mode": True}
        v, _ = pool_windows(ones, shifted, 0)
    else:
        v, _ = pool_windows(ones, attrs, 0)
    y, _ = pool_windows(x[:1, :1], attrs, 0)
    return v.sum((-1, -2))[:, :, : y.shape[2], : y.shape[3]]


def avg_pool2d(x, **attrs):
    return pool_windows(x, attrs, 0)[0].sum((-1, -2)) / avg_divisor(x, attrs)


def avg_pool2d_grad(x, dy, **attrs):
    v, where = pool_windows(x, attrs, 0)
    share = np.broadcast_to((dy / avg_divisor(x, attrs))[..., None, None], v.shape)
    dx = np.zeros((*x.shape[:2], x.shape[2] * x.shape[3] + 1))
    n, c = np.indices(v.shape)[:2]
    np.add.at(dx, (n, c, np.broadcast_to(where, v.shape)), share)
    return dx[:, :, :-1].reshape(x.shape)


def normal_cdf(x):
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def map_(x, kind, alpha, beta=0.0):
    with np.errstate(over="ignore", invalid="ignore"):
        return {
            "relu": lambda: np.where(x <= 0, 0, x),
            "leaky_relu": lambda: np.where(x > 0, x, alpha * x),
            "elu": lambda: np.where(x > 0, x, alpha * np.expm1(x)),
            "sigmoid": lambda: 1 / (1 + np.exp(-x)),
            "tanh": lambda: np.tanh(x),
            "exp": lambda: np.exp(x),
            "scale": lambda: alpha * x,
            "shift": lambda: x + alpha,
            "sqrt": lambda: np.sqrt(x),
            "clamp": lambda: np.clip(x, alpha, beta),
            "hardtanh": lambda: np.clip(x, alpha, beta),
            "hardsigmoid": lambda: np.clip(x + 3, 0, 6) / 6,
            "hardswish": lambda: x * np.clip(x + 3, 0, 6) / 6,
            "silu": lambda: x / (1 + np.exp(-x)),
            "gelu": lambda: x * normal_cdf(x),
            "erf": lambda: 2 * normal_cdf(x * np.sqrt(2)) - 1,
            "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
            "softplus": lambda: np.where(alpha * x > beta, x, softplus(alpha * x) / alpha),
            "mish": lambda: x * np.tanh(softplus(x)),
            "log": lambda: np.log(x),
            "abs": lambda: np.abs(x),
            "square": lambda: x * x,
        }[kind]()


def map_grad(x, dy, kind, alpha, beta=0.0):
    y = map_(x, kind, alpha, beta)
    slope = lambda f: (f(x + 1e-6) - f(x - 1e-6)) / 2e-6
    return (
        dy
        * {
            "relu": lambda: x > 0,
            "leaky_relu": lambda: np.where(x > 0, 1, alpha),
            "elu": lambda: np.where(x > 0, 1, y + alpha),
            "sigmoid": lambda: y * (1 - y),
            "tanh": lambda: 1 - y * y,
            "exp": lambda: y,
            "scale": lambda: alpha,
            "shift": lambda: 1,
            "sqrt": lambda: 0.5 / y,
            "clamp": lambda: (x >= alpha) & (x <= beta),
            "hardtanh": lambda: (x > alpha) & (x < beta),
            "hardsigmoid": lambda: (np.abs(x) < 3) / 6,
            "hardswish": lambda: np.where(x > -3, np.where(x < 3, x / 3 + 0.5, 1), 0),
            "silu": lambda: (1 + x * (1 - 1 / (1 + np.exp(-x)))) / (1 + np.exp(-x)),
            "erf": lambda: 2 / np.sqrt(np.pi) * np.exp(-x * x),
            "gelu": lambda: normal_cdf(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi),
            "gelu_tanh": lambda: slope(lambda v: map_(v, "gelu_tanh", 0)),
            "softplus": lambda: np.where(alpha * x > beta, 1, 1 / (1 + np.exp(-alpha * x))),
            "mish": lambda: np.tanh(softplus(x)) + x / np.cosh(softplus(x)) ** 2 / (1 + np.exp(-x)),
            "log": lambda: 1 / x,
            "abs": lambda: np.sign(x),
            "square": lambda: 2 * x,
        }[kind]()
    )


def zip_(a, b, kind):
    return {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[kind](a, b)


def zip_grads(a, b, dy, kind):
    return {"add": (dy, dy), "sub": (dy, -dy), "mul": (dy * b, dy * a), "div": (dy / b, -dy * a / (b * b))}[kind]


def softmax(x, log):
    """Along axis 1."""
    z = x - x.max(1, keepdims=True)
    y = z - np.log(np.exp(z).sum(1, keepdims=True))
    return y if log else np.exp(y)


def softmax_grad(x, dy, log):
    p = softmax(x, False)
    return dy - p * dy.sum(1, keepdims=True) if log else p * (dy - (dy * p).sum(1, keepdims=True))


def cross_entropy(x, target, weight=None, *, ignore_index, reduction, label_smoothing):
    """(loss, d loss.sum() / dx): one item at a time."""
    classes = x.shape[1]
    logp, p = softmax(x, True), softmax(x, False)
    weight = np.ones(classes) if weight is None else weight
    loss, dx, total = np.zeros(target.shape), np.zeros(x.shape), 0.0
    for at in np.ndindex(target.shape):
        if target[at] == ignore_index:
            continue
        column = (at[0], slice(None), *at[1:])
        share = weight * label_smoothing / classes
        share[target[at]] += weight[target[at]] * (1 - label_smoothing)
        loss[at] = -(share * logp[column]).sum()
        dx[column] = p[column] * share.sum() - share
        total += weight[target[at]]
    if reduction == "mean":
        return loss.sum() / total if total else np.nan, dx / total if total else dx * np.nan
    return (loss if reduction == "none" else loss.sum()), dx


def sgd(p, g, buf, *, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """(p, buf) after a step."""
    g = g + weight_decay * p
    if momentum:
        buf = g if buf is None else momentum * buf + (1 - dampening) * g
        g = g + momentum * buf if nesterov else buf
    return p - lr * g, buf


def adam(p, g, m, v, step, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    """(p, m, v) after a step; step is 1 on the first."""
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    return p - lr * (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps), m, v
