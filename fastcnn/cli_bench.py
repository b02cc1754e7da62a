"""`fastcnn bench`: a quick look at this machine's speed; bench/compare.py is the real comparison."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from . import config, models, nn, optim
from .step import compile_step

BATCH = 64


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """The median time of a call, repeated for about `seconds`."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def bench(seconds: float = 1.0) -> int:
    """Print images/s of LeNet-5 in training and inference, PyTorch's beside if installed, and a line per kernel."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, BATCH)
    model = models.lenet5()
    step = compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.01, momentum=0.9))
    rows = [("training, batch 64", BATCH / median_seconds(partial(step, x, y), seconds))]
    program = step.program(x, y)
    model.eval()
    for batch in (BATCH, 1):
        part = x[:batch].copy()
        rows.append((f"inference, batch {batch}", batch / median_seconds(partial(model, part), seconds)))
    peers = _torch(x, y, seconds) if importlib.util.find_spec("torch") else []
    print(f"LeNet-5, images/s at {config.get_num_threads()} threads" + (", and PyTorch eager" if peers else ""))
    for i, (name, rate) in enumerate(rows):
        print(f"  {name:20s} {rate:12,.0f}" + (f" {peers[i]:12,.0f}   x {rate / peers[i]:.2f}" if peers else ""))
    timings = np.zeros(len(program.plan))
    best = np.full(len(program.plan), np.inf)
    io = (x, y, *program._new_outputs())
    for _ in range(50):
        program.plan.run(io, 0, len(program.plan), program.threads, timings)
        np.minimum(best, timings, out=best)
    print(program.describe(best))
    return 0


def _torch(x: np.ndarray, y: np.ndarray, seconds: float) -> list[float]:
    import torch
    from torch import nn as t

    torch.set_num_threads(config.get_num_threads())
    net = t.Sequential(
        t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.MaxPool2d(2), t.Conv2d(6, 16, 5), t.ReLU(), t.MaxPool2d(2),
        t.Flatten(), t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10),
    )  # fmt: skip
    sgd = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)

    def train() -> None:
        sgd.zero_grad()
        t.functional.cross_entropy(net(tx), ty).backward()
        sgd.step()

    rates = [BATCH / median_seconds(train, seconds)]
    with torch.inference_mode():
        for batch in (BATCH, 1):
            rates.append(batch / median_seconds(partial(net, tx[:batch]), seconds))
    return rates
