"""Gradient clipping and the L1 penalty: in the compiled step, in Trainer and in the loop; PyTorch's and float64's numbers."""

import functools
import math

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, nn, optim
from fastcnn.nn import Parameter
from fastcnn.nn.utils import CHUNK, chunk_table

rng = np.random.default_rng(0)
X = rng.standard_normal((16, 1, 12, 12)).astype(np.float32)
Y = rng.integers(0, 5, 16)
CLIPS = [dict(clip_grad_norm=0.3), dict(clip_grad_value=0.004), dict(clip_grad_norm=0.1, clip_grad_value=0.01)]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = fc.get_num_threads()
    fc.set_num_threads(request.param)
    yield request.param
    fc.set_num_threads(before)


def network():
    """Sizes that leave gaps in the flat block, and a layer of several chunks."""
    fc.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(700, 65), nn.Tanh(), nn.Linear(65, 5)
    )  # fmt: skip


def clip(parameters, clip_grad_norm=None, clip_grad_value=None, module=nn.utils):
    if clip_grad_value is not None:
        module.clip_grad_value_(parameters, clip_grad_value)
    if clip_grad_norm is not None:
        return module.clip_grad_norm_(parameters, clip_grad_norm)


def groups(model, lr=0.1):
    """Three kernel calls, not in the order of the parameters."""
    return [{"params": model[5].parameters()}, {"params": [*model[0].parameters(), model[3].bias], "lr": 2 * lr},
            {"params": model[3].weight}]  # fmt: skip


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, CHUNK, 3 * CHUNK + 5])
def test_sum_of_squares_on_every_isa_and_thread_count(size):
    x = np.random.default_rng(size).standard_normal(size + 3).astype(np.float32) * 1e12
    table = chunk_table([(3, size)])
    assert table[0, 0] == 3 and table[-1, 1] == size + 3 and (np.diff(table) <= CHUNK).all()
    expected = [np.square(x[a:b].astype(np.float64)).sum() for a, b in table]
    results, best = [], _core.isa()["name"]
    try:
        for name in [name for name, usable in _core.isas() if usable]:
            _core.select_isa(name)
            for threads in (1, 2, 3):
                sums = np.full(len(table), np.nan)
                _core.run_kernel("sum_squares", threads, x=x, chunks=table, sums=sums, count=len(table))
                results.append(sums)
    finally:
        _core.select_isa(best)
    np.testing.assert_allclose(results[0], expected, rtol=1e-13)
    assert all((sums == results[0]).all() for sums in results)


@pytest.mark.parametrize("limits", CLIPS, ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_step_clips_as_the_functions_do_to_the_last_bit(threads, limits, frozen):
    plain, clipped = network(), network()
    for model in (plain, clipped):
        model[3].requires_grad_(not frozen)
    fc.compile_step(plain, nn.CrossEntropyLoss(), optim.SGD(plain.parameters(), 0.0))(X, Y)
    loss = fc.compile_step(clipped, nn.CrossEntropyLoss(), optim.SGD(groups(clipped), 0.1), **limits)(X, Y)
    assert loss == pytest.approx(math.log(5), rel=0.2)
    before = plain.state_dict()
    trained = [p for p in plain.parameters() if p.requires_grad]
    for p in trained:
        p.grad = p._grad_slot
    norm = math.sqrt(sum(np.square(p.grad.astype(np.float64)).sum() for p in trained))
    found = clip(list(plain.parameters()), **limits)
    if "clip_grad_value" not in limits:
        assert found == pytest.approx(norm, rel=1e-12) and norm > limits["clip_grad_norm"]
    for (name, p), q in zip(plain.named_parameters(), clipped.parameters(), strict=True):
        if p.requires_grad:
            np.testing.assert_array_equal(p.grad, q._grad_slot, err_msg=name)
            lr = 0.2 if name in ("0.weight", "0.bias", "3.bias") else 0.1
            np.testing.assert_allclose(q.numpy(), before[name] - lr * p.grad, rtol=1e-6, atol=1e-8)
        else:
            np.testing.assert_array_equal(q.numpy(), before[name])
    after = math.sqrt(sum(np.square(p.grad.astype(np.float64)).sum() for p in trained))
    assert after < norm and after == pytest.approx(limits.get("clip_grad_norm", after), rel=1e-4)


def test_threads_do_not_show_and_nothing_asked_adds_no_step():
    before, results = fc.get_num_threads(), []
    try:
        for count in (1, 2):
            fc.set_num_threads(count)
            model = network()
            step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.Adam(groups(model, 0.01)), **CLIPS[2])
            results.append(([step(X, Y) for _ in range(4)], model.state_dict()))
    finally:
        fc.set_num_threads(before)
    assert results[0][0] == results[1][0] and results[0][0][-1] < results[0][0][0]
    for name, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][name])
    kernels = [step.kernel for step in fc.compile_step(model, F.cross_entropy, optim.SGD(model.parameters(), 0.1))
               .program(X, Y).steps]  # fmt: skip
    assert kernels[-1] == "sgd" and not {"sum_squares", "clip_norm"} & set(kernels)


