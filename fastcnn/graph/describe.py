"""A program as a table: what each step does, what it must take at least on this machine, and what it took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from .. import _core
from ..ops.geometry import geometry
from .lower import LANES_C, LANES_N, PLAIN, Ref, Step, Storage, _root
from .roofline import Roofline
from .trace import Node

CONVOLUTIONS = {"conv2d": "", "conv2d_data": " dx", "conv2d_weight": " dw"}
LINEAR = {"linear": "linear", "linear_data": "linear dx", "linear_weight": "linear dw", "matmul": "matmul"}
HELPERS = (
    "pack",
    "halo",
    "copy",
    "pick_pixels",
    "place_pixels",
    "fill",
    "sum_",
    "winograd_weights",
    "winograd_n_weights",
)  # kernels that do no products, by their names
ALGORITHMS = {"winograd": "winograd", "gemm": "gemm", "gemv": "gemv"}  # by how a kernel's name begins, else direct
VALUES = ("x", "dy", "a", "y", "dx", "c")  # the fields whose layouts say what a step works on, sources first
# Where a step may touch but a part of an array: the fields whose product is how many floats.
PARTS = {
    ("gemm", "a"): ("m", "k"),
    ("gemm", "c"): ("m", "n"),
    ("gemm", "mask"): ("m", "n"),
    ("gemm_update", "a"): ("m", "k"),
    ("gemm_pack_b", "b"): ("k", "n"),
    ("batch_norm_moments", "x"): ("channels",),
}


@dataclass
class Row:
    """A step. layer: the module's path. gflop: 10^9 additions and multiplications of a convolution or matrix product,
    by definition, whatever the algorithm; 0 for passes over values. mb: 10^6 bytes read and written, each array once.
    predicted_ms, bound ("compute", "cache", "memory"): the least time and what sets it; ms: the measured time."""

    step: int
    phase: str
    layer: str
    kind: str
    kernel: str
    algorithm: str
    layout: str
    threads: int
    gflop: float
    mb: float
    predicted_ms: float | None = None
    bound: str = ""
    ms: float | None = None


@dataclass
class Total:
    """Steps together: of one kind, phase and algorithm, of one phase, or all."""

    kind: str
    phase: str
    algorithm: str
    steps: int
    gflop: float
    mb: float
    predicted_ms: float | None
    ms: float | None


def rows(program, bounds: Roofline | None = None, timings=None, first=0, last=None) -> list[Row]:
    """The steps [first, last) of a program; bounds: for predictions; timings: ms of each step of the program."""
    work: dict[int, float] = {}  # of all the products of a node
    for step in program.steps:
        if algorithm(step):
            work[id(step.node)] = work.get(id(step.node), 0) + step.work
    out = []
    for index, step in enumerate(program.steps[first:last], first):
        found = algorithm(step)
        flop = 2 * step.work if found else 0.0
        if (
            found and step.node.op.name in CONVOLUTIONS
        ):  # by the definition, whatever the kernel adds to it or leaves out
            flop = 2 * _geometry(step.node).macs * step.work / max(work[id(step.node)], 1)
        row = Row(
            index,
            step.phase,
            (step.node.path if step.node else "") or "-",
            kind(step),
            step.kernel,
            found,
            "->".join(layouts(step)),
            step.threads,
            1e-9 * flop,
            1e-6 * moved_bytes(step),
        )
        if bounds is not None:
            compute = bounds.compute_ms(2 * step.work if found == "winograd" else flop, step.threads)
            transfer = bounds.transfer_ms(1e6 * row.mb, step.threads)
            cached = "cache" if 1e6 * row.mb <= bounds.cache_bytes else "memory"
            row.predicted_ms, row.bound = max(compute, transfer), "compute" if compute > transfer else cached
        if timings is not None:
            row.ms = float(timings[index])
        out.append(row)
    return out


def kind(step: Step) -> str:
    """What sort of layer a step belongs to: "conv 3x3/2", "conv 1x1 dw" (gradient of the weight), "batch norm", ...;
    "update" of weights, "output" for what brings results where the caller wants them."""
    if _updates(step):
        return "update"
    if step.node is None:
        return "output"
    name = step.node.op.name
    if name not in CONVOLUTIONS:
        return LINEAR.get(name) or name.replace("_", " ")
    g = _geometry(step.node)
    stride = f"/{max(g.stride)}" if max(g.stride) > 1 else ""
    groups = "" if g.groups == 1 else " depthwise" if g.groups == g.c else f" groups {g.groups}"
    dilation = f" dilation {max(g.dilation)}" if max(g.dilation) > 1 else ""
    return f"conv {g.kh}x{g.kw}{stride}{groups}{dilation}{CONVOLUTIONS[name]}"


def _updates(step: Step) -> bool:
    """Whether it is the optimizer's work alone, at the end or right after a gradient."""
    return step.phase == "update" or (isinstance(step.fields.get("p"), Ref) and "g" in step.fields)


