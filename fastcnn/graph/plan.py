"""Programs: a graph lowered to one plan, with what it reads, writes and keeps."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from .. import _core, config
from . import lower, passes
from .backward import gradients
from .lower import LANES_C, LANES_N, Builder, Ref, Storage
from .trace import Symbol, topological

SERIAL_PROGRAM = 3e4  # multiply-adds a lane (some 10 us) below which other threads, awake, cost more than they save
PREPARING = {  # kernels that turn weights into what others read, and what they write
    "pack_weights": ("out",),
    "gemm_pack_b": ("bp",),
    "winograd_weights": ("u",),
    "winograd_n_weights": ("u",),
    "batch_norm_scale": ("scale", "shift"),
    "fold_norm": ("y", "y_bias"),
}
STEP_BYTES = 5000  # of Python objects per step: its share of nodes, storages, fields (measured: 4300 to 6000)
PHASES = ["prepare", "forward", "state", "backward", "update"]  # state: what a run leaves in its modules


class Program:
    """Computes `outputs` from `inputs`, and with `wrt` also the gradients of the outputs with respect to those.

    Inputs are leaf symbols without param or array; parameters and constants are found in the graph. Two ways to run:
    `forward(arrays)` and then `backward(douts)`; or, with `loss=True`, `step(arrays)`: forward, the backward pass of
    outputs[0] (a scalar) and the `updates` (clipping, optimizer steps), all in one call. `at_once` has, by the id of a
    parameter, the optimizer step that is made as soon as its gradient is known; that gradient is not kept. The others
    are written to `grads`.
    A program holds its arena's lock while it runs, so that programs may share an arena among threads.
    """

    def __init__(
        self, inputs, outputs, wrt=(), *, loss=False, updates=(), at_once=None, grads=None, arena=None, name=""
    ):
        self.name = name
        self.arena = arena if arena is not None else _core.Arena()
        self.threads = config.get_num_threads()
        self.inputs, self.outputs, self.wrt = list(inputs), list(outputs), list(wrt)
        self.eager = config.flag("FASTCNN_EAGER")
        self.verbose = config.flag("FASTCNN_VERBOSE")
        self.timings = None  # an array of as many float64 as there are steps gets the ms of each that runs
        self._prepared = None
        self.update = None  # of a training step: what the optimizer must refresh before a run
        self._run_id = 0
        self._build(loss, updates, at_once or {}, grads or {})

    # ---- building ----------------------------------------------------------------------------------------------
    def _build(self, loss, updates, at_once, grad_arrays):
        self.douts, self.grads = [], []
        if self.wrt:
            one = Symbol((), array=np.ones((), np.float32))
            self.douts = [] if loss else [Symbol(s.shape) for s in self.outputs]
            self.grads = gradients(self.outputs[:1] if loss else self.outputs, [one] if loss else self.douts, self.wrt)
        roots = self.outputs + [g for g in self.grads if g is not None]
        forward_ids = {node.id for node in topological(self.outputs)}
        nodes = topological(roots)
        vw = _core.isa()["vw"]
        layout = passes.choose_layout(nodes, vw)
        if not self.eager:
            nodes = passes.run(nodes, roots, layout, forward_ids, vw)
        self._random = any(node.op.name == "dropout" for node in nodes)
        self._find_targets(nodes)
        b = Builder(self.threads, layout, passes.halos(nodes, layout))
        b.parts = {} if self.eager else passes.parts(nodes, layout, vw)
        b.used = Counter(s.id for s in [*(s for node in nodes for s in node.inputs), *roots])
        self.plan = _core.Plan(self.arena)
        self._leaves(b, nodes, roots, at_once, grad_arrays, loss)
        b.lower([node for node in nodes if node.id in forward_ids])
        for symbol, storage in zip(self.outputs, self._output_slots):
            self._into(b, symbol, storage)
        b.phase = "backward"
        b.lower([node for node in nodes if node.id not in forward_ids])
        for item in self._grad_slots:
            if item is not None:
                self._into(b, item[2], item[0])
        b.update_by([g for g in self.grads if g is not None])  # those that no node computes
        for kernel, fields in updates:
            refs = {k: b.state(v).at() if isinstance(v, np.ndarray) else v for k, v in fields.items()}
            longest = max(v.size for v in fields.values() if isinstance(v, np.ndarray))
            b.emit(kernel, 4.0 * longest, phase="update", **refs)
        if not (updates or at_once):
            self._hoist_packing(b)
        if sum(step.work for step in b.steps) < SERIAL_PROGRAM * vw:
            for step in b.steps:
                step.threads = 1
        self.bounds = b.order(PHASES)
        self._emit(b)
        self.memory = self._memory(b, [*updates, *at_once.values()], grad_arrays)
        self.layout = layout
        self._packs = self.bounds["prepare"][1] > 0
        self._moves_state = self.bounds["state"][0] < self.bounds["state"][1]
        self._packs_state = any(
            step.phase == "prepare" and step.kernel in ("fold_norm", "batch_norm_scale") for step in b.steps
        )
        self._exposed = True
        self._output_types = [(s.shape, np.dtype(s.dtype)) for s in self.outputs]
        self._no_douts = (None,) * len(self.douts)
        self._no_grads = (None,) * len(self._free_grads())
        self._forward = (self.bounds["forward"][0], self.bounds["state"][1])
        special = self._random or self._targets or self.wrt or self._moves_state or self.eager or self.verbose
        self.simple = not special and [s.dtype for s in self.outputs] == ["float32"]

    def _find_targets(self, nodes):
        """(input, classes, ignored value, name) of the class indices that each run must check."""
        self._targets = []
        for node in nodes:
            if node.op.name == "cross_entropy" or "classes" in node.attrs:
                target = node.inputs[1]
                while target.node is not None and target.node.op.name == "reshape":
                    target = target.node.inputs[0]
                index = next((i for i, s in enumerate(self.inputs) if s is target), None)
                classes = node.attrs.get("classes", node.inputs[0].shape[1])
                name = node.attrs.get("name", "cross_entropy")
                check = (index, classes, node.attrs["ignore_index"], name)
                if index is None:
                    self._targets = [(0, *check[1:])]
                    self._check_targets([target.array])
                    self._targets = []
                else:
                    self._targets.append(check)

    def _leaves(self, b, nodes, roots, at_once, grad_arrays, loss):
        """Give every leaf its storage: slots for what a run supplies, arrays for what the plan keeps."""
        self._slots = []
        leaves = {s.id: s for s in [*self.inputs, *self.douts]}
        for symbol in [s for node in nodes for s in node.inputs] + roots:
            if symbol.node is None:
                leaves.setdefault(symbol.id, symbol)
        self.params = []
        supplied = {s.id for s in [*self.inputs, *self.douts]}
        one_storage_per_param = {}
        for symbol in leaves.values():
            itemsize = np.dtype(symbol.dtype).itemsize
            if symbol.id in supplied:
                storage = Storage(symbol.shape, base=self._slot(), itemsize=itemsize)
            elif symbol.param is not None:
                storage = one_storage_per_param.get(id(symbol.param))
                if storage is None:
                    storage = Storage(symbol.shape, base=symbol.param.storage, itemsize=itemsize)
                    one_storage_per_param[id(symbol.param)] = storage
                    self.params.append(symbol.param)
            else:
                storage = Storage(symbol.shape, base=np.ascontiguousarray(symbol.array), itemsize=itemsize)
            b.stored[symbol.id] = {lower.PLAIN: storage}
        self.seed = np.zeros(1, np.uint64)
        b.seed = Storage((1,), base=self.seed, itemsize=8)
        self._output_slots = []
        for symbol in self.outputs:
            storage = Storage(symbol.shape, base=self._slot(), itemsize=np.dtype(symbol.dtype).itemsize)
            if loss or not self.wrt:  # else the backward run, with other arrays in the slots, may want to read it
                b.bound.setdefault(symbol.id, storage)
            self._output_slots.append(storage)
        self._grad_slots = []
        for symbol, grad in zip(self.wrt, self.grads):
            step = at_once.get(id(symbol.param))
            if grad is not None and step is not None:
                b.update_at_once(grad, one_storage_per_param[id(symbol.param)], *step)
            if grad is None or step is not None:
                self._grad_slots.append(None)
                continue
            target = grad_arrays.get(id(symbol.param)) if symbol.param is not None else None
            base = self._slot() if target is None else target
            storage = Storage(grad.shape, base=base)
            self._grad_slots.append((storage, target is None, grad))
            b.bound.setdefault(grad.id, storage)

    def _slot(self):
        self._slots.append(self.plan.add_slot())
        return self._slots[-1]

    @staticmethod
    def _into(b, symbol, storage):
        """See that the symbol's plain value ends in this storage."""
        have = b.stored[symbol.id]
        if have.get(lower.PLAIN) is storage:
            return
        if lower.PLAIN in have:
            b.copy(b.get(symbol, lower.PLAIN, dense=True), storage)
        else:
            b.unpack(next(iter(have.values())), storage)

    def _hoist_packing(self, b):
        """What comes from weights alone, in a program that does not change them, is made when they changed."""
        ready: dict[int, Storage] = {}
        for step in b.steps:
            writes = PREPARING.get(step.kernel, ())
            roots = {k: lower._root(v.storage) for k, v in step.fields.items() if isinstance(v, Ref)}
            known = all(isinstance(r.base, np.ndarray) or id(r) in ready for k, r in roots.items() if k not in writes)
            if writes and known and all(roots[name].base is None for name in writes):
                step.phase = "prepare"
                ready |= {id(roots[name]): roots[name] for name in writes}
        runs = [v for step in b.steps if step.phase != "prepare" for v in step.fields.values()]
        read = {id(lower._root(v.storage)) for v in runs if isinstance(v, Ref)}
        self._keep = [storage for key, storage in ready.items() if key in read]

    def _emit(self, b):
        keep = list(getattr(self, "_keep", []))
        self._kept_bytes = sum(s.nbytes for s in keep)
        for storage in keep:  # packed weights live as long as the plan, outside the arena
            storage.base = _core.aligned_array((storage.floats,))
        arena_bytes = b.place()
        if arena_bytes >= lower.LARGEST:
            raise ValueError(
                f"{self.name or 'program'}: these shapes need {arena_bytes / 1e12:.3g} TB of working memory"
            )
        bases = {}
        for step in b.steps:
            fields = {}
            for name, value in step.fields.items():
                fields[name] = self._pointer(value, bases) if isinstance(value, Ref) else value
            self.plan.add(step.kernel, step.threads, fields)
        self.plan.finish(arena_bytes)
        self.steps = b.steps

    def _memory(self, b, updates, grad_arrays) -> dict[str, int]:
        """Bytes that a run has in use at its peak, by what they are for; an array is counted where it comes first."""
        parts: dict[str, Iterable[np.ndarray]] = {
            "parameters": [p.storage for p in self.params],
            "optimizer": [v for _, fields in updates for k, v in fields.items() if k != "g" and hasattr(v, "nbytes")],
            "constants": [s.base for s in b.constants.values()],
        }
        seen: set[int] = set()
        sizes = {"arena": int(self.plan.arena_bytes), "packed weights": self._kept_bytes}
        sizes["gradients"] = sum(array.nbytes for array in grad_arrays.values())
        sizes["plan"] = STEP_BYTES * len(b.steps)
        for what, arrays in parts.items():
            owners = {id(owner): owner.nbytes for owner in map(_owner, arrays) if id(owner) not in seen}
            seen.update(owners)
            sizes[what] = sum(owners.values())
        sizes["inputs and outputs"] = sum(
            np.dtype(s.dtype).itemsize * s.size for s in [*self.inputs, *self.douts, *self.outputs]
        ) + sum(4 * symbol.size for _, free, symbol in filter(None, self._grad_slots) if free)
        return sizes

    @property
    def peak_bytes(self) -> int:
        """What a process needs for running this program, beyond Python and the imported packages themselves."""
        return sum(self.memory.values())

    def _pointer(self, ref, bases):
        root = lower._root(ref.storage)
        offset = ref.floats * ref.storage.itemsize
        if root.base is None:
            return 0, root.offset + offset
        if isinstance(root.base, int):
            return root.base, offset
        key = id(root.base)
        if key not in bases:
            bases[key] = self.plan.add_array(root.base)
        return bases[key], offset

    # ---- running -----------------------------------------------------------------------------------------------
    def _run(self, io, first, last):
        if self.eager:
            return self._run_checked(io, first, last)
        if self.timings is None and not self.verbose:
            return self.plan.run(io, first, last, self.threads)
        timings = np.zeros(len(self.plan)) if self.timings is None else self.timings
        self.plan.run(io, first, last, self.threads, timings)
        if self.verbose:
            sys.stderr.write(self.describe(timings, first, last, predict=False) + "\n")

    def _run_checked(self, io, first, last):
        """FASTCNN_EAGER: one step at a time, and no NaN may come out of finite inputs."""
        clean = all(a is None or a.dtype.kind != "f" or np.isfinite(a).all() for a in io[: len(self.inputs)])
        for i in range(first, last):
            self.plan.run(io, i, i + 1, self.threads)
            step = self.steps[i]
            out = _result(step)
            if clean and out is not None and step.node is not None:
                root = lower._root(out.storage)
                rest = itertools.takewhile(lambda s, node=step.node: s.node is node, self.steps[i + 1 : last])
                if any(other is not None and lower._root(other.storage) is root for other in map(_result, rest)):
                    continue  # each step writes a part of the same array
                if root.base is None and root.dense and root.itemsize == 4:
                    values = self.arena.array(root.offset + 4 * root.origin, (root.floats,))
                    if np.isnan(values).any():
                        raise FloatingPointError(f"{step.node.label()}: the first NaN comes out of {step.kernel}")

    def _prepare(self, io):
        """Pack the weights, if they changed or the user holds an array that can change them."""
        stamp = config.weights_version()
        if self._packs_state:
            stamp += config.statistics_version()  # both only grow
        if self._prepared != stamp or self._exposed:
            self._exposed = any(p.exposed for p in self.params)
            self._run(io, *self.bounds["prepare"])
            self._prepared = stamp

    @property
    def random(self) -> bool:
        """Whether a run draws random numbers, so wants a fresh seed."""
        return self._random

    def _check_targets(self, arrays):
        for index, classes, ignore, name in self._targets:
            target = arrays[index]
            if target.min() < 0 or target.max() >= classes:
                wrong = target[((target < 0) | (target >= classes)) & (target != ignore)]
                if wrong.size:
                    raise ValueError(
                        f"{name}: target {int(wrong.flat[0])} is not a class: 0 to {classes - 1}"
                        f" (or ignore_index={ignore}) are allowed"
                    )

    def forward(self, arrays: list[np.ndarray], seed: int = 0) -> list[np.ndarray]:
        """Outputs for gated inputs."""
        return self.forward_token(arrays, seed)[0]

    def forward_simple(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """`forward` of a program that is `simple`: with one output of floats and nothing to look after."""
        output = _core.empty(self._output_types[0][0])
        io = (*arrays, output)
        arena = self.arena
        with arena.lock:
            arena.owner = None  # before anything is overwritten: a run can be interrupted
            if self._packs:
                self._prepare(io)
            first, last = self._forward
            self.plan.run(io, first, last, self.threads, self.timings)
        return output

    def forward_token(self, arrays: list[np.ndarray], seed: int = 0) -> tuple[list[np.ndarray], int]:
        """Outputs for gated inputs, and a token that names this run for `backward`."""
        if self._targets:
            self._check_targets(arrays)
        outputs = self._new_outputs()
        io = (*arrays, *self._no_douts, *outputs, *self._no_grads)
        with self.arena.lock:
            self.arena.owner = None
            if self._packs:
                self._prepare(io)
            if self._random:
                self.seed[0] = seed
            try:
                self._run(io, *self._forward)
            finally:
                if self._moves_state:
                    config.statistics_changed()
            self._run_id += 1
            token = self._run_id
            self.arena.owner = (self, token)
        return outputs, token

    def backward(self, token, seed, arrays, douts) -> list[np.ndarray | None]:
        """Gradients with respect to `wrt` for the forward run `token` on `arrays`, run again if it was overwritten."""
        grads = [np.empty(s.shape, np.float32) for s, _, _ in self._free_grads()]
        outputs = self._new_outputs()
        io = (*arrays, *douts, *outputs, *grads)
        with self.arena.lock:
            if self._packs:
                self._prepare(io)
            self.seed[0] = seed
            kept, self.arena.owner = self.arena.owner == (self, token), None
            if not kept:
                self._run(io, *self.bounds["forward"])
            self._run(io, *self.bounds["backward"])
        fresh = iter(grads)
        return [None if item is None else next(fresh) for item in self._grad_slots]

    def _new_outputs(self):
        return [np.empty(shape, dtype) for shape, dtype in self._output_types]

    def _free_grads(self):
        return [item for item in self._grad_slots if item is not None and item[1]]

    def step(self, arrays: list[np.ndarray], seed: int = 0) -> list[np.ndarray]:
        """Forward, backward and update in one call; the outputs."""
        if self._targets:
            self._check_targets(arrays)
        outputs = self._new_outputs()
        io = (*arrays, *outputs)
        with self.arena.lock:
            self.arena.owner = None
            self.seed[0] = seed
            self._run(io, self.bounds["forward"][0], self.bounds["update"][1])
        return outputs

    # ---- describing --------------------------------------------------------------------------------------------
    def describe(self, timings=None, first=0, last=None, predict=True) -> str:
        """Peak memory, and a line per step: layer, kernel, algorithm, layout, GFLOP, bytes, the least time it can take
        on this machine and, with timings (ms of each step; default: self.timings), what it took.

        predict: with that least time; where this machine has not been measured before, that is done first (0.3 s).
        """
        from .describe import text
        from .roofline import roofline

        bounds = roofline(self.threads) if predict else None
        return text(self, bounds, self.timings if timings is None else timings, first, last)


def _result(step) -> Ref | None:
    """What a step computes, where it is told by its name."""
    return next((f for f in map(step.fields.get, ("y", "dx", "c", "dw", "db")) if isinstance(f, Ref)), None)


def _owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory this is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def _after_fork() -> None:
    """In a child, a lock may be held by a thread that does not exist there."""
    for cache in list(_caches):
        cache._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Cache:
    """A bounded map from plan keys to programs, least recently used first out. by_structure: the keys have the version
    of the structure, so programs of an earlier one, which keep their packed weights, are of no use."""

    def __init__(self, size: int = 32, by_structure: bool = True):
        self.size, self._by_structure, self._structure = size, by_structure, -1
        self._latest: tuple = (None, None)  # the key and item that were asked for last
        self._items: OrderedDict = OrderedDict()
        self._lock = threading.Lock()
        _caches.add(self)

    def get(self, key):
        latest, item = self._latest
        if latest == key:
            return item
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                self._items.move_to_end(key)
                self._latest = (key, item)
            return item

    def put(self, key, item):
        with self._lock:
            if self._by_structure and self._structure != (now := config.structure_version()):
                self._items.clear()
                self._structure = now
            self._items[key] = item
            self._latest = (key, item)
            while len(self._items) > self.size:
                self._items.popitem(last=False)
            return item

    def __len__(self):
        return len(self._items)


__all__ = ["LANES_C", "LANES_N", "Cache", "Program"]