@functools.cache
def weights_of_pytorch(limits):
    """After five clipped steps, the convolution frozen, a rate of its own for the larger layer."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 7, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                                torch.nn.Linear(700, 65), torch.nn.Tanh(), torch.nn.Linear(65, 5))  # fmt: skip
    model.load_state_dict({name: torch.tensor(value) for name, value in network().state_dict().items()})
    model[0].requires_grad_(False)
    split = [{"params": model[3].parameters(), "lr": 0.3}, {"params": model[5].parameters()}]
    opt = torch.optim.SGD(split, 0.1, momentum=0.9)
    for _ in range(5):
        opt.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(X)), torch.tensor(Y)).backward()
        clip(list(model.parameters()), **dict(limits), module=torch.nn.utils)
        opt.step()
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("way", ["step", "trainer", "loop"])
@pytest.mark.parametrize("limits", CLIPS, ids=str)
def test_training_as_pytorch(threads, way, limits):
    expected = weights_of_pytorch(tuple(limits.items()))
    ours, loss_fn = network(), nn.CrossEntropyLoss()
    ours[0].requires_grad_(False)
    opt = optim.SGD([{"params": ours[3].parameters(), "lr": 0.3}, {"params": ours[5].parameters()}], 0.1, momentum=0.9)
    if way == "trainer":
        trainer = fc.Trainer(ours, loss_fn, opt, **limits)
        trainer.fit((X, Y), epochs=5, batch_size=16, shuffle=False, progress=False)
    else:
        step = fc.compile_step(ours, loss_fn, opt, **limits)
        for _ in range(5):
            if way == "step":
                step(X, Y)
            else:
                opt.zero_grad()
                loss_fn(ours(X), Y).backward()
                clip(list(ours.parameters()), **limits)
                opt.step()
    for name, value in expected.items():
        np.testing.assert_allclose(ours.state_dict()[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_gradients_that_are_not_finite_as_pytorch(bad, norm_type):
    torch = pytest.importorskip("torch")
    params = [
        Parameter(np.zeros(3, np.float32)),
        Parameter(np.zeros((), np.float32)),
        Parameter(np.zeros(17, np.float32)),
    ]
    for p in params:
        p.grad = np.full(p.shape, 2, np.float32)
    params[2].grad[5] = bad
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    for p, t in zip(params, theirs, strict=True):
        t.grad = torch.tensor(p.grad)
    with pytest.raises(ValueError, match=r"the norm of the gradients is (nan|inf); nothing was clipped"):
        nn.utils.clip_grad_norm_(params, 1.0, norm_type, error_if_nonfinite=True)
    assert params[0].grad[0] == 2
    total = nn.utils.clip_grad_norm_(params, 1.0, norm_type)
    np.testing.assert_array_equal(total, torch.nn.utils.clip_grad_norm_(theirs, 1.0, norm_type).item())
    for p, t in zip(params, theirs, strict=True):
        np.testing.assert_array_equal(p.grad, t.grad.numpy())


def test_a_step_after_nan_starts_clean_once_the_weights_are_good_again():
    model = network()
    good = model.state_dict()
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1), clip_grad_norm=0.5)
    step(X * np.float32(np.nan), Y)
    assert all(np.isnan(value).all() for value in model.state_dict().values())
    model.load_state_dict(good)
    step(X, Y)
    twin = network()
    fc.compile_step(twin, nn.CrossEntropyLoss(), optim.SGD(twin.parameters(), 0.1), clip_grad_norm=0.5)(X, Y)
    for name, value in twin.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], value)
    block = model[0].weight._block
    assert np.isfinite(block.data).all() and np.isfinite(block.grad).all()


def test_huge_tiny_and_odd_gradients():
    params = [Parameter(np.zeros((4, 3), np.float32)), Parameter(np.zeros(5, np.float32))]
    params[0].grad = np.full((3, 4), 3e30, np.float64).T  # neither float32 nor C-contiguous
    params[1].grad = np.full(5, -3e30, np.float32)
    assert nn.utils.clip_grad_norm_(params, 2.0) == pytest.approx(3e30 * math.sqrt(17), rel=1e-6)
    for p in params:
        np.testing.assert_allclose(np.abs(p.grad), 2 / math.sqrt(17), rtol=1e-6)
    nn.utils.clip_grad_value_(params, 0.25)
    assert (params[0].grad == 0.25).all() and (params[1].grad == -0.25).all()
    assert nn.utils.clip_grad_norm_(params[1], 0) == pytest.approx(0.25 * math.sqrt(5)) and not params[1].grad.any()
    assert nn.utils.clip_grad_norm_([params[1]], 1.0) == 0 and nn.utils.clip_grad_norm_([], 1.0) == 0


@pytest.mark.parametrize("limits, error, text", [
    (dict(clip_grad_norm=-1), ValueError, "clip_grad_norm must be at least 0, got -1"),
    (dict(clip_grad_norm=math.nan), ValueError, "clip_grad_norm must be at least 0, got nan"),
    (dict(clip_grad_norm="1"), TypeError, "clip_grad_norm must be a number, got '1'"),
    (dict(clip_grad_value=-0.5), ValueError, "clip_grad_value must be at least 0, got -0.5"),
    (dict(clip_grad_value=True), TypeError, "clip_grad_value must be a number, got True"),
])  # fmt: skip
def test_limits_are_checked(limits, error, text):
    model = network()
    opt = optim.SGD(model.parameters(), 0.1)
    with pytest.raises(error, match=f"compile_step: {text}"):
        fc.compile_step(model, nn.CrossEntropyLoss(), opt, **limits)
    with pytest.raises(error, match=f"Trainer: {text}"):
        fc.Trainer(model, optimizer=opt, **limits)
    assert fc.Trainer(model, clip_grad_norm=np.float32(2), clip_grad_value=0)._clip == (2.0, 0.0)


# ---- the L1 penalty ------------------------------------------------------------------------------------------------
KINDS = {
    "sgd": ("SGD", dict(lr=0.1)),
    "momentum": ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.01, maximize=True)),
    "adam": ("Adam", dict(lr=0.01, weight_decay=0.1)),
    "adamw": ("AdamW", dict(lr=0.01, maximize=True)),
    "rmsprop": ("RMSprop", dict(lr=0.01, momentum=0.8, weight_decay=0.1)),
    "adagrad": ("Adagrad", dict(lr=0.1, weight_decay=0.1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_l1_is_a_sign_in_the_gradient_of_its_group(kind):
    torch = pytest.importorskip("torch")
    name, options = KINDS[kind]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in [(5, 7), (3,), (40,)]]
    values[0][0] = 0  # sign(0) = 0
    ours = [Parameter(value) for value in values]
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in values]
    rates = [0.03, 0.03, 0.0]
    split = [{"params": ours[:2], "l1_penalty": 0.03}, {"params": ours[2:]}]
    opt = getattr(optim, name)(split, **options)
    their_opt = getattr(torch.optim, name)(theirs, **options)
    drawn = np.random.default_rng(1)

    def steps(count):
        for _ in range(count):
            for p, t, l1 in zip(ours, theirs, rates, strict=True):
                p.grad = drawn.standard_normal(p.shape).astype(np.float32)
                p.grad.reshape(-1)[0] = 0
                sign = -1 if options.get("maximize") else 1  # towards zero then, too
                t.grad = torch.tensor(p.grad) + sign * l1 * torch.sign(t.detach())
            given = ours[0].grad.copy()
            opt.step()
            their_opt.step()
            np.testing.assert_array_equal(ours[0].grad, given)
            for p, t in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(p.numpy(), t.detach().numpy(), rtol=2e-5, atol=2e-6)

    steps(4)
    state = opt.state_dict()
    assert [group["l1_penalty"] for group in state["param_groups"]] == [0.03, 0.0]
    opt = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:]}], **options)
    opt.load_state_dict(state)
    assert opt.param_groups[0]["l1_penalty"] == 0.03
    steps(3)
    their_opt.load_state_dict(their_opt.state_dict())
    opt.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}, {"params": [2]}]})  # PyTorch's has no l1
    assert opt.param_groups[0]["l1_penalty"] == 0.03


@pytest.mark.parametrize("way", ["step", "trainer", "loop"])
def test_l1_is_the_gradient_of_a_term_of_the_loss(threads, way):
    """The same weights as with l1 * sum(|w|) over the group in the loss, its biases in a group without; then sparser."""
    model, other, l1 = network(), network(), 0.02
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    opt = optim.SGD([{"params": weights, "l1_penalty": l1}, {"params": biases}], 0.05, momentum=0.5)
    loss_fn = nn.CrossEntropyLoss()

    def penalised(out, y):
        term = F.sum(F.abs(other[0].weight)) + F.sum(F.abs(other[3].weight)) + F.sum(F.abs(other[5].weight))
        return F.cross_entropy(out, y) + l1 * term

    reference = fc.compile_step(other, penalised, optim.SGD(other.parameters(), 0.05, momentum=0.5))
    for _ in range(6):
        reference(X, Y)
    if way == "trainer":
        fc.Trainer(model, loss_fn, opt).fit((X, Y), epochs=6, batch_size=16, shuffle=False, progress=False)
    elif way == "step":
        step = fc.compile_step(model, loss_fn, opt)
        losses = [step(X, Y) for _ in range(6)]
        assert losses[0] == pytest.approx(float(loss_fn(network()(X), Y)), rel=1e-5)  # the penalty does not show
    else:
        for _ in range(6):
            opt.zero_grad()
            loss_fn(model(X), Y).backward()
            opt.step()
    for name, value in other.state_dict().items():
        found = model.state_dict()[name]
        off = np.abs(found - value) > 2e-6 + 2e-5 * np.abs(value)
        assert off.mean() < 1e-3, name  # a weight that crosses zero may do so a rounding earlier
    assert np.abs(model[3].weight.numpy()).mean() < 0.7 * np.abs(network()[3].weight.numpy()).mean()


def test_l1_may_change_between_compiled_steps():
    model = nn.Sequential(nn.Linear(4, 3, bias=False))
    opt = optim.SGD(model.parameters(), 1.0)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), opt, clip_grad_norm=0)  # only the penalty is left
    x, y = np.ones((2, 4), np.float32), np.array([0, 2])
    before = model[0].weight.numpy()
    step(x, y)
    np.testing.assert_array_equal(model[0].weight.numpy(), before)
    opt.param_groups[0]["l1_penalty"] = 0.001
    step(x, y)
    np.testing.assert_allclose(model[0].weight.numpy(), before - 0.001 * np.sign(before), rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_l1_is_checked(name):
    for value, error, text in [(-0.1, ValueError, "at least 0, got -0.1"), ("0.1", TypeError, "a number, got '0.1'")]:
        with pytest.raises(error, match=f"{name}: l1_penalty must be {text}"):
            getattr(optim, name)([Parameter(np.zeros(3, np.float32))], lr=0.1, l1_penalty=value)
        with pytest.raises(error, match=f"{name}: l1_penalty must be {text}"):
            group = {"params": [Parameter(np.zeros(3, np.float32))], "l1_penalty": value}
            getattr(optim, name)([group], lr=0.1)
