"""Optimizers and schedulers: flat storage, groups, freezing, state dicts, PyTorch's numbers."""

import copy
import pickle

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim
from fastcnn.nn import Parameter
from fastcnn.optim import lr_scheduler
from fastcnn.optim.flat import ALIGN, FlatGroup

SHAPES = [(5, 3), (7,), (), (40, 2)]


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return [Parameter(rng.standard_normal(shape).astype(np.float32)) for shape in SHAPES]


def set_grads(params, seed):
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = rng.standard_normal(p.shape).astype(np.float32)


def test_flat_storage_is_aligned_padded_and_keeps_the_values():
    params = parameters()
    before = [p.numpy() for p in params]
    flat = FlatGroup(params)
    block = params[0]._block
    for p, value, entry in zip(params, before, flat.entries, strict=True):
        np.testing.assert_array_equal(p.numpy(), value)
        assert p.storage.ctypes.data % 64 == 0 and p._grad_slot.shape == p.shape and entry.size % ALIGN == 0
        assert np.shares_memory(p.storage, block.data) and np.shares_memory(p._grad_slot, block.grad)
        assert not p.exposed
    assert block.data.size == flat.size == sum(-(-p.size // 16) * 16 for p in params)
    assert np.count_nonzero(block.data) == sum(np.count_nonzero(v) for v in before)
    assert [len(run) for run in flat.runs([True, False, True, True])] == [1, 2]


def test_a_second_optimizer_leaves_the_parameters_where_they_are():
    params = parameters()
    optim.SGD(params, 0.1)
    where = [p.storage.ctypes.data for p in params]
    second = optim.Adam([{"params": params[2:]}, {"params": params[:2]}])
    assert [p.storage.ctypes.data for p in params] == where and len(second.update_steps()) == 2
    backwards = optim.SGD(params[::-1], 0.1)
    assert [p.storage.ctypes.data for p in params] == where and len(backwards.update_steps()) == 4
    set_grads(params, 0)
    before = [p.numpy() for p in params]
    backwards.step()
    for p, value in zip(params, before, strict=True):
        np.testing.assert_allclose(p.numpy(), value - 0.1 * p.grad, rtol=1e-6, atol=1e-7)


KINDS = {
    "sgd": ("SGD", dict(lr=0.1)),
    "momentum": ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.01)),
    "nesterov": ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True, maximize=True)),
    "adam": ("Adam", dict(lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    "amsgrad": ("Adam", dict(lr=0.01, amsgrad=True, maximize=True)),
    "adamw": ("AdamW", dict(lr=0.01)),
    "rmsprop": ("RMSprop", dict(lr=0.01, weight_decay=0.1)),
    "rmsprop centered": ("RMSprop", dict(lr=0.01, alpha=0.9, eps=1e-6, momentum=0.8, centered=True, maximize=True)),
    "adagrad": ("Adagrad", dict(lr=0.1)),
    "adagrad decay": ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.5, eps=1e-6)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_state_dicts_as_pytorch(kind):
    torch = pytest.importorskip("torch")
    name, options = KINDS[kind]
    ours = parameters()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ours]
    our_opt = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.02}], **options)
    their_opt = getattr(torch.optim, name)([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.02}], **options)

    def steps(first, last):
        for seed in range(first, last):
            set_grads(ours, seed)
            if seed % 3 == 1:  # no gradient this time: must stay, and must not count as a step
                ours[0].grad = None
            if seed % 4 == 2:
                ours[2].requires_grad = False
            for p, t in zip(ours, theirs, strict=True):
                t.grad = None if p.grad is None or not p.requires_grad else torch.tensor(p.grad)
            our_opt.step()
            their_opt.step()
            ours[2].requires_grad = True
            for p, t in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(p.numpy(), t.detach().numpy(), rtol=2e-5, atol=2e-6)

    steps(0, 8)
    state, expected = our_opt.state_dict(), their_opt.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [g["params"] for g in expected["param_groups"]]
    for index, items in expected["state"].items():
        for key, value in items.items():
            if value is not None:
                np.testing.assert_allclose(state["state"].get(index, {})[key], value.numpy(), rtol=1e-4, atol=1e-6)
    our_opt = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:]}], lr=1.0)  # all comes from the state
    our_opt.load_state_dict(expected)
    steps(8, 12)


def test_gradients_of_other_kinds_are_copied_and_wrong_shapes_refused():
    params = parameters()
    opt = optim.SGD(params, 0.5)
    before = params[0].numpy()
    params[0].grad = np.ones((5, 3), np.float64, order="F")
    opt.step()
    np.testing.assert_allclose(params[0].numpy(), before - 0.5, rtol=1e-6)
    params[0].grad = np.ones((3, 5), np.float32)
    with pytest.raises(ValueError, match=r"SGD: a parameter of shape \(5, 3\) has a gradient of shape \(3, 5\)"):
        opt.step()
    opt.zero_grad(set_to_none=False)
    assert not params[0].grad.any() and params[1].grad is None
    opt.zero_grad()
    assert params[0].grad is None and opt.step(lambda: 3.5) == 3.5


