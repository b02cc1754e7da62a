"""What plans say of their memory, and how little that is."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, models, nn, optim
from fastcnn.graph import passes
from fastcnn.ops import linear

PEAK = """
import sys, numpy as np, fastcnn as fc
from fastcnn import models, nn, optim

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

fc.compile_step, models.alexnet, nn.Linear, optim.SGD
before = status("VmRSS:")
model = models.get_model(sys.argv[1])
batch = int(sys.argv[2])
x = np.ones((batch, 3, 224, 224), np.float32)
y = np.arange(batch)
step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.01, momentum=0.9))
said = step.program(x, y).peak_bytes
for _ in range(2):
    step(x, y)
print(said, status("VmHWM:") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name, batch", [("resnet18", 16), ("alexnet", 2), ("densenet121", 1), ("resnet18", 1)])
def test_the_stated_peak_is_the_measured_one_within_5_percent(name, batch, tmp_path):
    command = [sys.executable, "-c", PEAK, name, str(batch)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    said, measured = map(int, run.stdout.split())
    assert abs(said - measured) <= 0.05 * measured, (said / 1e6, measured / 1e6)


def huge_pages_asked_for() -> int:
    """Bytes of this process's memory for which the system was asked for them."""
    size = total = 0
    with open("/proc/self/smaps") as file:
        for line in file:
            name, *values = line.split()
            size = int(values[0]) << 10 if name == "Size:" else size
            total += size if name == "VmFlags:" and "hg" in values else 0
    return total


@pytest.mark.skipif(not os.path.exists("/sys/kernel/mm/transparent_hugepage"), reason="a kernel without huge pages")
def test_working_memory_asks_for_huge_pages():
    before = huge_pages_asked_for()
    arena = _core.Arena()
    arena.reserve(64 << 20)
    assert huge_pages_asked_for() - before == 64 << 20


def make(eager, monkeypatch):
    monkeypatch.setattr(passes, "RECOMPUTED_BYTES", 1 << 40 if eager else 0)
    fc.manual_seed(0)
    model = models.resnet18(num_classes=4)
    return model, fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1, momentum=0.9))


def test_normalised_values_computed_again_change_no_bit(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3, 64, 64)).astype(np.float32), np.array([1, 3, 0, 2])
    kept, again = make(True, monkeypatch), make(False, monkeypatch)
    sizes, states = [], []
    for eager, (model, step) in ((True, kept), (False, again)):
        monkeypatch.setattr(passes, "RECOMPUTED_BYTES", 1 << 40 if eager else 0)
        sizes.append(step.program(x, y).memory["arena"])
        losses = [step(x, y) for _ in range(3)]
        states.append({**model.state_dict(), "losses": np.array(losses)})
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)
    assert sizes[1] < 0.96 * sizes[0]
    assert int(states[1]["bn1.num_batches_tracked"]) == 3


def test_a_large_matrix_is_packed_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in [(9, 50), (131, 50), (131,)])

    def all_three():
        y, pullback = fc.vjp(lambda x, w, b: F.linear(x, w, b), x, w, b)
        return [y, *pullback(y), F.matmul(x, w.T.copy())]

    whole = all_three()
    monkeypatch.setattr(linear, "PACKED_FLOATS", 1000)
    fc.graph.autograd._programs = type(fc.graph.autograd._programs)(64)  # plans of the other size are kept no more
    for a, e in zip(all_three(), whole, strict=True):
        np.testing.assert_array_equal(a, e)


def test_describe_names_every_part():
    model = models.lenet5()
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
    x, y = np.zeros((64, 1, 28, 28), np.float32), np.zeros(64, np.int64)
    program = step.program(x, y)
    weights = 4 * sum(p.size for p in model.parameters())
    memory = program.memory
    assert weights <= memory["parameters"] <= weights + 64 * 20 and memory["gradients"] == weights
    assert 2 * weights <= memory["optimizer"] <= 2 * weights + 64 * 50
    assert memory["inputs and outputs"] == x.nbytes + y.nbytes + 4
    text = step.describe(x, y)
    assert f"peak memory {program.peak_bytes / 1e6:.1f} MB: arena" in text and "gradients" in text
    assert program.peak_bytes == sum(memory.values())
