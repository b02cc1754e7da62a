"""A whole training step - forward, loss, backward, update - as one call into C."""

from __future__ import annotations

import numpy as np

from . import config, random
from .arrays import gate
from .graph.autograd import parameters_of, trace
from .graph.plan import Cache, Program
from .nn.module import Module
from .optim.clip import check_clipping, clip_steps
from .optim.optimizer import StaleUpdate


def _targets(y) -> np.ndarray | tuple[np.ndarray, ...]:
    """Targets gated: a tuple of arrays stays one, anything else is an array."""
    if isinstance(y, tuple) and y and all(isinstance(v, np.ndarray) for v in y):
        return tuple([gate(v, f"step: y[{i}]") for i, v in enumerate(y)])
    return gate(y, "step: y")


def _each(y) -> tuple:
    return y if isinstance(y, tuple) else (y,)


class TrainingStep:
    """`step(x, y)` -> the loss before the update (a float); with outputs=True -> (loss, the model's output,
    the first one if there are several).

    y: an array, or a tuple of arrays, which `loss` gets as a tuple. One plan per input shape (a smaller last batch is
    another one) over the same parameters.
    """

    def __init__(self, model, loss, optimizer, outputs: bool = False, clip_grad_norm=None, clip_grad_value=None):
        self.model, self.loss, self.optimizer, self.outputs = model, loss, optimizer, bool(outputs)
        self._clip = check_clipping("compile_step", clip_grad_norm, clip_grad_value)
        self._programs = Cache(8)

    def program(self, x: np.ndarray, y: np.ndarray | tuple[np.ndarray, ...], count: bool = True) -> Program:
        """The program for arrays of these shapes, the optimizer's counters and rates made ready for one run.

        count: False to look at the program only; the optimizer then counts no step.
        """
        key = (
            x.shape,
            x.dtype.char,
            isinstance(y, tuple),
            tuple([(v.shape, v.dtype.char) for v in _each(y)]),
            self.model._plan_settings()[1],
            self.loss._plan_settings()[1] if isinstance(self.loss, Module) else None,
            len(self.optimizer.param_groups),
        )
        program = self._programs.get(key)
        if program is None:
            program = self._programs.put(key, self._build(x, y))
        if count:
            try:
                self.optimizer._refresh_hyper(program.update)
            except StaleUpdate:
                program = self._programs.put(key, self._build(x, y))
                self.optimizer._refresh_hyper(program.update)
        return program

    def _build(self, x, y) -> Program:
        several = isinstance(y, tuple)

        def objective(x, *y):
            out = self.model(x)
            first = out[0] if isinstance(out, tuple) else out
            loss = self.loss(out, y if several else y[0])
            return (loss, first) if self.outputs else (loss,)

        inputs, (loss, *out), _ = trace(objective, [x, *_each(y)])
        if loss.shape != ():
            raise ValueError(f"compile_step: the loss must be a scalar, got shape {loss.shape}; use a reduction")
        leaves = parameters_of([loss])
        known = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        wrt = [s for key, s in leaves.items() if key in known]
        if not wrt:
            raise ValueError("compile_step: the optimizer has no trainable parameter of the model")
        update = self.optimizer.update_steps([s.param for s in wrt])
        clipping = clip_steps(update, *self._clip)
        at_once, rest = ({}, update) if clipping else update.split()
        grads = {id(s.param): s.param._grad_slot for s in wrt if id(s.param) not in at_once}
        program = Program(
            inputs,
            [loss, *out],
            wrt,
            loss=True,
            updates=[*clipping, *rest],
            at_once=at_once,
            grads=grads,
            arena=self.model._arena(),
            name=f"{type(self.model).__name__} training step",
        )
        program.update = update
        return program

    def describe(self, x, y) -> str:
        """What a step on arrays of these shapes needs and does, without running it: its peak memory (of the process,
        beyond Python and the imported packages), and a line per kernel call with its work and the least time that it
        can take on this machine (which is measured the first time: 0.3 s). fastcnn.profile() runs it."""
        return self.program(gate(x, "step: x"), _targets(y), count=False).describe()

    def __call__(self, x, y):
        x, y = gate(x, "step: x"), _targets(y)
        program = self.program(x, y)
        try:
            results = program.step([x, *_each(y)], random.next_seed() if program.random else 0)
        finally:  # an interrupt is seen after the step is done
            config.weights_changed()
        loss = float(results[0])
        return (loss, results[1]) if self.outputs else loss


def compile_step(
    model,
    loss,
    optimizer,
    outputs: bool = False,
    clip_grad_norm: float | None = None,
    clip_grad_value: float | None = None,
) -> TrainingStep:
    """A training step of `model`: `loss(model(x), y)`, its gradient and the optimizer's update in one C call. y may be
    a tuple of arrays.

    The model runs in the mode (train or eval) it is in at each call. A step keeps no gradients: those of large
    parameters live only until their update, the others overwrite what `.grad` refers to after a backward() (take a
    copy of what you want to keep).

    clip_grad_norm, clip_grad_value: between gradient and update, what nn.utils.clip_grad_norm_ and clip_grad_value_
    do, bit for bit, to the gradients of the parameters that the step updates (the norm is that of all of them
    together); with both, values first. The optimizer adds weight_decay and l1_penalty afterwards. A norm that is
    NaN makes all these weights NaN, as in PyTorch.
    ValueError or TypeError unless they are None or numbers of at least 0.
    """
    return TrainingStep(model, loss, optimizer, outputs, clip_grad_norm, clip_grad_value)
