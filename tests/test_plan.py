"""Plans: memory, caches, fusions, what may change between runs, threads and processes."""

import copy
import itertools
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, config, models, nn, optim
from fastcnn.graph import passes
from fastcnn.graph.lower import Ref, _root
from fastcnn.graph.trace import topological
from fastcnn.ops import geometry

RNG = np.random.default_rng(0)


def batch(n):
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, n)


def step_program(n, model=None):
    model = model or models.lenet5()
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.01, momentum=0.9))
    return step.program(*batch(n))


@pytest.mark.parametrize("n", [1, 3, 64])
def test_no_two_live_values_share_bytes(n):
    program = step_program(n)
    lives = {}
    for index, step in enumerate(program.steps):
        for value in step.fields.values():
            if isinstance(value, Ref) and _root(value.storage).base is None:
                root = _root(value.storage)
                first = lives.get(id(root), (index, index, root))[0]
                lives[id(root)] = (first, index, root)
    values = list(lives.values())
    reused = 0
    for i, (f1, l1, a) in enumerate(values):
        assert a.offset + a.nbytes <= program.plan.arena_bytes
        for f2, l2, b in values[i + 1 :]:
            overlap = a.offset < b.offset + b.nbytes and b.offset < a.offset + a.nbytes
            assert not (overlap and f1 <= l2 and f2 <= l1)
            reused += overlap
    assert reused, "dead values' bytes are used again"


def test_poisoned_arena_changes_nothing():
    program = step_program(19)
    x, y = batch(19)
    program.arena.poison()
    first = program.step([x, y])[0]
    assert np.isfinite(first)


@pytest.mark.parametrize("n", [2, 33])
def test_fusions_change_no_number(n, monkeypatch):
    def losses():
        fc.manual_seed(7)
        model = models.lenet5()
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
        return [step(*batch(n)) for _ in range(4)], [p.numpy() for p in model.parameters()]

    fused, weights = losses()
    monkeypatch.setattr(passes, "run", lambda nodes, roots, *_: topological(roots))
    plain, plain_weights = losses()
    np.testing.assert_allclose(fused, plain, rtol=1e-6)
    for a, b in zip(weights, plain_weights):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_fusions_happen():
    names = [(s.kernel, s.fields.get("act"), s.fields.get("mask") is not None) for s in step_program(64).steps]
    assert ("conv_lanes_n", 1, False) in names and ("max_pool_bwd", None, True) in names
    assert not any(kernel in ("map", "map_bwd") for kernel, _, _ in names)


def test_eager_mode_gives_the_same_and_names_the_first_nan(monkeypatch):
    fc.manual_seed(3)
    model = models.lenet5().eval()
    x = batch(3)[0]
    want = model(x)
    monkeypatch.setenv("FASTCNN_EAGER", "1")
    other = models.lenet5().eval()
    other.load_state_dict(model.state_dict())
    np.testing.assert_allclose(other(x), want, rtol=1e-5, atol=1e-6)
    weight = other.conv2.weight.numpy()
    weight[0, 0, 0, 0] = np.nan
    other.conv2.weight[...] = weight
    with pytest.raises(FloatingPointError, match="conv2"):
        other(x)