def _geometry(node: Node):
    first, second = (s.shape for s in node.inputs[:2])
    shapes = {"conv2d_data": (node.attrs.get("shape"), second), "conv2d_weight": (first, node.attrs.get("shape"))}
    return geometry(*shapes.get(node.op.name, (first, second)), node.attrs)


def algorithm(step: Step) -> str:
    """ "direct", "winograd", "gemm" or "gemv" of a step that does the products of a layer, "" of any other."""
    if step.node is None or _updates(step) or step.node.op.name not in {**CONVOLUTIONS, **LINEAR}:
        return ""
    if any(part in step.kernel for part in HELPERS):
        return ""
    return next((name for start, name in ALGORITHMS.items() if step.kernel.startswith(start)), "direct")


def layouts(step: Step) -> list[str]:
    """The layout of what a step works on, or two where it changes it."""
    refs = [step.fields.get(name) for name in VALUES]
    return list(dict.fromkeys(ref.storage.layout for ref in refs if isinstance(ref, Ref))) or [PLAIN]


def moved_bytes(step: Step) -> float:
    """Bytes that a step reads and writes: every array that it names once, halo included, scratch memory left out (it
    stays in the cache). As the copy that measured the bandwidth counts: what is updated in place counts once, too."""
    sizes: dict[int, float] = {}
    for name, ref in step.fields.items():
        if not isinstance(ref, Ref) or name == "scratch" or (name == "x" and _only_zeros(step)):
            continue
        size = min(ref.storage.nbytes, _touched(step, name, ref.storage))
        root = id(_root(ref.storage))
        sizes[root] = max(sizes.get(root, 0), size)
    return sum(sizes.values())


def _only_zeros(step: Step) -> bool:
    """Whether it is a phase of a strided data gradient that no weight reaches."""
    return 0 in (step.fields.get("nruns"), step.fields.get("ntaps"))


def _touched(step: Step, name: str, storage: Storage) -> float:
    """Bytes of an array that a step may touch, where its fields say; inf where they do not."""
    f = step.fields
    if name == "table":
        return np.inf
    if step.kernel == "halo":
        return storage.nbytes - 4.0 * f["n"] * f["c"] * f["h"] * f["w"] * f["lanes"]
    if step.kernel == "pick_pixels" and name == "x":
        return f["y"].storage.nbytes
    if step.kernel == "strided_copy":
        return 4.0 * float(np.prod(f["table"].storage.base[0], dtype=float))
    if "len" in f:
        return 4.0 * f["n"] * f["c"] * f["h"] * f["len"]
    if isinstance(f.get("p"), Ref) and "g" in f and name != "hyper":
        return 4.0 * f["size"]
    if name in ("y", "mask") and "y_w" in f and storage.layout in (LANES_C, LANES_N):  # a phase of a data gradient
        return storage.nbytes * f["oh"] * f["ow"] / (storage.h * storage.w)
    names = PARTS.get((step.kernel, name))
    return 4.0 * float(np.prod([f[n] for n in names], dtype=float)) if names else np.inf


