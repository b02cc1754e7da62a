# cython: language_level=3, boundscheck=False, wraparound=False
"""The one door to C: instruction sets, arenas, plans of kernel steps."""

import os
import threading
import weakref

import numpy as np

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t, uint8_t, uintptr_t
from libc.string cimport memcpy

cnp.import_array()

cdef extern from "fastcnn.h" nogil:
    ctypedef void (*fc_kernel)(const void *args, int ith, int nth)
    ctypedef struct fc_isa:
        const char *name
        int vw, tile_m, tile_nv, gemm_n
        const fc_kernel *table
    ctypedef struct fc_field:
        const char *name
        char kind
    ctypedef struct fc_kernel_info:
        const char *name
        int nfields
        const fc_field *fields
    ctypedef struct fc_step:
        fc_kernel fn
        const void *args
        int64_t threads
    int FC_KERNEL_COUNT
    const fc_kernel_info fc_kernels[]
    int fc_isa_count()
    const fc_isa *fc_isa_at(int i)
    int fc_isa_supported(int i)
    int64_t fc_gemm_scratch(const fc_isa *isa, int64_t m)
    int64_t fc_gemm_update_scratch(const fc_isa *isa, int64_t k)
    void *fc_alloc(size_t bytes)
    void fc_free(void *p)
    void fc_release_memory()
    void fc_fail_alloc(int64_t nth)
    void fc_run(const fc_step *steps, int64_t first, int64_t last, int nth, double *ms)
    int fc_forked()
    const char *fc_compiler()

cdef const fc_isa *_isa = NULL

KERNELS = {
    fc_kernels[i].name.decode(): (
        i,
        {
            fc_kernels[i].fields[j].name.decode(): (j, chr(fc_kernels[i].fields[j].kind))
            for j in range(fc_kernels[i].nfields)
        },
    )
    for i in range(FC_KERNEL_COUNT)
}


def isas() -> list:
    """(name, supported by this machine) of every compiled-in instruction set, lowest first."""
    return [(fc_isa_at(i).name.decode(), bool(fc_isa_supported(i))) for i in range(fc_isa_count())]


def select_isa(max_name: str | None = None) -> None:
    """Choose the best supported instruction set, no higher than `max_name`. ValueError if unknown."""
    global _isa
    names = [name for name, _ in isas()]
    if max_name and max_name not in names:
        raise ValueError(f"FASTCNN_MAX_ISA={max_name!r} is not one of {', '.join(names)}")
    cdef int last = names.index(max_name) if max_name else len(names) - 1
    for i in range(last, -1, -1):
        if fc_isa_supported(i):
            _isa = fc_isa_at(i)
            return


def isa() -> dict:
    """The instruction set in use: name, vw (float lanes), tile_m, tile_nv, gemm_n."""
    return {"name": _isa.name.decode(), "vw": _isa.vw, "tile_m": _isa.tile_m, "tile_nv": _isa.tile_nv,
            "gemm_n": _isa.gemm_n}


def gemm_scratch(int64_t m) -> int:
    """Floats of scratch that one thread needs for the gemm kernel on m rows."""
    return fc_gemm_scratch(_isa, m)


def gemm_update_scratch(int64_t k) -> int:
    """Floats of scratch that one thread needs for the gemm_update kernel at depth k."""
    return fc_gemm_update_scratch(_isa, k)


def compiler() -> str:
    """The compiler that built the kernels."""
    return fc_compiler().decode()


def forked() -> bool:
    """True in a child of a process that had threads: plans run on one thread there."""
    return bool(fc_forked())


def fail_alloc(int64_t nth) -> None:
    """For tests: let the nth allocation from now fail (0: off)."""
    fc_fail_alloc(nth)


def release_memory() -> None:
    """Give memory that the C library holds unused back to the system, where that is possible."""
    fc_release_memory()


def aligned_array(shape, dtype=np.float32):
    """A zeroed array whose first element is at a multiple of 64 bytes."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=object))
    raw = np.zeros(count * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start:start + count * dtype.itemsize].view(dtype).reshape(shape)


def is_plain(value) -> bool:
    """Whether it is a NumPy array, of no subclass, that kernels take as it is: float32, C-contiguous, not read-only, not
    empty."""
    if type(value) is not np.ndarray:
        return False
    return (cnp.PyArray_TYPE(value) == cnp.NPY_FLOAT32 and cnp.PyArray_ISCARRAY(value)
            and cnp.PyArray_SIZE(value) > 0)


def empty(tuple shape) -> np.ndarray:
    """np.empty of float32, in less than half its time, which shows in a small network's answer for one image."""
    cdef cnp.npy_intp sizes[cnp.NPY_MAXDIMS]
    cdef int i, ndim = len(shape)
    if ndim > cnp.NPY_MAXDIMS:
        raise ValueError(f"an array of {ndim} dimensions")
    for i in range(ndim):
        sizes[i] = shape[i]
    return cnp.PyArray_EMPTY(ndim, sizes, cnp.NPY_FLOAT32, 0)