@pytest.mark.parametrize("images, group", [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_eager_mode_sees_a_nan_of_any_group(images, group, monkeypatch):
    """Of groups that steps of their own write."""
    monkeypatch.setenv("FASTCNN_EAGER", "1")
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    monkeypatch.setattr(geometry, "ALONE_WORK", 0)
    x, w = np.ones((images, 64, 8, 8), np.float32), np.ones((64, 32, 1, 1), np.float32)
    x[:, 32 * group : 32 * group + 2], w[32 * group : 32 * group + 32, 1] = 3e38, -1
    with pytest.raises(FloatingPointError, match="conv2d"):
        fc.vjp(lambda x: F.conv2d(x * 10, w, groups=2), x)


def test_eager_mode_runs_every_kind_of_step(monkeypatch):
    """Steps with channel counts named as outputs are, gradients of strided convolutions, written part by part."""
    x = np.random.default_rng(0).standard_normal((20, 3, 9, 9)).astype(np.float32)
    grads = []
    for eager in ("0", "1"):
        monkeypatch.setenv("FASTCNN_EAGER", eager)
        fc.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1))
        model(x)
        model._arena().poison()
        y = model(x)
        y.backward(np.ones(y.shape, np.float32))
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_describe_names_every_step():
    program = step_program(64)
    text = program.describe()
    assert all(step.kernel in text for step in program.steps) and "conv1" in text and "arena" in text


@pytest.mark.parametrize("n", [1, 64])
def test_inference_sees_every_change_of_weights(n):
    model = models.lenet5().eval()
    x = batch(n)[0]
    seen = [model(x)]
    model.conv1.weight[...] = model.conv1.weight.numpy() * 2
    seen.append(model(x))
    held = model.conv1.weight.data
    held *= 0.5
    seen.append(model(x))
    held[...] = 0
    seen.append(model(x))
    model.load_state_dict({k: v + 0.1 for k, v in model.state_dict().items()})
    seen.append(model(x))
    model.train()
    fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.5))(*batch(8))
    seen.append(model.eval()(x))
    for a, b in zip(seen, seen[1:]):
        assert not np.array_equal(a, b)


def test_modes_of_submodules_are_part_of_the_plan():
    model = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5))
    x = np.ones((3, 6), np.float32)
    assert (np.asarray(model(x)) == 0).any()
    model[1].eval()
    assert not (np.asarray(model(x)) == 0).any()


def evaluated():
    """A model in evaluation that has seen an array, the array, and what came out: its next call takes a short way."""
    model, x = nn.Sequential(nn.Linear(4, 50), nn.Dropout(0.5)).eval(), RNG.standard_normal((2, 4)).astype(np.float32)
    first = model(x)
    assert model._last_program is not None
    return model, x, first


