"""A profile as a picture: the roofline with the kernels on it, and where the time goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..graph.describe import Row
    from ..profiling import Profile

ENDINGS = (".png", ".svg", ".pdf")
_MARKERS = {"": "o", " dx": "^", " dw": "s"}  # by how the name of a row's kind ends
_COLORS = 9  # so many kinds have their own
_BARS = 16  # kinds of layers that get a bar; the rest share one


def check_plot(path: str | os.PathLike[str]) -> Any:
    """matplotlib's Figure, if a picture can be written there. ImportError, naming the extra, without matplotlib;
    ValueError for an ending of a file that is no picture's; OSError where there is no such folder."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"a profile's picture must end in {', '.join(ENDINGS)}, got {str(path)!r}")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder {path.absolute().parent} for the picture")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture of a profile needs matplotlib: pip install 'fastcnn[plot]'") from error
    return Figure


def save_roofline(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write it. Left: every convolution and matrix product, GFLOP/s over operations per byte, its area its time, under
    the bounds of the machine. Right: the time of each kind of layer, dark the part that the bounds explain."""
    figure = check_plot(path)(figsize=(15, 6.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _points(left, profile)
    _bars(right, profile)
    bounds = profile.bounds
    threads = f"{bounds.threads} thread{'s' * (bounds.threads > 1)}"
    figure.suptitle(f"{profile.program.name}, {profile.wall_ms:.4g} ms a run: {bounds.cpu}, {bounds.isa}, {threads}")
    figure.savefig(path, dpi=120)


def _points(axes: Any, profile: Profile) -> None:
    bounds = profile.bounds
    rows = [row for row in profile.rows if row.gflop and row.ms and row.mb and row.phase != "prepare"]
    per_byte = [1e3 * row.gflop / row.mb for row in rows]
    rates = [1e3 * row.gflop / (row.ms or 1) for row in rows]
    longest = max((row.ms or 0 for row in rows), default=1)
    shapes = list(dict.fromkeys(_shape(row) for row in sorted(rows, key=lambda row: -(row.ms or 0))))
    colors = {shape: f"C{place if place < 7 else place + 1}" for place, shape in enumerate(shapes[:_COLORS])}
    for row, x, y in zip(rows, per_byte, rates, strict=True):
        area, edge = 15 + 150 * (row.ms or 0) / longest, "black" if row.algorithm == "winograd" else "white"
        axes.scatter(
            x, y, area, marker=_MARKERS[_ending(row)], color=colors.get(_shape(row), "0.6"), alpha=0.7,
            edgecolors=edge, linewidths=0.7,
        )  # fmt: skip
    low, high = min([1.0, *per_byte]) / 2, max([100.0, *per_byte]) * 2
    for name, gbs, style in (("cache", bounds.cache_gbs, "--"), ("memory", bounds.memory_gbs, "-")):
        knee = max(bounds.gflops / gbs, low)
        axes.plot([low, knee, high], [low * gbs, bounds.gflops, bounds.gflops], style, color="black", zorder=0,
                  label=f"{name} {gbs:.0f} GB/s, {bounds.gflops:.0f} GFLOP/s")  # fmt: skip
    for shape in [*colors, *["others"] * (len(shapes) > _COLORS)]:
        axes.scatter([], [], 50, color=colors.get(shape, "0.6"), label=shape)
    for label, marker, edge in (("forward", "o", "0.5"), ("data gradient", "^", "0.5"), ("weight gradient", "s", "0.5"),
                                ("Winograd (GFLOP of the\ndirect convolution)", "o", "black")):  # fmt: skip
        axes.scatter([], [], 50, marker=marker, facecolors="none", edgecolors=edge, label=label)
    axes.set(
        xscale="log", yscale="log", xlim=(low, high), ylim=(min([bounds.gflops, *rates]) / 3, None),
        xlabel="operations per byte", ylabel="GFLOP/s", title="Convolutions and matrix products",
    )  # fmt: skip
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8, loc="lower right", ncols=2)


def _ending(row: Row) -> str:
    return row.kind[-3:] if row.kind[-3:] in _MARKERS else ""


def _shape(row: Row) -> str:
    return row.kind.removesuffix(" dx").removesuffix(" dw")


def _bars(axes: Any, profile: Profile) -> None:
    whole = profile.total.ms or 1.0
    found = []
    for total in profile.kinds:
        how = f"({total.algorithm})" if total.algorithm else ""
        phase = "" if total.phase == total.kind else total.phase
        found.append((" ".join(filter(None, (total.kind, how, phase))), total.ms or 0.0, total.predicted_ms or 0.0))
    shown, rest = found[:_BARS], found[_BARS:]
    if rest:
        shown.append((f"{len(rest)} other kinds", sum(ms for _, ms, _ in rest), sum(least for *_, least in rest)))
    places = range(len(shown))
    axes.barh(places, [ms for _, ms, _ in shown], color="C0", alpha=0.35, label="measured")
    axes.barh(places, [least for *_, least in shown], color="C0", height=0.4, label="predicted: the least possible")
    for place, (_, ms, least) in enumerate(shown):
        share = f", {100 * least / ms:.0f} % of the roofline" if ms else ""
        text = f" {ms:.3g} ms = {100 * ms / whole:.0f} %{share}"
        axes.annotate(text, (max(ms, least), place), va="center", fontsize=8)
    axes.set_yticks(places, [name for name, *_ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="ms", xlim=(0, 1.6 * max(max(ms, least) for _, ms, least in shown)), title="Time by kind of layer")
    axes.legend(fontsize=8, loc="lower right")