cdef _check_fields(str kernel, dict layout, dict fields):
    missing = [n for n, (_, kind) in layout.items() if kind != "o" and fields.get(n) is None]
    unknown = sorted(fields.keys() - layout.keys())
    if missing or unknown:
        raise TypeError(f"{kernel}: missing {missing}, unknown {unknown}")


_arenas = weakref.WeakSet()


def _after_fork():
    for arena in list(_arenas):
        arena.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef class Arena:
    """Working memory of one or more plans, and the lock under which they run."""

    cdef uint8_t *memory
    cdef readonly size_t size
    cdef readonly int64_t generation
    cdef readonly object lock
    cdef public object owner
    cdef object __weakref__

    def __cinit__(self):
        self.memory = NULL
        self.size = 0
        self.generation = 0
        self.lock = threading.Lock()
        self.owner = None
        _arenas.add(self)

    def after_fork(self) -> None:
        """In a child: the lock may be held by a thread that does not exist here."""
        self.lock = threading.Lock()
        self.owner = None

    def __dealloc__(self):
        fc_free(self.memory)

    def reserve(self, size_t size) -> None:
        """Make room for `size` bytes; what was in the arena is lost if it grows. MemoryError."""
        if size <= self.size:
            return
        cdef void *fresh = fc_alloc(size)
        if fresh == NULL:
            raise MemoryError(f"fastcnn: cannot allocate a working memory of {size / 1e6:.1f} MB")
        fc_free(self.memory)
        self.memory = <uint8_t *>fresh
        self.size = size
        self.generation += 1
        self.owner = None

    def array(self, size_t offset, shape, dtype=np.float32):
        """A copy of what lies at a byte offset (for debugging and tests)."""
        out = np.empty(shape, dtype)
        if offset + out.nbytes > self.size:
            raise ValueError("outside the arena")
        memcpy(cnp.PyArray_DATA(out), self.memory + offset, out.nbytes)
        return out

    def poison(self) -> None:
        """Fill the arena with NaNs (for tests: no step may read what no step wrote)."""
        cdef size_t i
        for i in range(self.size // 4):
            (<int64_t *>self.memory)[i // 2] = -1


cdef class Plan:
    """A flat list of kernel steps over an arena and outside arrays.

    A pointer field is a pair (base, byte offset): base 0 is the arena, other bases come from `add_array`
    (fixed) and `add_slot` (given at each run).
    """

    cdef fc_step *steps
    cdef int64_t nsteps, capacity
    cdef list blobs, names, bases, slots, relocations
    cdef readonly Arena arena
    cdef readonly size_t arena_bytes
    cdef int64_t generation
    cdef object timings

    def __cinit__(self, Arena arena not None):
        self.steps = NULL
        self.nsteps = self.capacity = 0
        self.arena = arena
        self.arena_bytes = 0
        self.generation = -1
        self.blobs = []
        self.names = []
        self.bases = [None]
        self.slots = []
        self.relocations = [[]]
        self.timings = None

    def __dealloc__(self):
        fc_free(self.steps)

    def __len__(self):
        return self.nsteps

    def add_array(self, cnp.ndarray array not None) -> int:
        """A base that is an array's memory for the plan's life. Any C-contiguous array."""
        if not cnp.PyArray_IS_C_CONTIGUOUS(array):
            raise ValueError("a plan's array must be C-contiguous")
        self.bases.append(array)
        self.relocations.append([])
        return len(self.bases) - 1

    def add_slot(self) -> int:
        """A base that each run supplies: run()'s io gives the arrays in the order of these calls."""
        self.bases.append(None)
        self.relocations.append([])
        self.slots.append(len(self.bases) - 1)
        return len(self.bases) - 1

    def add(self, str kernel, int64_t threads, dict fields) -> int:
        """Append a step: every field of the kernel's contract, pointers as (base, byte offset) or None."""
        index, layout = KERNELS[kernel]
        _check_fields(kernel, layout, fields)
        blob = np.zeros(len(layout), np.int64)
        for name, (position, kind) in layout.items():
            value = fields.get(name)
            if kind == "i":
                blob[position] = value
            elif kind == "d":
                blob[position:position + 1].view(np.float64)[0] = value
            elif value is not None:
                base, offset = value
                self.relocations[base].append((blob, position, offset))
        if self.nsteps == self.capacity:
            self._grow()
        self.steps[self.nsteps].fn = _isa.table[index]
        self.steps[self.nsteps].args = cnp.PyArray_DATA(blob)
        self.steps[self.nsteps].threads = threads
        self.blobs.append(blob)
        self.names.append(kernel)
        self.nsteps += 1
        return self.nsteps - 1

    cdef _grow(self):
        cdef int64_t capacity = 2 * self.capacity + 16
        cdef fc_step *fresh = <fc_step *>fc_alloc(capacity * sizeof(fc_step))
        if fresh == NULL:
            raise MemoryError("fastcnn: cannot allocate a plan's steps")
        if self.nsteps:
            memcpy(fresh, self.steps, self.nsteps * sizeof(fc_step))
        fc_free(self.steps)
        self.steps = fresh
        self.capacity = capacity

    def finish(self, size_t arena_bytes) -> None:
        """Close the plan: reserve the arena and write the addresses of all fixed bases. MemoryError."""
        self.arena_bytes = arena_bytes
        with self.arena.lock:
            self.arena.reserve(arena_bytes)
            for base in range(1, len(self.bases)):
                if self.bases[base] is not None:
                    self._point(base, <uintptr_t>cnp.PyArray_DATA(self.bases[base]))

    cdef _point(self, int base, uintptr_t address):
        cdef int64_t position
        cdef cnp.ndarray blob
        for blob, position, offset in self.relocations[base]:
            (<int64_t *>cnp.PyArray_DATA(blob))[position] = <int64_t>address + <int64_t>offset

    def run(self, tuple io, int64_t first, int64_t last, int threads, timings=None) -> None:
        """Run steps [first, last). io: one C-contiguous array per slot. Hold `arena.lock` while calling.

        timings: None or a float64 array of len(self) that receives each step's milliseconds.
        """
        cdef int i
        cdef cnp.ndarray array
        cdef double *ms = NULL
        if self.generation != self.arena.generation:
            self._point(0, <uintptr_t>self.arena.memory)
            self.generation = self.arena.generation
        if len(io) != len(self.slots):
            raise ValueError(f"{len(self.slots)} arrays expected, got {len(io)}")
        for i in range(len(io)):
            array = io[i]
            if array is not None:
                self._point(self.slots[i], <uintptr_t>cnp.PyArray_DATA(array))
        if timings is not None:
            ms = <double *>cnp.PyArray_DATA(timings)
        with nogil:
            fc_run(self.steps, first, last, threads, ms)

    def describe_steps(self) -> list:
        """[(kernel, threads, {field: number})] of every step, pointers left out."""
        out = []
        for i in range(self.nsteps):
            _, layout = KERNELS[self.names[i]]
            fields = {}
            for name, (position, kind) in layout.items():
                if kind == "i":
                    fields[name] = int(self.blobs[i][position])
                elif kind == "d":
                    fields[name] = float(self.blobs[i][position:position + 1].view(np.float64)[0])
            out.append((self.names[i], self.steps[i].threads, fields))
        return out


def run_kernel(str kernel, int threads=1, **fields) -> None:
    """Run one kernel once; pointer fields are C-contiguous arrays (or None)."""
    index, layout = KERNELS[kernel]
    _check_fields(kernel, layout, fields)
    cdef fc_step step
    cdef cnp.ndarray blob = np.zeros(len(layout), np.int64)
    cdef int64_t *slot = <int64_t *>cnp.PyArray_DATA(blob)
    cdef int64_t position
    for name, (position, kind) in layout.items():
        value = fields.get(name)
        if kind == "i":
            slot[position] = value
        elif kind == "d":
            (<double *>slot)[position] = value
        elif value is not None:
            if not cnp.PyArray_IS_C_CONTIGUOUS(value):
                raise ValueError(f"{kernel}: {name} must be C-contiguous")
            slot[position] = <int64_t><uintptr_t>cnp.PyArray_DATA(value)
    step.fn = _isa.table[index]
    step.args = slot
    step.threads = threads
    with nogil:
        fc_run(&step, 0, 1, threads, NULL)


select_isa(os.environ.get("FASTCNN_MAX_ISA") or None)