def test_a_second_call_looks_at_its_argument():
    model, x, first = evaluated()
    for same in (x, x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        np.testing.assert_array_equal(model(same), first)
    np.testing.assert_array_equal(model(x[:1]), first[:1])
    with pytest.raises(ValueError, match="input"):
        model(x[:, :3].copy())
    with pytest.raises(ValueError, match="empty"):
        model(x[:0])
    flatten = nn.Flatten().eval()
    for dtype in (np.int64, np.float32, np.int64, np.float32):
        assert flatten(np.ones((2, 3, 4), dtype)).dtype == dtype
    history = nn.Linear(4, 4)(x)
    assert model(history)._tape is not None, "a value with a history keeps it"


class Scaled(nn.Module):
    """forward() with whatever reaches it."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.weight = scale, nn.Parameter(np.ones((2, 4), np.float32))

    def forward(self, x, *more, times=1.0):
        if x.dtype != "float32":
            return self.weight * 5.0
        for other in more:
            x = x + other
        return x * (self.scale * times)


def test_a_second_call_has_the_arguments_of_the_first():
    x, model = np.ones((2, 4), np.float32), Scaled().eval()
    calls = [((x,), {}, 1), ((x,), {"times": 3.0}, 3), ((x, x), {}, 2), ((x.astype(np.int64),), {}, 5)]
    for first, second in itertools.permutations(calls, 2):
        for args, kwargs, expected in (first, first, second, second):
            np.testing.assert_array_equal(model(*args, **kwargs), np.full((2, 4), expected, np.float32))


def test_a_second_call_sees_what_changed():
    model, x, first = evaluated()
    model.train()
    assert model(x)._tape is not None and (np.asarray(model(x)) == 0).any(), "in training values are dropped"
    np.testing.assert_array_equal(model.eval()(x), first)
    model[1].train()
    assert not np.array_equal(model(x), first), "a part that trains drops values"
    model[1].eval()
    threads = fc.get_num_threads()
    for count in (threads + 1, threads):
        fc.set_num_threads(count)
        np.testing.assert_array_equal(model(x), first)
        assert model._last_program[-1].threads == count
    copied = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter[...] = 2 * parameter.numpy()
    np.testing.assert_array_equal(model(x), 2 * first)
    np.testing.assert_array_equal(copied(x), first)
    model[0] = nn.Linear(4, 5)
    assert model(x).shape == (2, 5)
    scaled = Scaled().eval()
    for scale in (1.0, 2.0, 3.0):
        scaled.scale = scale
        np.testing.assert_array_equal(scaled(x), np.float32(scale) * x)


def test_a_second_call_sees_weights_that_the_user_holds():
    model, x = nn.Sequential(nn.Conv2d(4, 16, 3, bias=False)).eval(), np.ones((1, 4, 8, 8), np.float32)
    held = model[0].weight.data
    for _ in range(2):
        first = model(x)
        held *= 2
        np.testing.assert_array_equal(model(x), 2 * first)


def test_a_class_may_begin_in_evaluation():
    class Head(nn.Linear):
        training = False

    model, x = Head(4, 4), np.ones((2, 4), np.float32)
    assert not hasattr(model(x), "_tape")
    assert model.train()(x)._tape is not None


def test_a_call_without_gradients_leaves_no_trace():
    model, x = nn.Linear(4, 4), np.ones((2, 4), np.float32)
    with fc.no_grad():
        assert not hasattr(model(x), "_tape")
    assert model(x)._tape is not None


def test_a_forward_that_changes_its_module_is_traced_again():
    class Halving(Scaled):
        def forward(self, x, *more, times=1.0):
            self.scale /= 2
            return x * self.scale

    model, x = Halving().eval(), np.ones((2, 4), np.float32)
    assert [model(x)[0, 0] for _ in range(3)] == [0.5, 0.25, 0.125]


def test_a_change_from_another_thread_during_the_first_call_is_seen():
    entered, changed = threading.Event(), threading.Event()

    class Waiting(Scaled):
        def forward(self, x, *more, times=1.0):
            y = x * self.scale
            entered.set()
            assert changed.wait(30)
            return y

    model, x = Waiting().eval(), np.ones((2, 4), np.float32)
    other = threading.Thread(target=lambda: model(x))
    other.start()
    assert entered.wait(30)
    model.scale = 7.0
    changed.set()
    other.join()
    for _ in range(2):
        np.testing.assert_array_equal(model(x), 7 * x)


def test_cache_is_bounded():
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
    for size in range(4, 80):
        model(np.zeros((1, 1, size, 5), np.float32))
    assert len(model._programs) <= model._programs.size


def test_same_bits_at_any_thread_count():
    results = []
    for threads in (1, 2, 3, 7):
        fc.set_num_threads(threads)
        fc.manual_seed(5)
        model = models.lenet5()
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
        losses = [step(*batch(40)) for _ in range(3)]
        results.append((losses, [p.numpy().tobytes() for p in model.parameters()]))
    fc.set_num_threads(config.default_threads()[0])
    assert all(r == results[0] for r in results)


def test_two_python_threads_on_one_model():
    model = models.lenet5().eval()
    inputs = [batch(n)[0] for n in (1, 9, 30)]
    want = [model(x) for x in inputs]
    wrong = []

    def work():
        for _ in range(30):
            for x, y in zip(inputs, want):
                if not np.array_equal(model(x), y):
                    wrong.append(x.shape)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_backward_after_another_run_overwrote_the_arena():
    model = models.lenet5()
    loss_fn = nn.CrossEntropyLoss()
    (x1, y1), (x2, y2) = batch(8), batch(12)
    loss_fn(model(x1), y1).backward()
    want = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    first = loss_fn(model(x1), y1)
    second = loss_fn(model(x2), y2)
    first.backward()
    for p, g in zip(model.parameters(), want):
        np.testing.assert_array_equal(p.grad, g)
    second.backward()
    assert not np.array_equal(next(model.parameters()).grad, want[0])


def _child(queue):
    model = models.lenet5()
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.01))
    queue.put((step(*batch(64)), _core.forked()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_trains_on_one_thread():
    fc.set_num_threads(2)
    step_program(64).step(list(batch(64)))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    try:
        loss, forked = queue.get(timeout=20)
    finally:
        child.kill()
        child.join()
    assert np.isfinite(loss) and forked


def test_threads_sleep_after_a_run():
    fc.set_num_threads(2)
    program = step_program(64)
    program.step(list(batch(64)))
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_out_of_memory_is_an_error_and_leaves_the_model_whole():
    model = models.lenet5().eval()
    x = batch(5)[0]
    want, failed = model(x), 0
    for nth in range(1, 4):
        fresh = models.lenet5().eval()
        fresh.load_state_dict(model.state_dict())
        _core.fail_alloc(nth)
        try:
            fresh(x)
        except MemoryError:
            failed += 1
        finally:
            _core.fail_alloc(0)
        np.testing.assert_array_equal(fresh(x), want)
    assert failed


def test_denormals_of_numpy_survive_a_run():
    models.lenet5().eval()(batch(64)[0])
    tiny = np.float32(1e-40)
    assert tiny * np.float32(0.5) > 0


@pytest.mark.parametrize("side", [46341, 2**31 - 1, 2**31, 2**40])
def test_sizes_that_overflow_are_refused(side):
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol

    x = Symbol((1, 4, side, side))
    y = F.conv2d(x, np.ones((4, 4, 1, 1), np.float32))
    with pytest.raises((MemoryError, ValueError), match="memory"):
        Program([x], [y])


def test_a_plain_step_of_the_optimizer_reaches_packed_weights():
    model = models.lenet5()
    opt = optim.SGD(model.parameters(), 0.5)
    x = batch(1)[0]
    before = model.eval()(x)
    assert not any(p.exposed for p in model.parameters()), "initialisation hands out no array"
    for p in model.parameters():
        p.grad = np.ones(p.shape, np.float32)
    opt.step()
    assert not np.array_equal(model(x), before)


class _Branches(nn.Module):
    """Concatenations of what convolutions give: nested, of one value twice, in two places, cut again."""

    def __init__(self, widths):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(5, width, 3, padding=1, bias=False) for width in widths])
        self.norm = nn.BatchNorm2d(widths[1])
        self.inner = nn.Conv2d(sum(widths[:2]), 16, 3, padding=1)
        total = 2 * sum(widths[:2]) + widths[0] + widths[2] + 16
        self.last = nn.Conv2d(total, 7, 3, padding=1)

    def forward(self, x):
        a, b, c = (conv(x) for conv in self.convs)
        b = F.relu(self.norm(b))
        pair = F.cat([a, b], 1)
        wide = self.inner(pair)
        every = F.cat([a, pair, F.max_pool2d(c, 3, 1, 1), wide, F.narrow(pair, 1, 0, pair.shape[1])], 1)
        return self.last(F.relu(every)), F.narrow(every, 1, a.shape[1], b.shape[1] + a.shape[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("widths", [(16, 32, 48), (16, 32, 21), (16, 9, 16), (3, 8, 16)], ids=str)
def test_parts_of_a_concatenation_are_written_in_place(widths, training, monkeypatch):
    x = np.random.default_rng(0).standard_normal((2, 5, 10, 11)).astype(np.float32)
    results, copies = [], []
    for eager in ("1", "0"):
        monkeypatch.setenv("FASTCNN_EAGER", eager)
        fc.manual_seed(1)
        model = _Branches(widths).train(training)
        model(x)
        model._arena().poison()
        y, cut = model(x)
        (call,) = model._programs._items.values()
        copies.append([step.kernel for step in call.program.steps if step.phase == "forward"].count("copy"))
        if training:
            (F.sum(y * y) + F.sum(cut)).backward()
        grads = [p.grad for p in model.parameters()] if training else []
        results.append([np.asarray(y), np.asarray(cut), *grads])
    for one, other in zip(*results):
        assert np.linalg.norm(one - other) <= 2e-5 * np.linalg.norm(other)
    if widths == (16, 32, 48):
        assert copies[1] < copies[0]


class Interrupted:
    """A plan whose runs are interrupted when they are done."""

    def __init__(self, plan):
        self.plan = plan

    def __len__(self):
        return len(self.plan)

    def run(self, *args):
        self.plan.run(*args)
        raise KeyboardInterrupt


def test_an_interrupted_step_is_seen_by_inference():
    fc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 3))
    x, y = np.ones((2, 3, 6, 6), np.float32), np.array([0, 2])
    step = fc.compile_step(model.eval(), nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.5))
    program = step.program(x, y, count=False)
    program.plan = Interrupted(program.plan)
    model(x)
    with pytest.raises(KeyboardInterrupt):
        step(x, y)
    got = model(x)  # before another module counts as a change
    fresh = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 3)).eval()
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(got, fresh(x))


def test_a_write_that_fails_halfway_is_seen_by_inference():
    layer = nn.Conv2d(8, 8, 3).eval()
    x = np.ones((1, 8, 5, 5), np.float32)
    layer(x)
    with pytest.raises(ValueError):
        layer.weight[...] = np.array(["1"] * 575 + ["x"], object).reshape(8, 8, 3, 3)
    got = layer(x)
    fresh = nn.Conv2d(8, 8, 3).eval()
    fresh.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(got, fresh(x))


def test_a_gradient_after_an_interrupted_run_is_of_its_own_run():
    fc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    x, other = (np.random.default_rng(i).standard_normal((2, 3, 9, 9)).astype(np.float32) for i in range(2))
    model(x).sum().backward()
    want = model[0].weight.grad.copy()
    out = model(x)
    program = model._programs._latest[1].program
    plan, program.plan = program.plan, Interrupted(program.plan)
    with pytest.raises(KeyboardInterrupt):
        model(other)
    program.plan = plan
    model[0].weight.grad = None
    out.sum().backward()
    np.testing.assert_array_equal(model[0].weight.grad, want)


def test_who_looks_while_training_changes_looks_again(monkeypatch):
    model = nn.Sequential(nn.Dropout(0.5))
    model._plan_settings()
    count = config.settings_changed

    def count_and_look():
        count()
        model._plan_settings()

    monkeypatch.setattr(config, "settings_changed", count_and_look)
    model[0].training = False
    monkeypatch.undo()
    modes = model._plan_settings()[1][0]
    assert modes == (True, False)


def test_programs_of_an_earlier_structure_are_dropped():
    model, x = nn.Conv2d(3, 16, 3).eval(), np.ones((1, 3, 8, 8), np.float32)
    for epoch in range(4):
        model.epoch = epoch
        model(x)
        model(np.ones((2, 3, 8, 8), np.float32))
    assert len(model._programs) == 2


def test_a_step_sees_the_mode_of_its_loss():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.loss = nn.Dropout(0.5), nn.MSELoss()

        def forward(self, out, y):
            return self.loss(self.drop(out), y)

    fc.manual_seed(0)
    model, loss = nn.Linear(4, 64), Dropped()
    step = fc.compile_step(model, loss, optim.SGD(model.parameters(), 0.0))
    x, y = np.ones((3, 4), np.float32), np.zeros((3, 64), np.float32)
    assert step(x, y) != step(x, y)
    loss.eval()
    assert step(x, y) == step(x, y)