def test_a_step_is_seen_by_packed_weights():
    model = nn.Sequential(nn.Conv2d(16, 32, 3)).eval()
    opt = optim.SGD(model.parameters(), 0.1)
    x = np.random.default_rng(0).standard_normal((1, 16, 9, 9)).astype(np.float32)
    before = np.asarray(model(x)).copy()
    assert not any(p.exposed for p in model.parameters())
    for p in model.parameters():
        p.grad = np.ones(p.shape, np.float32)
    opt.step()
    again = nn.Sequential(nn.Conv2d(16, 32, 3)).eval()
    again.load_state_dict(model.state_dict())
    assert np.abs(model(x) - before).max() > 0.1
    np.testing.assert_array_equal(model(x), again(x))


def test_freezing_between_compiled_steps():
    torch = pytest.importorskip("torch")
    fc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in model.state_dict().items()})
    opt, their_opt = optim.Adam(model.parameters(), 0.01), torch.optim.Adam(theirs.parameters(), 0.01)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), opt)
    rng = np.random.default_rng(0)
    for i in range(12):  # Adam's counters of the two layers drift apart while the first is frozen
        model[0].requires_grad_(i % 4 < 2)
        theirs[0].requires_grad_(i % 4 < 2)
        x, y = rng.standard_normal((8 - i % 2, 4)).astype(np.float32), rng.integers(0, 3, 8 - i % 2)
        loss = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
        their_opt.zero_grad()
        loss.backward()
        their_opt.step()
        np.testing.assert_allclose(step(x, y), loss.item(), rtol=1e-4)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key], value.numpy(), rtol=1e-3, atol=1e-5)


def test_momentum_and_groups_may_change_between_compiled_steps():
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3, bias=False))
    opt = optim.SGD(model[0].parameters(), 0.1)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), opt)
    x, y = np.ones((2, 4), np.float32), np.array([0, 2])
    second = model[1].weight.numpy()
    step(x, y)
    assert (model[1].weight.numpy() == second).all() and not opt.state_dict()["state"]
    opt.param_groups[0]["momentum"] = 0.9
    step(x, y)
    assert "momentum_buffer" in opt.state_dict()["state"][0]
    opt.add_param_group({"params": model[1].parameters(), "lr": 0.5})
    step(x, y)
    assert (model[1].weight.numpy() != second).any() and opt.param_groups[1]["momentum"] == 0


def test_load_state_dict_checks_before_it_changes_anything():
    params = parameters()
    opt = optim.Adam(params, 0.1)
    set_grads(params, 0)
    opt.step()
    good = opt.state_dict()
    for wrong, text in [
        ({**good, "param_groups": good["param_groups"] * 2}, "2 param groups, this optimizer has 1"),
        (
            {**good, "param_groups": [{**good["param_groups"][0], "params": [0]}]},
            "1 parameters in the state dict and 4 here",
        ),
        ({**good, "param_groups": [{**good["param_groups"][0], "lr": -1.0}]}, "lr must be at least 0"),
        (
            {**good, "state": {**good["state"], 3: {**good["state"][3], "exp_avg": np.zeros(3)}}},
            "exp_avg of parameter 3",
        ),
    ]:
        with pytest.raises(ValueError, match=f"Adam: .*{text}"):
            opt.load_state_dict(wrong)
        assert opt.param_groups[0]["lr"] == 0.1 and opt.state_dict()["state"][3]["exp_avg"].any()


@pytest.mark.parametrize("make, error, text", [
    (lambda p: optim.SGD(p[0], 0.1), TypeError, "SGD: params must be an iterable"),
    (lambda p: optim.SGD([("name", p[0])], 0.1), TypeError, "not named_parameters"),
    (lambda p: optim.SGD([p[0], p[0]], 0.1), ValueError, "given more than once"),
    (lambda p: optim.SGD([{"params": [p[0]]}, {"params": [p[0]]}], 0.1), ValueError, "given more than once"),
    (lambda p: optim.SGD([{"lr": 1.0}], 0.1), TypeError, 'a dict with "params"'),
    (lambda p: optim.SGD([{"params": []}], 0.1), ValueError, "has no parameters"),
    (lambda p: optim.SGD(p, "0.1"), TypeError, "SGD: lr must be a number"),
    (lambda p: optim.SGD(p, 0.1, momentum=-1), ValueError, "SGD: momentum must be at least 0"),
    (lambda p: optim.SGD([{"params": p, "weight_decay": -1}], 0.1), ValueError, "SGD: weight_decay"),
    (lambda p: optim.Adam(p, betas=(0.9, 1.0)), ValueError, r"Adam: betas\[1\] must be in \[0, 1\)"),
    (lambda p: optim.Adam(p, betas=0.9), TypeError, "Adam: betas must be a pair"),
    (lambda p: optim.AdamW(p, eps=-1), ValueError, "AdamW: eps"),
    (lambda p: lr_scheduler.StepLR(optim.SGD(p, 0.1), 0), ValueError, "StepLR: step_size must be at least 1"),
    (lambda p: lr_scheduler.StepLR(p, 1), TypeError, "StepLR: optimizer must be an Optimizer"),
])  # fmt: skip
def test_arguments_are_checked(make, error, text):
    with pytest.raises(error, match=text):
        make(parameters())


