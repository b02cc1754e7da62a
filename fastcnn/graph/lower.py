"""From a graph to steps: where each value lies, in which layout, and which kernels run over it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .. import _core
from .memory import assign_offsets
from .trace import Node, Symbol

PLAIN, LANES_C, LANES_N = "plain", "lanes_c", "lanes_n"
NO_HALO = (0, 0, 0, 0)
LARGEST = 1 << 46  # bytes: what is below can be multiplied by strides and counts without overflow
SERIAL_WORK = 8000  # multiply-adds below which a step is not worth sharing among threads


def dims4(shape) -> tuple[int, int, int, int]:
    """Any shape as images, channels, rows, pixels."""
    if len(shape) >= 4:
        return (*shape[:3], int(np.prod(shape[3:])))
    if len(shape) == 3:
        return (shape[0], shape[1], 1, shape[2])
    return (*shape, 1, 1, 1, 1)[:4]


class Storage:
    """A value in memory: layout, halo (top, bottom, left, right), strides in floats.

    It lies in the arena (`base` None until memory is planned: base 0) or in an outside array (`base` set).
    """

    def __init__(self, shape, layout=PLAIN, halo=NO_HALO, base=None, itemsize=4):
        vw = _core.isa()["vw"]
        n, c, h, w = dims4(shape)
        self.shape, self.layout, self.halo, self.itemsize = tuple(shape), layout, halo, itemsize
        self.images, self.channels, self.h, self.w = n, c, h, w
        self.lanes = 1 if layout == PLAIN else vw
        self.n = -(-n // vw) if layout == LANES_N else n
        self.c = -(-c // vw) if layout == LANES_C else c
        top, bottom, left, right = halo
        self.sh = (w + left + right) * self.lanes
        self.sc = (h + top + bottom) * self.sh
        self.sn = self.c * self.sc
        self.origin = (top * (w + left + right) + left) * self.lanes
        self.floats = self.n * self.sn
        if self.floats * itemsize >= LARGEST:
            raise ValueError(f"an array of shape {tuple(shape)} needs {self.floats * itemsize / 1e12:.3g} TB of memory")
        self.base = base
        self.offset = 0  # bytes from the base
        self.first = self.last = None  # steps that use it

    @property
    def nbytes(self) -> int:
        return self.floats * self.itemsize

    @property
    def dense(self) -> bool:
        return self.halo == NO_HALO and (self.n == 1 or self.sn == self.c * self.sc)

    def cut(self, shape, block: int) -> Storage:
        """The part of it that has this shape and begins with block `block` of its channels."""
        return self._part(shape, block * self.sc)

    def batch(self, first: int, count: int) -> Storage:
        """Its images [first, first + count); not of lanes_n."""
        return self._part((count, *self.shape[1:]), first * self.sn)

    def slice(self, shape, i: int) -> Storage:
        """Of a dense plain value the i-th of the equal parts of this shape that it is made of."""
        return self._part(shape, i * int(np.prod(shape)))

    def _part(self, shape, floats: int) -> Storage:
        """The part of it that has this shape and begins so many floats after it."""
        part = Storage(shape, self.layout, self.halo, itemsize=self.itemsize)
        part.sn, part.origin, part.root = self.sn, self.origin + floats, _root(self)
        return part

    def same_place(self, other: Storage) -> bool:
        """Whether it begins where another begins."""
        return _root(self) is _root(other) and self.origin == other.origin

    def at(self, floats: int = 0) -> Ref:
        """A pointer `floats` elements after pixel (0, 0) of the first channel."""
        return Ref(self, self.origin + floats)

    def rows(self) -> tuple[int, int, int, int]:
        """(n, c, h, len) of its rows, fewer and longer ones where nothing lies between them."""
        if not self.dense:
            return self.n, self.c, self.h, self.w * self.lanes
        if self.n > 1:
            return self.n, 1, 1, self.sn
        return 1, self.c, 1, self.sc

    def strides(self, name: str) -> dict[str, int]:
        return {f"{name}_n": self.sn, f"{name}_c": self.sc, f"{name}_h": self.sh}


@dataclass(frozen=True)
class Ref:
    storage: Storage
    floats: int


@dataclass
class Step:
    kernel: str
    threads: int
    fields: dict
    node: Node | None
    work: float
    phase: str = "forward"
    changes: Storage | None = None  # the parameter that it updates


@dataclass
class Update:
    """An optimizer's step over one parameter. states: the kernel's arrays that have a value per element of it."""

    param: Storage
    kernel: str
    states: dict[str, Storage]
    hyper: Storage


@dataclass
class Builder:
    """Collects the steps of a program. Ops call get/out/emit; see Op.lower."""

    threads: int
    layout: str  # of the program: LANES_C or LANES_N
    halos: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)  # by symbol id, for `layout`
    steps: list[Step] = field(default_factory=list)
    stored: dict[int, dict[str, Storage]] = field(default_factory=dict)  # symbol id -> layout -> storage
    bound: dict[int, Storage] = field(default_factory=dict)  # symbol id -> where its plain value must end
    storages: list[Storage] = field(default_factory=list)
    constants: dict[bytes, Storage] = field(default_factory=dict)
    used: Counter[int] = field(default_factory=Counter)  # how often nodes and the program read a symbol, by its id
    parts: dict[int, tuple[Symbol, int]] = field(default_factory=dict)  # passes.parts: by symbol id
    wholes: dict[int, Storage] = field(default_factory=dict)  # symbol id -> where its parts are written
    updates: dict[int, list[Update]] = field(default_factory=dict)  # to be made once a symbol, by its id, is known
    seed: Storage | None = None
    node: Node | None = None
    phase: str = "forward"
    changes: Storage | None = None  # of the steps that are emitted now
    streams: dict[int, int] = field(default_factory=dict)

    def __post_init__(self):
        info = _core.isa()
        self.vw, self.tile_m, self.tile_nv, self.gemm_n = (info[k] for k in ("vw", "tile_m", "tile_nv", "gemm_n"))

    # ---- values ------------------------------------------------------------------------------------------------
    def new(self, shape, layout=PLAIN, halo=NO_HALO, itemsize=4) -> Storage:
        storage = Storage(shape, layout, halo, itemsize=itemsize)
        self.storages.append(storage)
        return storage

    def scratch(self, floats: int) -> Storage:
        return self.new((floats,))

    def out(self, symbol: Symbol, layout: str) -> Storage:
        """Where to write a symbol in a layout: with the halo its readers want, its frame zeroed."""
        if layout == PLAIN and symbol.id in self.bound:
            storage = self.bound[symbol.id]
        else:
            storage = self._room(symbol, layout)
        self.stored.setdefault(symbol.id, {})[layout] = storage
        return storage

    def _room(self, symbol: Symbol, layout: str) -> Storage:
        """A new place for a symbol, in that of the whole it is part of if the halo there is wide enough."""
        halo = self._halo(symbol, layout)
        if layout == LANES_C and symbol.id in self.parts:
            whole, channel = self.parts[symbol.id]
            if all(a >= b for a, b in zip(self.whole(whole).halo, halo)):
                return self.whole(whole).cut(symbol.shape, channel // self.vw)
        storage = self.new(symbol.shape, layout, halo, np.dtype(symbol.dtype).itemsize)
        self._zero_frame(storage)
        return storage

    def whole(self, symbol: Symbol) -> Storage:
        """Where to write the parts of a concatenation."""
        if symbol.id not in self.wholes:
            self.wholes[symbol.id] = self._room(symbol, LANES_C)
        return self.wholes[symbol.id]

    def _halo(self, symbol: Symbol, layout: str):
        return self.halos.get(symbol.id, {}).get(layout, NO_HALO)

    def _zero_frame(self, s: Storage) -> None:
        if s.halo != NO_HALO:
            top, bottom, left, right = s.halo
            self.emit(
                "halo",
                s.n * s.c * s.h,
                y=s.at(),
                n=s.n,
                c=s.c,
                h=s.h,
                w=s.w,
                lanes=s.lanes,
                **s.strides("y"),
                top=top,
                bottom=bottom,
                left=left,
                right=right,
            )

    def layouts(self, symbol: Symbol) -> list[str]:
        """The layouts in which a symbol lies already."""
        return list(self.stored.get(symbol.id, {}))

    def get(self, symbol: Symbol, layout: str, dense: bool = False) -> Storage:
        """A symbol in a layout, converted if need be. dense: without a halo."""
        have = self.stored[symbol.id]
        storage = have.get(layout)
        if storage is None:
            storage = self._convert(symbol, have, layout)
        if storage.dense or not dense:
            halo = self._halo(symbol, layout)
            if dense or all(a >= b for a, b in zip(storage.halo, halo)):
                return storage
            target = self.new(symbol.shape, layout, halo)
            self._zero_frame(target)
            self.copy(storage, target)
            have[layout] = target
            return target
        key = layout + " dense"
        if key not in have:
            have[key] = self.new(symbol.shape, layout)
            self.copy(storage, have[key])
        return have[key]

    def _convert(self, symbol: Symbol, have: dict[str, Storage], layout: str) -> Storage:
        if layout == PLAIN:
            source = have.get(LANES_C) or have[LANES_N]
            target = self.bound.get(symbol.id) or self.new(symbol.shape)
            self.unpack(source, target)
        else:
            if PLAIN not in have:
                self._convert(symbol, have, PLAIN)
            source = self.get(symbol, PLAIN, dense=True)
            target = self.new(symbol.shape, layout, self._halo(symbol, layout))
            self._zero_frame(target)
            extra = {} if layout == LANES_C else {"repeat_last": int(self.phase == "forward")}
            self.emit(
                f"pack_{layout}",
                target.floats,
                x=source.at(),
                y=target.at(),
                n=target.images,
                c=target.channels,
                h=target.h,
                w=target.w,
                **target.strides("y"),
                **extra,
            )
        have[layout] = target
        return target

    def unpack(self, source: Storage, target: Storage) -> None:
        """A blocked value into a dense plain one."""
        self.emit(
            f"unpack_{source.layout}",
            source.floats,
            x=source.at(),
            y=target.at(),
            n=source.images,
            c=source.channels,
            h=source.h,
            w=source.w,
            **source.strides("x"),
        )

    def copy(self, source: Storage, target: Storage) -> None:
        n, c, h, length = (
            source.rows() if target.dense and source.dense else (source.n, source.c, source.h, source.w * source.lanes)
        )
        unit = source.itemsize // 4  # the kernel counts in floats
        strides = {**source.strides("x"), **target.strides("y")}
        self.emit(
            "copy",
            source.floats,
            x=source.at(),
            y=target.at(),
            n=n,
            c=c,
            h=h,
            len=length * unit,
            **{name: stride * unit for name, stride in strides.items()},
        )

    def alias(self, symbol: Symbol, source: Storage) -> None:
        """The symbol is another shape of the bytes of `source` (dense)."""
        storage = Storage(symbol.shape, source.layout, itemsize=source.itemsize)
        storage.root, storage.origin = _root(source), source.origin
        self.stored.setdefault(symbol.id, {})[source.layout] = storage

    def stream(self, key: int) -> int:
        """A small number per dropout node, the same for its gradient."""
        return self.streams.setdefault(key, len(self.streams))

    @staticmethod
    def is_kept(storage: Storage) -> bool:
        """Whether it is an array that lives on between runs."""
        return isinstance(_root(storage).base, np.ndarray)

    @staticmethod
    def state(array: np.ndarray) -> Storage:
        """A module's array that steps read, or write, as it is."""
        return Storage(array.shape, base=array, itemsize=array.itemsize)

    def constant(self, array: np.ndarray) -> Storage:
        """A table that lives as long as the plan."""
        array = np.ascontiguousarray(array)
        key = array.dtype.str.encode() + str(array.shape).encode() + array.tobytes()
        if key not in self.constants:
            self.constants[key] = Storage(array.shape, base=array, itemsize=array.itemsize)
        return self.constants[key]

    # ---- steps -------------------------------------------------------------------------------------------------
    def emit(self, kernel: str, work: float, phase: str | None = None, **fields) -> None:
        """Append a step. work: about how many multiply-adds; small steps stay on one thread."""
        threads = max(1, min(self.threads, int(work // SERIAL_WORK)))
        step = Step(kernel, threads, fields, self.node, work, phase or self.phase, self.changes)
        self.steps.append(step)

    def lower(self, nodes: list[Node]) -> None:
        for node in nodes:
            self.node = node
            node.op.lower(node, self)
            self.update_by(node.outputs)
        self.node = None

    # ---- optimizer steps in the midst of the backward pass --------------------------------------------------------
    def update_at_once(self, grad: Symbol, param: Storage, kernel: str, fields: dict) -> None:
        """Once `grad` is known, carry out the optimizer's step that `fields` describe."""
        arrays = {name: self.state(v) for name, v in fields.items() if isinstance(v, np.ndarray) and name != "g"}
        hyper = arrays.pop("hyper")
        self.updates.setdefault(grad.id, []).append(Update(param, kernel, arrays, hyper))

    def update_by(self, grads: list[Symbol]) -> None:
        """Carry out what waits for these gradients."""
        for grad in grads:
            for update in self.updates.pop(grad.id, ()):
                storage = self.get(grad, PLAIN, dense=True)
                if self.is_kept(storage):  # another parameter, which may be updated before this one
                    kept, storage = storage, self.new(grad.shape)
                    self.copy(kept, storage)
                self.update(update, storage, 0, grad.size)

    def only_update(self, grad: Symbol) -> Update | None:
        """The update, taken over by the caller, that is all that `grad` is read for; else None."""
        if self.used[grad.id] != 1 or len(self.updates.get(grad.id, ())) != 1:
            return None
        return self.updates.pop(grad.id)[0]

    def update(self, update: Update, grad: Storage, first: int, count: int) -> None:
        """Update `count` elements of a parameter, from element `first` on; grad holds the gradient of just those."""
        states = {name: storage.at(first) for name, storage in update.states.items()}
        self.changes = update.param
        self.emit(update.kernel, 4.0 * count, g=grad.at(), hyper=update.hyper.at(), size=count, **states)
        self.changes = None

    # ---- memory ------------------------------------------------------------------------------------------------
    def order(self, phases: list[str]) -> dict[str, tuple[int, int]]:
        """Sort the steps by phase; {phase: (first, last)}."""
        bounds, ordered = {}, []
        for phase in phases:
            first = len(ordered)
            ordered += _changes_last([s for s in self.steps if s.phase == phase])
            bounds[phase] = (first, len(ordered))
        self.steps = ordered
        return bounds

    def place(self, keep: list[Storage] = ()) -> int:
        """Give every arena storage its offset; the arena's size in bytes. `keep` is never overwritten."""
        used: dict[int, Storage] = {}
        for index, step in enumerate(self.steps):
            for value in step.fields.values():
                if isinstance(value, Ref):
                    storage = _root(value.storage)
                    if storage.base is None:
                        used[id(storage)] = storage
                        storage.first = index if storage.first is None else storage.first
                        storage.last = index
        for storage in keep:
            storage = _root(storage)
            if storage.base is None:
                used[id(storage)] = storage
                storage.first, storage.last = 0, len(self.steps)
        return assign_offsets(list(used.values()))


def _changes_last(steps: list[Step]) -> list[Step]:
    """In the order given, but a parameter is changed after the last other step that reads it."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        if step.changes is None:
            last |= {id(_root(v.storage)): index for v in step.fields.values() if isinstance(v, Ref)}
    keys = [i if s.changes is None else max(i, last.get(id(s.changes), 0)) for i, s in enumerate(steps)]
    return [steps[i] for i in sorted(range(len(steps)), key=lambda i: (keys[i], steps[i].changes is not None))]


def _root(storage: Storage) -> Storage:
    return getattr(storage, "root", None) or storage
