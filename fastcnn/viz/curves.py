"""The training curve: loss and accuracy by epoch, as CSV, SVG (written here) and PNG (matplotlib).

A history is what Trainer.fit returns: lists of numbers, one per epoch, under the names "loss",
"accuracy", "val_loss", "val_accuracy" and others, any of which may be missing.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

History = Mapping[str, Sequence[float]]

_WIDTH, _HEIGHT = 380, 260  # of one panel, in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 40, 42  # its margins
_COLORS = {"": "#1f77b4", "val_": "#d62728"}
_LABELS = {"": "training", "val_": "validation"}


def save_curves(history: History, stem: str | os.PathLike[str], title: str = "") -> list[Path]:
    """Write <stem>.csv and <stem>.svg, and <stem>.png if matplotlib is installed; returns the paths."""
    stem = Path(stem)
    paths = [stem.with_name(stem.name + ending) for ending in (".csv", ".svg", ".png")]
    paths[0].write_text(curve_csv(history), encoding="utf-8")
    paths[1].write_text(curve_svg(history, title), encoding="utf-8")
    try:
        curve_png(history, paths[2], title)
    except ImportError:
        paths.pop()
    return paths


def curve_csv(history: History) -> str:
    """One line per epoch (counted from 1), one column per name."""
    names = list(history)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", *names])
    for i in range(max((len(history[name]) for name in names), default=0)):
        cells = (history[name][i] if i < len(history[name]) else "" for name in names)
        writer.writerow([i + 1, *(f"{c:.7g}" if isinstance(c, float) else c for c in cells)])
    return text.getvalue()


def curve_png(history: History, path: str | os.PathLike[str], title: str = "") -> None:
    """The curves as a PNG. Raises ImportError, naming the extra, without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a PNG of the curves needs matplotlib: pip install 'fastcnn[plot]'") from error
    panels = _panels(history)
    figure = Figure(figsize=(4.2 * max(len(panels), 1), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for prefix, values in _lines(history, name):
            axes.plot(range(1, len(values) + 1), values, label=_LABELS[prefix], color=_COLORS[prefix])
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=120)


def curve_svg(history: History, title: str = "") -> str:
    """The curves as the text of an SVG file."""
    panels = _panels(history)
    width, height = _WIDTH * max(len(panels), 1), _HEIGHT + (24 if title else 0)
    body = "".join(
        f'<g transform="translate({place * _WIDTH},{height - _HEIGHT})">{_panel(history, name)}</g>\n'
        for place, name in enumerate(panels)
    )
    if title:
        body = _text(width / 2, 18, title, "middle", size=14) + "\n" + body
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n{body}</svg>\n'
    )


def _panels(history: History) -> list[str]:
    return [name for name in ("loss", "accuracy") if _lines(history, name)]


def _lines(history: History, name: str) -> list[tuple[str, Sequence[float]]]:
    """(prefix, values) of the training and the validation line that exist."""
    pairs = ((prefix, history.get(prefix + name, ())) for prefix in _COLORS)
    return [(prefix, values) for prefix, values in pairs if len(values)]


def _panel(history: History, name: str) -> str:
    lines = _lines(history, name)
    finite = [value for _, values in lines for value in values if math.isfinite(value)]
    ticks = _ticks(min(finite, default=0.0), max(finite, default=1.0))
    epochs = max(len(values) for _, values in lines)

    def x(epoch: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        part = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part

    parts = [_text(_WIDTH / 2, 22, name, "middle", size=13)]
    for tick in ticks:
        parts.append(
            f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd" fill="none"/>'
            + _text(_LEFT - 6, y(tick) + 4, f"{tick:.6g}", "end")
        )
    for epoch in sorted({round(1 + i * (epochs - 1) / 5) for i in range(6)}):
        parts.append(_text(x(epoch), _HEIGHT - _BOTTOM + 16, str(epoch), "middle"))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 8, "epoch", "middle"))
    for place, (prefix, values) in enumerate(lines):
        color = _COLORS[prefix]
        points = [(x(i + 1), y(v)) for i, v in enumerate(values) if math.isfinite(v)]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        if len(points) == 1:
            path += "h1"
        if points:
            parts.append(f'<path d="M{path}" stroke="{color}" stroke-width="2" fill="none"/>')
        left = _LEFT + 8 + 90 * place
        parts.append(f'<rect x="{left}" y="{_TOP - 11}" width="12" height="3" fill="{color}"/>')
        parts.append(_text(left + 16, _TOP - 6, _LABELS[prefix], "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str, size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#333">{escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers around [low, high]."""
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]
