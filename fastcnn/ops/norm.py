"""Batch normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias per channel (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

import numpy as np

from ..graph.lower import LANES_C, LANES_N, PLAIN, Storage
from ..graph.trace import add_node
from .base import OPS, Op, check_float
from .pool import blocked

SLOT_PIXELS = 1024  # of a block of channels: parts of the batch, so large, are summed one by one, and
GROUP_BYTES = 8 << 20  # of the last cache, that two passes over a group of channels may fill
PAST_BYTES = 20 << 20  # larger values are written past the caches: measured with 32 MB, which would hold their end only
SLOT_ITEMS = 32  # channel planes times slots: what there is at least to share among threads


def _slots(x: Storage) -> int:
    return max(1, min(x.n, max(SLOT_ITEMS // x.c, x.n * x.h * x.w // SLOT_PIXELS)))


def _layout(x: Storage) -> int:
    return (PLAIN, LANES_C, LANES_N).index(x.layout)


def _planes(x: Storage) -> dict[str, int]:
    return dict(n=x.n, c=x.c, h=x.h, w=x.w, layout=_layout(x))


def _past(y: Storage) -> int:
    return int(4 * y.floats > PAST_BYTES)


def _padded(b, x: Storage) -> Storage:
    """Scratch for a number per channel, whole vectors."""
    return b.scratch(-(-x.channels // b.vw) * b.vw)


def _no_strides(name: str) -> dict[str, int]:
    return {f"{name}_n": 0, f"{name}_c": 0, f"{name}_h": 0}


def _count(shape) -> int:
    return int(np.prod(shape, dtype=object)) // shape[1]


def _groups(x: Storage, values: int) -> list[tuple[int, int]]:
    """(first channel, channels) of the groups of channels that one pass after the other goes over: with channels in the
    lanes, so many that the second pass finds the `values` arrays of x's size in the last cache."""
    if x.layout != LANES_C:
        return [(0, x.channels)]
    blocks = max(1, GROUP_BYTES // (4 * x.floats // x.c * values))
    step = -(-x.c // -(-x.c // blocks)) * x.lanes
    return [(first, min(step, x.channels - first)) for first in range(0, x.channels, step)]


class BatchMoments(Op):
    """Mean and biased variance of every channel of x[n][c]...; attrs: layer, the name for errors."""

    name = "batch_moments"

    def infer(self, inputs, attrs):
        x, op = inputs[0], attrs["layer"]
        check_float(op, "input", x)
        if x.ndim < 2:
            raise ValueError(f"{op}: input must have at least 2 dimensions (N, C, ...), got shape {x.shape}")
        if _count(x.shape) < 2:
            raise ValueError(
                f"{op}: in training a channel needs more than 1 value to have a variance, got input {x.shape}; "
                "use a larger batch, or evaluation mode"
            )
        return [((x.shape[1],), "float32"), ((x.shape[1],), "float32")]

    def lower(self, node, b):
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]))
        mean, var = (b.out(s, PLAIN) for s in node.outputs)
        slots = _slots(x)
        sums = b.new((x.channels, slots, 2), itemsize=8)
        b.emit(
            "channel_moments",
            2.0 * x.floats,
            x=x.at(),
            sums=sums.at(),
            channels=x.channels,
            images=x.images,
            **_planes(x),
            **x.strides("x"),
            slots=slots,
        )
        b.emit(
            "batch_norm_moments",
            x.channels,
            x=x.at(),
            sums=sums.at(),
            mean=mean.at(),
            var=var.at(),
            channels=x.channels,
            count=_count(node.inputs[0].shape),
            slots=slots,
            x_c=x.sc,
            layout=_layout(x),
        )