# ---- totals ----------------------------------------------------------------------------------------------------------
def totals(found: Iterable[Row], by=lambda row: ()) -> list[Total]:
    """Rows added up by what by(row) gives, (kind, phase, algorithm) or fewer of them; the longest time first."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in found:
        groups.setdefault(by(row), []).append(row)
    out = [
        Total(*key, *[""] * (3 - len(key)), len(group), *(_sum(group, name) for name in _SUMS))
        for key, group in groups.items()
    ]
    return sorted(out, key=lambda total: -(total.predicted_ms or 0 if total.ms is None else total.ms))


_SUMS = ("gflop", "mb", "predicted_ms", "ms")


def _sum(group: list[Row], name: str) -> float | None:
    values = [getattr(row, name) for row in group]
    return None if None in values else sum(values)


def by_kind(program, found: list[Row]) -> list[Total]:
    """Totals by kind of layer, phase and algorithm; what a layer packs, copies and unpacks goes with it."""
    chosen: dict[tuple[int, str], str] = {}
    for row in found:
        if row.algorithm:
            chosen.setdefault((id(program.steps[row.step].node), row.phase), row.algorithm)

    def key(row: Row) -> tuple[str, str, str]:
        of_layer = chosen.get((id(program.steps[row.step].node), row.phase), "")
        return row.kind, row.phase, "" if row.kind in ("update", "output") else of_layer

    return totals(found, key)


def share(item: Row | Total) -> float | None:
    """How near the bound: predicted over measured time."""
    return item.predicted_ms / item.ms if item.ms and item.predicted_ms is not None else None


def numbers(item: Row | Total) -> dict:
    """For JSON."""
    return {**asdict(item), "share_of_roofline": share(item)}


# ---- text ------------------------------------------------------------------------------------------------------------
def head(program, bounds: Roofline | None) -> str:
    """Two or three lines: what the program is, the memory that it needs, what the machine can do."""
    isa = _core.isa()
    parts = ", ".join(f"{what} {size / 1e6:.1f}" for what, size in program.memory.items() if size)
    lines = [
        f"{program.name or 'program'}: layout {program.layout}, {isa['name']}, {program.threads} threads",
        f"  peak memory {program.peak_bytes / 1e6:.1f} MB: {parts}",
    ]
    return "\n".join(lines + ([f"  {bounds.describe()}"] if bounds is not None else []))


def _number(value: float | None, digits: int, scale: float = 1) -> str:
    return "" if value is None else f"{scale * value:.{digits}f}"


def _figures(item: Row | Total, whole: Total) -> dict[str, str]:
    """The columns that steps and totals share, in units that suit the whole."""
    ms, part = item.ms, share(item)
    work, more = ("GFLOP", 1) if whole.gflop >= 1 else ("MFLOP", 1000)
    unit, longer = ("us", 1000) if (whole.ms or whole.predicted_ms or 1) < 1 else ("ms", 1)
    return {
        work: _number(item.gflop or None, 3, more),
        "MB": _number(item.mb, 2),
        f"predicted {unit}": _number(item.predicted_ms, 3, longer),
        unit: _number(ms, 3, longer),
        "GFLOP/s": _number(item.gflop / ms, 1, 1e3) if ms and item.gflop else "",
        "GB/s": _number(item.mb / ms, 1) if ms else "",
        "roofline": "" if part is None else f"{100 * part:.0f} %",
    }


_LEFT = {"phase", "layer", "kind", "kernel", "algorithm", "layout", "bound", "layer kind"}


def _table(lines: list[dict[str, str]]) -> str:
    """Aligned columns, those without any entry left out."""
    names = [name for name in lines[0] if any(line[name] for line in lines)] if lines else []
    widths = {name: max(len(name), *(len(line[name]) for line in lines)) for name in names}

    def text(line: dict[str, str]) -> str:
        cells = (line[n].ljust(widths[n]) if n in _LEFT else line[n].rjust(widths[n]) for n in names)
        return "  " + "  ".join(cells).rstrip()

    return "\n".join([text({name: name for name in names}), *map(text, lines)])


def step_table(found: list[Row]) -> str:
    """A line per step."""
    lines, whole = [], next(iter(totals(found)), None)
    for row in found:
        begin = {"#": str(row.step), "phase": row.phase, "layer": row.layer, "kind": row.kind, "kernel": row.kernel}
        begin |= {"algorithm": row.algorithm, "layout": row.layout, "threads": str(row.threads)}
        lines.append({**begin, **_figures(row, whole), "bound": row.bound})
    return _table(lines)


def total_table(groups: list[list[Total]], whole: Total) -> str:
    """A line per total, with its part of the time of the whole; groups apart."""
    lines = []
    for total in sum(groups, []):
        begin = {"layer kind": total.kind or "all", "phase": total.phase or "all", "algorithm": total.algorithm}
        time, everything = (t.predicted_ms if whole.ms is None else t.ms for t in (total, whole))
        percent = f"{100 * time / everything:.1f}" if time is not None and everything else ""
        lines.append({**begin, "steps": str(total.steps), "% of time": percent, **_figures(total, whole)})
    first, *rest = _table(lines).split("\n")
    rule, out = "  " + "-" * (max(map(len, [first, *rest])) - 2), [first]
    for group in groups:
        out += [rule, *rest[: len(group)]]
        rest = rest[len(group) :]
    return "\n".join(out)


def text(program, bounds: Roofline | None = None, timings=None, first=0, last=None) -> str:
    """The head and a line per step."""
    return head(program, bounds) + "\n" + step_table(rows(program, bounds, timings, first, last))
