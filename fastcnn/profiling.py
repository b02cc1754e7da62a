"""Where the time of a training step or of inference goes, step by step, next to what this machine could do."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from . import _core
from .arrays import gate
from .graph import describe
from .graph.autograd import Call, no_grad
from .graph.roofline import roofline
from .nn import Module, check
from .step import TrainingStep

WARM_UP = 0.2  # seconds: cores that slept clock up, pages are touched


class Profile:
    """What profile() found: print it, or read `rows` (describe.Row of each step), `kinds`, `phases` (describe.Total),
    `total`, `wall_ms` (median time of a whole run), `bounds` (roofline.Roofline); numbers() for JSON, plot(path).

    Of a program that keeps packed weights, the steps that pack them (phase "prepare") are in `rows` alone.
    """

    def __init__(self, program: Any, timings: np.ndarray, wall_ms: float, runs: int, again: bool = False) -> None:
        self.program, self.wall_ms, self.runs = program, wall_ms, runs
        self.bounds = roofline(program.threads, again)
        self.rows = describe.rows(program, self.bounds, timings)
        running = [row for row in self.rows if row.phase != "prepare"]
        self.kinds = describe.by_kind(program, running)
        self.phases = describe.totals(running, lambda row: ("all", row.phase))
        (self.total,) = describe.totals(running)

    def text(self, top: int | None = None) -> str:
        """The table: a line per step (top: only of the slowest so many), per kind of layer, per phase and in all."""
        steps = self.rows if top is None else sorted(self.rows, key=lambda row: -(row.ms or 0))[:top]
        return "\n\n".join(
            [
                describe.head(self.program, self.bounds),
                describe.step_table(steps),
                describe.total_table([self.kinds, self.phases, [self.total]], self.total),
                f"  {self.wall_ms:.4g} ms a run, medians of {self.runs} runs; roofline = predicted / measured ms.\n"
                "  predicted: the larger of work / peak and bytes / bandwidth. GFLOP: of the direct convolution, so\n"
                "  Winograd's GFLOP/s are effective ones; its predicted time is that of the products it does.",
            ]
        )

    __str__ = text

    def numbers(self) -> dict[str, Any]:
        """Everything, of types that JSON has."""
        program = self.program
        return {
            "program": program.name,
            "layout": program.layout,
            "isa": _core.isa()["name"],
            "threads": program.threads,
            "runs": self.runs,
            "wall_ms": self.wall_ms,
            "memory_bytes": {**program.memory, "peak": program.peak_bytes},
            "roofline": asdict(self.bounds),
            "total": describe.numbers(self.total),
            "phases": [describe.numbers(total) for total in self.phases],
            "kinds": [describe.numbers(total) for total in self.kinds],
            "steps": [describe.numbers(row) for row in self.rows],
        }

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write a picture (.png, .svg, .pdf): the roofline with the kernels on it, and the time by kind of layer.

        ImportError without matplotlib, which the extra `plot` brings; ValueError for another ending.
        """
        from .viz.roofline import save_roofline

        save_roofline(self, path)


def profile(target: Module | TrainingStep, *arrays: Any, runs: int = 5, recalibrate: bool = False) -> Profile:
    """Run a training step (on x, y) or a module (on its inputs; in the mode it is in, nothing recorded for backward)
    `runs` times, after 0.2 s and at least one run to warm up, and give the median time of each of its kernel calls. The
    runs are real ones: weights and running statistics change as they would.

    recalibrate: measure anew what the machine can do, rather than take what was found the first time. TypeError for
    another target, ValueError for runs < 1 or if FASTCNN_EAGER is set.
    """
    runs = check.integer("profile", "runs", runs, 1)
    program, run = _prepared(target, arrays)
    if program.eager:
        raise ValueError("profile: FASTCNN_EAGER runs op by op, unfused; unset it to profile the plan")
    walls, timings = [], []
    program.timings = np.zeros(len(program.plan))
    try:
        end = time.perf_counter() + WARM_UP
        run()
        while time.perf_counter() < end:
            run()
        for _ in range(runs):
            start = time.perf_counter()
            run()
            walls.append(1e3 * (time.perf_counter() - start))
            timings.append(program.timings.copy())
        program.timings[:] = np.median(timings, axis=0)
        return Profile(program, program.timings, statistics.median(walls), runs, recalibrate)
    finally:
        program.timings = None


def _prepared(target: Any, arrays: tuple[Any, ...]) -> tuple[Any, Callable[[], object]]:
    """The program, and what runs it once."""
    if isinstance(target, TrainingStep):
        if len(arrays) != 2:
            raise ValueError(f"profile: a training step takes x and y, got {len(arrays)} arrays")
        x, y = gate(arrays[0], "profile: x"), arrays[1]
        y = tuple(gate(v, "profile: y") for v in y) if isinstance(y, tuple) else gate(y, "profile: y")
        return target.program(x, y, count=False), lambda: target(x, y)
    if not isinstance(target, Module):
        raise TypeError(f"profile: expected a Module or what compile_step() gave, got {type(target).__name__}")
    inputs = [gate(array, f"profile: input {i + 1}") for i, array in enumerate(arrays)]
    with no_grad():
        call = Call(target.forward, inputs, {}, (False,) * len(inputs), False, target._arena(), type(target).__name__)
    return call.program, lambda: call(inputs, inputs)