class BatchNorm(Op):
    """inputs x, mean, var, and with attrs affine: weight, bias; with attrs residual, last: what is added before act.

    attrs: eps; training: mean and var are x's own, so the gradient goes through them; running: None, or the module's
    arrays (running mean, running var, count of batches, hyper), brought up to date by each forward run.
    """

    name = "batch_norm"

    def infer(self, inputs, attrs):
        x, *vectors = inputs
        check_float("batch_norm", "input", x)
        if x.ndim < 2:
            raise ValueError(f"batch_norm: input must have at least 2 dimensions (N, C, ...), got shape {x.shape}")
        names = ["running_mean", "running_var", "weight", "bias"]
        for name, vector in zip(names, vectors):
            if vector.shape != (x.shape[1],):
                raise ValueError(
                    f"batch_norm: input has {x.shape[1]} channels (shape {x.shape}), {name} has shape {vector.shape}"
                )
        return [(x.shape, "float32")]

    def grad(self, node, douts, needs):
        x, mean, var, *affine = node.inputs
        a = node.attrs
        got = add_node(
            OPS["batch_norm_bwd"],
            [x, douts[0], mean, var, *affine[:1]],
            eps=a["eps"],
            training=a["training"],
            affine=bool(affine),
            needs=(needs[0], any(needs[3:])),
        )
        return [got[0], None, None, *got[1:]] if affine else [got, None, None]

    def lower(self, node, b):
        x = b.get(node.inputs[0], blocked(b, node.inputs[0]))
        residual = b.get(node.inputs[-1], x.layout) if node.attrs.get("residual") else None
        y = b.out(node.outputs[0], x.layout)
        vectors = [b.get(s, PLAIN, dense=True).at() for s in node.inputs[1 : 5 if node.attrs["affine"] else 3]]
        mean, var, weight, bias = vectors if len(vectors) == 4 else [*vectors, None, None]
        scale, shift = _padded(b, x), _padded(b, x)
        b.emit(
            "batch_norm_scale",
            x.channels,
            mean=mean,
            var=var,
            weight=weight,
            bias=bias,
            scale=scale.at(),
            shift=shift.at(),
            channels=x.channels,
            eps=node.attrs["eps"],
        )
        b.emit(
            "channel_affine",
            x.floats,
            x=x.at(),
            scale=scale.at(),
            shift=shift.at(),
            residual=residual.at() if residual else None,
            y=y.at(),
            **_planes(x),
            **x.strides("x"),
            **(residual.strides("r") if residual else _no_strides("r")),
            **y.strides("y"),
            act=node.attrs.get("act", 0),
            past=_past(y),
        )
        if node.attrs["running"]:
            running_mean, running_var, tracked, hyper = node.attrs["running"]
            b.emit(
                "batch_norm_running",
                x.channels,
                phase="state",
                mean=mean,
                var=var,
                running_mean=b.state(running_mean).at(),
                running_var=b.state(running_var).at(),
                tracked=b.state(tracked).at(),
                hyper=b.state(hyper).at(),
                channels=x.channels,
                count=_count(node.inputs[0].shape),
            )


class FoldNorm(Op):
    """inputs weight[o]..., optionally bias[o], then mean, var and with attrs affine weight, bias of a batch_norm of the
    o outputs; attrs eps. Gives the weight and the bias that have the norm in them. graph/passes.py makes it."""

    name = "fold_norm"

    def infer(self, inputs, attrs):
        return [(inputs[0].shape, "float32"), (inputs[0].shape[:1], "float32")]

    def lower(self, node, b):
        vectors = [b.get(s, PLAIN, dense=True) for s in node.inputs]
        w, *bias = vectors[: len(vectors) - (4 if node.attrs["affine"] else 2)]
        mean, var, *affine = (v.at() for v in vectors[1 + len(bias) :])
        channels = node.outputs[1].size
        b.emit(
            "fold_norm", w.floats, w=w.at(), w_bias=bias[0].at() if bias else None, mean=mean, var=var,
            weight=affine[0] if affine else None, bias=affine[1] if affine else None,
            y=b.out(node.outputs[0], PLAIN).at(), y_bias=b.out(node.outputs[1], PLAIN).at(), channels=channels,
            size=w.floats // channels, eps=node.attrs["eps"],
        )  # fmt: skip


