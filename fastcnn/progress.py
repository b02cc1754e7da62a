"""How training shows where it is: a bar on a terminal or in a notebook, a plain line per epoch everywhere else."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from typing import Any

INTERVAL = 0.1  # seconds between updates of a bar


def mode(stream: Any = None) -> str:
    """ "notebook", "bar" or "plain": what suits the process and `stream` (stderr).

    A bar needs a terminal that can move its cursor; continuous integration (CI set) gets plain lines. Nothing here uses
    colour, so NO_COLOR holds by itself.
    """
    shell = sys.modules.get("IPython")
    if shell is not None and "ZMQ" in type(shell.get_ipython()).__name__:
        return "notebook"
    stream = sys.stderr if stream is None else stream
    ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    terminal = getattr(stream, "isatty", bool)() and os.environ.get("TERM") != "dumb"
    return "bar" if terminal and not ci else "plain"


def text(logs: Mapping[str, float]) -> str:
    """'loss 0.1234  accuracy 0.9876  1.23 s'."""
    parts = [f"{name} {value:.4f}" for name, value in logs.items() if name != "seconds"]
    if "seconds" in logs:
        parts.append(f"{logs['seconds']:.2f} s")
    return "  ".join(parts)


class Progress:
    """Shows nothing; the base of the others. update() is called at most every `interval` seconds."""

    interval = math.inf

    def begin(self, epoch: int, epochs: int, batches: int | None) -> None:
        """An epoch (counted from 1) of so many batches begins."""

    def update(self, done: int, logs: Mapping[str, float]) -> None:
        """`done` batches are over; logs are the means so far."""

    def end(self, logs: Mapping[str, float]) -> None:
        """The epoch is over, validation included."""

    def close(self) -> None:
        """Training is over, for whatever reason."""


class Plain(Progress):
    """One line per epoch, to stdout (or `stream`)."""

    def __init__(self, stream: Any = None) -> None:
        self.stream = stream
        self.head = ""

    def begin(self, epoch: int, epochs: int, batches: int | None) -> None:
        """Remember which epoch it is."""
        self.head = f"epoch {epoch:{len(str(epochs))}}/{epochs}"

    def end(self, logs: Mapping[str, float]) -> None:
        """Write the line."""
        print(f"{self.head}  {text(logs)}", file=self.stream, flush=True)


class Bar(Progress):
    """A tqdm bar per epoch, left standing with the epoch's results."""

    interval = INTERVAL

    def __init__(self, notebook: bool = False, stream: Any = None) -> None:
        self.stream, self.tqdm = stream, _tqdm(notebook)
        self.bar: Any = None

    def begin(self, epoch: int, epochs: int, batches: int | None) -> None:
        """Open a bar."""
        self.bar = self.tqdm(
            total=batches,
            desc=f"epoch {epoch:{len(str(epochs))}}/{epochs}",
            unit="batch",
            file=self.stream,
            mininterval=0,
            miniters=0,
            leave=True,
            dynamic_ncols=True,
        )

    def update(self, done: int, logs: Mapping[str, float]) -> None:
        """Move the bar and show the means."""
        self.bar.n = done
        self.bar.set_postfix_str(text(logs))

    def end(self, logs: Mapping[str, float]) -> None:
        """Fill the bar and leave it."""
        if self.bar.total is not None:
            self.bar.n = self.bar.total
        self.bar.set_postfix_str(text({k: v for k, v in logs.items() if k != "seconds"}))
        self.close()

    def close(self) -> None:
        """End an open bar's line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _tqdm(notebook: bool) -> Any:
    """tqdm's class for the place, without its monitor thread (updates here are by time already)."""
    from tqdm import tqdm  # here, so that importing fastcnn stays fast

    base = tqdm
    if notebook:
        try:
            import ipywidgets  # noqa: F401
            from tqdm.notebook import tqdm as base
        except ImportError:
            pass

    class Quiet(base):  # type: ignore[valid-type, misc]
        monitor_interval = 0

    return Quiet


def make(progress: bool | str | Progress) -> Progress:
    """The display for True (what suits), False (none), "bar", "notebook", "plain", or one of one's own.

    ValueError for anything else.
    """
    if isinstance(progress, Progress):
        return progress
    if progress is False or progress is None:
        return Progress()
    chosen = mode() if progress is True else progress
    if chosen == "plain":
        return Plain()
    if chosen in ("bar", "notebook"):
        return Bar(notebook=chosen == "notebook")
    raise ValueError(f"progress must be True, False, 'bar', 'notebook', 'plain' or a Progress, got {progress!r}")