@pytest.mark.parametrize(
    "name, kwargs", [("StepLR", dict(step_size=3, gamma=0.5)), ("CosineAnnealingLR", dict(T_max=6, eta_min=0.01))]
)
def test_schedules_as_pytorch(name, kwargs):
    torch = pytest.importorskip("torch")
    opt = optim.SGD([{"params": parameters()}, {"params": parameters(), "lr": 0.4}], 0.1)
    other = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.4}], 0.1)
    ours, theirs = getattr(lr_scheduler, name)(opt, **kwargs), getattr(torch.optim.lr_scheduler, name)(other, **kwargs)
    for _ in range(6):
        assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr()) == [g["lr"] for g in opt.param_groups]
        other.step()
        ours.step()
        theirs.step()


def test_a_schedule_goes_on_from_its_state():
    opt = optim.SGD(parameters(), 0.1)
    schedule = lr_scheduler.CosineAnnealingLR(opt, 10)
    for _ in range(4):
        schedule.step()
    state = schedule.state_dict()
    fresh = optim.SGD(parameters(), 0.1)
    again = lr_scheduler.CosineAnnealingLR(fresh, 10)
    again.load_state_dict(state)
    assert again.get_last_lr() == schedule.get_last_lr()
    resumed = optim.SGD(parameters(), 0.1)
    assert lr_scheduler.CosineAnnealingLR(resumed, 10, last_epoch=3).get_last_lr() == schedule.get_last_lr()
    with pytest.raises(ValueError, match="CosineAnnealingLR: expected"):
        again.load_state_dict({})


@pytest.mark.parametrize("kind", ["RMSprop", "Adagrad"])
def test_new_kinds_learn_in_a_compiled_step(kind):
    fc.manual_seed(0)
    model = models.mlp((3, 8, 2))
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    y = (x.sum(1) > 0).astype(np.int64)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), getattr(optim, kind)(model.parameters(), 0.05))
    losses = [step(x, y) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, float("inf")])
def test_clipping_as_pytorch(norm):
    torch = pytest.importorskip("torch")
    ours = parameters()
    set_grads(ours, 0)
    ours[1].grad = None
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ours]

    def compare():
        for p, t in zip(ours, theirs, strict=True):
            assert (p.grad is None) == (t.grad is None)
            if p.grad is not None:
                np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-5, atol=1e-7)

    for p, t in zip(ours, theirs, strict=True):
        t.grad = None if p.grad is None else torch.tensor(p.grad)
    for limit in (1e3, 0.5):
        total = nn.utils.clip_grad_norm_(ours, limit, norm)
        np.testing.assert_allclose(total, torch.nn.utils.clip_grad_norm_(theirs, limit, norm).item(), rtol=1e-5)
        compare()
    nn.utils.clip_grad_value_(ours, 0.01)
    torch.nn.utils.clip_grad_value_(theirs, 0.01)
    compare()
    with pytest.raises(ValueError, match="clip_grad_norm_: max_norm must be at least 0, got -1"):
        nn.utils.clip_grad_norm_(ours, -1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copied_model_and_optimizer_go_on_as_the_originals(copied):
    fc.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3))
    groups = [{"params": model[0].parameters(), "lr": 0.05}, {"params": model[2].parameters()}]
    optimizer = optim.Adam(groups, 0.01, weight_decay=0.01)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 300)).astype(np.float32), np.array([0, 1, 2, 1])

    def train(model, optimizer, compiled):
        if compiled:
            return fc.compile_step(model, nn.CrossEntropyLoss(), optimizer)(x, y)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    train(model, optimizer, False)
    copies = [copied((model, optimizer)) for _ in range(2)]
    for compiled, pair in zip((False, True), copies, strict=True):
        for _ in range(2):
            train(*pair, compiled)
    for p, q in zip(model.parameters(), copies[0][0].parameters(), strict=True):
        assert not np.shares_memory(p.storage, q.storage)
    for _ in range(2):
        train(model, optimizer, False)
    for other, _ in copies:
        for name, value in model.state_dict().items():
            np.testing.assert_allclose(other.state_dict()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