class TrackMoments(Op):
    """inputs a value, mean[c], var[c] (biased, of attrs count values); gives the value: what reads it depends on this.

    attrs running: the module's arrays (running mean, running var, hyper), moved by each forward run.
    """

    name = "track_moments"

    def infer(self, inputs, attrs):
        return [(inputs[0].shape, "float32")]

    def lower(self, node, b):
        value, mean, var = (b.get(s, PLAIN, dense=True) for s in node.inputs)
        b.stored[node.outputs[0].id] = {PLAIN: value}
        running_mean, running_var, hyper = node.attrs["running"]
        b.emit(
            "batch_norm_running",
            mean.floats,
            phase="state",
            mean=mean.at(),
            var=var.at(),
            running_mean=b.state(running_mean).at(),
            running_var=b.state(running_var).at(),
            tracked=None,
            hyper=b.state(hyper).at(),
            channels=mean.floats,
            count=node.attrs["count"],
        )


class BatchNormBwd(Op):
    """dx, dweight, dbias from x, dy, mean, var and (affine) weight; attrs mask: last, dy counts where it is > 0."""

    name = "batch_norm_bwd"

    def infer(self, inputs, attrs):
        x, channels = inputs[0], (inputs[0].shape[1],)
        return [(x.shape, "float32")] + ([(channels, "float32")] * 2 if attrs["affine"] else [])

    def lower(self, node, b):
        a = node.attrs
        want_dx, want_affine = a["needs"]
        dy = b.get(node.inputs[1], blocked(b, node.inputs[1]))
        x = b.get(node.inputs[0], dy.layout)
        mask = b.get(node.inputs[-1], dy.layout) if a.get("mask") else None
        vectors = [b.get(s, PLAIN, dense=True) for s in node.inputs[2 : 5 if a["affine"] else 4]]
        slots = _slots(x)
        sums = b.new((x.channels, slots, 2), itemsize=8)
        gradients = [b.out(s, PLAIN) for s in node.outputs[1:]] if want_affine and a["affine"] else [None, None]
        factors = [_padded(b, x) for _ in range(3)] if want_dx else [None, None, None]
        dx = b.out(node.outputs[0], x.layout) if want_dx else None
        for first, channels in _groups(x, 3 if mask else 2):
            shape = (x.shape[0], channels, *x.shape[2:])
            self._lower_group(
                b,
                *(v and v.cut(shape, first // x.lanes) for v in (x, dy, mask, dx)),
                [v.at(first) for v in vectors],
                sums.at(first * slots * 2),
                [v and v.at(first) for v in gradients],
                [v and v.at(first) for v in factors],
                dict(count=_count(node.inputs[0].shape), slots=slots, training=int(a["training"]), eps=a["eps"]),
                _past(dx) if dx else 0,
            )

    @staticmethod
    def _lower_group(b, x, dy, mask, dx, vectors, sums, gradients, factors, numbers, past):
        mean, var, *weight = vectors
        masked = dict(mask=mask.at() if mask else None, **(mask.strides("m") if mask else _no_strides("m")))
        b.emit(
            "batch_norm_bwd_sums",
            2.0 * x.floats,
            x=x.at(),
            dy=dy.at(),
            mean=mean,
            sums=sums,
            channels=x.channels,
            **_planes(x),
            **x.strides("x"),
            **dy.strides("y"),
            **masked,
            slots=numbers["slots"],
        )
        of_dy, of_x, shift = factors
        b.emit(
            "batch_norm_bwd_scale",
            x.channels,
            sums=sums,
            mean=mean,
            var=var,
            weight=weight[0] if weight else None,
            dweight=gradients[0],
            dbias=gradients[1],
            of_dy=of_dy,
            of_x=of_x,
            shift=shift,
            channels=x.channels,
            **numbers,
        )
        if dx:
            b.emit(
                "batch_norm_bwd",
                2.0 * x.floats,
                x=x.at(),
                dy=dy.at(),
                of_dy=of_dy,
                of_x=of_x,
                shift=shift,
                dx=dx.at(),
                images=x.images,
                **_planes(x),
                **x.strides("x"),
                **dy.strides("y"),
                **masked,
                **dx.strides("dx"),
                past=past,
            )
