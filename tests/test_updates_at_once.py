"""A training step updates a large parameter as soon as its gradient is known: the bits are those of an update at the end."""

import numpy as np
import pytest
from test_ops import isa  # noqa: F401 - a fixture

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn, optim
from fastcnn.graph.lower import Ref, _root
from fastcnn.graph.plan import PREPARING
from fastcnn.optim import flat

OPTIMIZERS = [
    lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    lambda p: optim.Adam(p, 0.01, l1_penalty=1e-4),
    lambda p: optim.AdamW(p, 0.01),
    lambda p: optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    lambda p: optim.Adagrad(p, 0.01),
]


class Tied(nn.Module):
    """Convolutions and linear layers, one weight used three times, two parameters that get the same gradient."""

    def __init__(self, images=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 9, 3, padding=1)
        self.wide = nn.Conv2d(9, 17, 3, padding=1)
        self.fc1 = nn.Linear(17 * 6 * 5, 33)
        self.square = nn.Linear(33, 33)
        self.shift = nn.Parameter(np.zeros((images, 33), np.float32))
        self.other_shift = nn.Parameter(np.ones((images, 33), np.float32))
        self.unused = nn.Linear(40, 40)
        self.left, self.right = (nn.Parameter(np.full(s, 0.1, np.float32)) for s in ((33, 7), (7, 33)))
        self.fc2 = nn.Linear(33, 5)

    def forward(self, x):
        x = F.relu(self.wide(F.relu(self.conv(x))))
        x = F.relu(self.fc1(F.flatten(x, 1)))
        x = F.relu(self.square(F.relu(self.square(x)))) + self.shift + self.other_shift
        x = F.linear(x, self.square.weight) + F.linear(x, F.matmul(self.left, self.right))
        return self.fc2(x)


def losses_and_state(make, threads, images=4, **clip):
    fc.manual_seed(0)
    fc.set_num_threads(threads)
    model = Tied(images)
    optimizer = make(model.parameters())
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optimizer, **clip)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((images, 3, 6, 5)).astype(np.float32), np.arange(images) % 5
    losses = [step(x, y) for _ in range(4)]
    return losses, model.state_dict(), optimizer.state_dict(), step.program(x, y)


def changed_at_once(program):
    return [step for step in program.steps if step.changes is not None]


@pytest.fixture(autouse=True)
def threads():
    before = fc.get_num_threads()
    yield
    fc.set_num_threads(before)


@pytest.mark.parametrize("images", [4, 67, 520])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_same_bits_as_updates_at_the_end(make, images, isa, monkeypatch):  # noqa: F811
    monkeypatch.setattr(flat, "LARGE", 1 << 40)
    losses, weights, state, program = losses_and_state(make, 1, images)
    assert not changed_at_once(program) and program.memory["gradients"] > 0
    monkeypatch.setattr(flat, "LARGE", 100)
    for threads in (1, 2, 3):
        again, these, its, program = losses_and_state(make, threads, images)
        assert len(changed_at_once(program)) >= 6
        assert program.memory["gradients"] < 4 * 400
        assert again == losses
        for name, value in weights.items():
            np.testing.assert_array_equal(these[name], value, err_msg=name)
        for index, arrays in state["state"].items():
            for name, value in arrays.items():
                np.testing.assert_array_equal(its["state"][index][name], value, err_msg=f"{index} {name}")


@pytest.mark.parametrize(
    "algorithm, images",
    [("direct", 2), ("winograd", 2), ("winograd", 33)],  # channels in the lanes, images in the lanes
)
def test_weights_are_packed_in_every_step_also_where_all_are_updated_at_once(algorithm, images, monkeypatch):
    """No update is left for the end: that alone must not make packed weights pass for those of many runs."""
    fc.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((images, 16, 6, 5)).astype(np.float32), np.arange(images) % 5
    results = []
    for large in (1 << 40, 0):
        monkeypatch.setattr(flat, "LARGE", large)
        fc.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(480, 40), nn.Linear(40, 5)
        )
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1, momentum=0.9))
        results.append([step(x, y) for _ in range(4)] + [p.numpy() for p in model.parameters()])
        steps = step.program(x, y).steps
        assert any(s.phase == "update" for s in steps) == (large > 0)
    for at_the_end, at_once in zip(*results, strict=True):
        np.testing.assert_array_equal(at_once, at_the_end)
    assert results[0][3] < 0.9 * results[0][0]
    assert {s.phase for s in steps if s.kernel in PREPARING} <= {"forward", "backward"}


def test_nothing_reads_a_parameter_after_its_change(monkeypatch):
    monkeypatch.setattr(flat, "LARGE", 100)
    *_, program = losses_and_state(OPTIMIZERS[0], 2)
    for first, step in enumerate(program.steps):
        if step.changes is not None:
            for later in program.steps[first:]:
                refs = [_root(v.storage) for v in later.fields.values() if isinstance(v, Ref)]
                assert later.changes is step.changes or not any(root is step.changes for root in refs)


def test_clipping_by_norm_wants_all_gradients_first(monkeypatch):
    results = []
    for large in (1 << 40, 100):
        monkeypatch.setattr(flat, "LARGE", large)
        *found, program = losses_and_state(OPTIMIZERS[0], 2, clip_grad_norm=0.1)
        assert not changed_at_once(program)
        results.append(found)
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)


def test_the_loop_of_four_lines_goes_on_where_a_step_ended(monkeypatch):
    monkeypatch.setattr(flat, "LARGE", 100)
    states = []
    for compiled in (0, 1, 2):
        fc.manual_seed(0)
        model = Tied()
        optimizer = OPTIMIZERS[0](model.parameters())
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optimizer)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((4, 3, 6, 5)).astype(np.float32), np.arange(4)
        for turn in range(2):
            if turn < compiled:
                step(x, y)
                assert all(p.grad is None for p in model.parameters())
            else:
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        states.append(model.state_dict())
    for state in states[1:]:
        for name, value in states[0].items():
            np.testing.assert_allclose(state[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
