"""Gradient clipping as kernel calls of a plan, between the backward pass and the update."""

from __future__ import annotations

import numpy as np

from fastcnn.nn import check
from fastcnn.nn.utils import chunk_table, clamp_step
from fastcnn.optim.optimizer import Range, Step, Update


def check_clipping(name: str, norm: float | None, value: float | None) -> tuple[float | None, float | None]:
    """The two limits as floats. ValueError or TypeError unless each is None or a number of at least 0."""
    return (
        None if norm is None else check.number(name, "clip_grad_norm", norm, 0),
        None if value is None else check.number(name, "clip_grad_value", value, 0),
    )


def clip_steps(update: Update, norm: float | None, value: float | None) -> list[Step]:
    """What nn.utils.clip_grad_value_ and then clip_grad_norm_ do, on the gradients that `update` reads."""
    steps: list[Step] = []
    if value is not None:
        steps += [clamp_step(one.fields["g"], value) for one in update.ranges]
    if norm is not None:
        tables = [_chunks(one) for one in update.ranges]
        sums = np.zeros(sum(len(table) for table in tables))
        first, scaling = 0, []
        for one, table in zip(update.ranges, tables, strict=True):
            g, count = one.fields["g"], len(table)
            part = sums[first : first + count]
            first += count
            steps.append(("sum_squares", dict(x=g, chunks=table, sums=part, count=count)))
            fields = dict(g=g, chunks=table, sums=sums, count=count, total=len(sums), max_norm=norm)
            scaling.append(("clip_norm", fields))
        steps += scaling
    return steps


def _chunks(one: Range) -> np.ndarray:
    """The chunks of a range's parameters, without the gaps between them: those must stay zero, even next to NaN."""
    start = one.entries[0].start
    return chunk_table([(entry.start - start, entry.param.size) for entry in one.entries])
