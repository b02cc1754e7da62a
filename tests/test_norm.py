"""Batch normalisation: every instruction set, layout and thread count against float64, its state, its fusions, PyTorch."""

import numpy as np
import pytest
import reference as ref
from test_ops import use_threads

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, nn, optim
from fastcnn.functional.call import operation
from fastcnn.functional.normalization import channel_norm
from fastcnn.graph import passes
from fastcnn.graph.plan import Program
from fastcnn.graph.trace import Symbol, topological
from fastcnn.ops import norm

EPS = np.finfo(np.float32).eps
ISAS = [name for name, supported in _core.isas() if supported]
SHAPES = [(2, 1, 1, 1), (3, 8, 4, 5), (17, 3, 5, 2), (2, 17, 7, 7), (9, 40, 1, 1), (1, 5, 30, 33), (33, 6)]


@pytest.fixture(params=ISAS)
def isa(request):
    _core.select_isa(request.param)
    yield request.param
    _core.select_isa(ISAS[-1])


def reference(x, weight, bias, dy, eps, moments=None):
    """(y, dx, dweight, dbias) in float64; `moments` are constants if given."""
    axes, per = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    mean, var = moments or (x.mean(axes), x.var(axes))
    hat = (x - mean.reshape(per)) / np.sqrt(var.reshape(per) + eps)
    y = hat * weight.reshape(per) + bias.reshape(per)
    dbias, dweight = dy.sum(axes), (dy * hat).sum(axes)
    g = dy * weight.reshape(per)
    if moments is None:
        g = g - g.mean(axes).reshape(per) - hat * (g * hat).mean(axes).reshape(per)
    return y, g / np.sqrt(var.reshape(per) + eps), dweight, dbias


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["lanes_c", "lanes_n"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(shape, layout, training, isa, monkeypatch):
    rng = np.random.default_rng(sum(shape))
    channels = shape[1]
    scale, offset = rng.uniform(0.5, 3, channels), rng.uniform(-20, 20, channels)
    per = (1, -1, *[1] * (len(shape) - 2))
    x = (rng.standard_normal(shape) * scale.reshape(per) + offset.reshape(per)).astype(np.float32)
    weight, bias = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    dy = rng.standard_normal(shape).astype(np.float32)
    given = [offset.astype(np.float32), (scale**2).astype(np.float32)]
    monkeypatch.setattr(passes, "choose_layout", lambda *_: layout)

    def run(threads):
        use_threads(monkeypatch, threads)
        symbols = [Symbol(a.shape) for a in (x, weight, bias, *given)]
        moments = (None, None) if training else symbols[3:]
        y = channel_norm(symbols[0], *moments, *symbols[1:3], 1e-5)[0]
        program = Program(symbols, [y], symbols[:3])
        program.arena.poison()
        past = {s.fields["past"] for s in program.steps if s.kernel in ("channel_affine", "batch_norm_bwd")}
        assert past == {int(norm.PAST_BYTES == 0)}
        arrays = [x, weight, bias, *given]
        (got,), token = program.forward_token(arrays)
        return [got, *program.backward(token, 0, arrays, [dy])]

    got = run(1)
    moments = None if training else tuple(g.astype(np.float64) for g in given)
    want = reference(*(a.astype(np.float64) for a in (x, weight, bias, dy)), 1e-5, moments)
    count = x.size // channels
    spread = 1 / np.sqrt(x.astype(np.float64).var((0, *range(2, x.ndim))).min() + 1e-5) if training else 2.0
    largest = max(1.0, np.abs(x).max() * spread) * max(1, np.abs(weight).max())
    for name, a, b in zip(("y", "dx", "dweight", "dbias"), got, want):
        terms = count if name in ("dweight", "dbias") else 1
        bound = 16 * EPS * largest * np.abs(dy).max() * (terms + 8) * max(1.0, spread if name == "dx" else 1.0)
        assert np.abs(a - b).max() <= bound, f"{name}: error {np.abs(a - b).max():.3g}, allowed {bound:.3g}"
    for threads in (2, 3, 7):
        monkeypatch.setattr(
            norm, "GROUP_BYTES", 5000 * threads
        )  # from a group for every block of channels to one in all
        monkeypatch.setattr(norm, "PAST_BYTES", (threads == 2) << 30)  # all past the caches but with two threads
        for a, b in zip(got, run(threads)):
            assert a.tobytes() == b.tobytes()


def test_large_mean_small_spread():
    """A mean of 1000 with a deviation of 1: what float32 sums of squares would lose."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((16, 3, 20, 20)) + 1000).astype(np.float32)
    y = F.batch_norm(x, None, None, training=True)
    x = x.astype(np.float64)
    want = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)
    assert np.abs(y - want).max() <= 4 * EPS * 1000


class Block(nn.Module):
    """conv, norm, ReLU; conv, norm, + shortcut, ReLU: every fusion of the normalising pass."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.short, self.bn3 = nn.Conv2d(3, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels * 16, 5)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return self.head(F.flatten(F.relu(y + self.bn3(self.short(x))), 1))


@pytest.mark.parametrize("n", [4, 24])
def test_fusions_change_no_number(n, monkeypatch):
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((n, 3, 4, 4)).astype(np.float32), rng.integers(0, 5, n)

    def train():
        fc.manual_seed(2)
        model = Block(12)
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
        losses = [float(step(x, t)) for _ in range(4)]
        kernels = [s.kernel for s in step.program(x, t).steps]
        return losses, model.state_dict(), kernels

    fused, state, kernels = train()
    assert "zip" not in kernels and "map" not in kernels
    with monkeypatch.context() as patch:
        patch.setattr(norm, "PAST_BYTES", 0)
        assert train()[0] == fused
    monkeypatch.setattr(passes, "run", lambda nodes, roots, *_: topological(roots))
    plain, plain_state, kernels = train()
    assert "zip" in kernels and "map" in kernels
    np.testing.assert_allclose(fused, plain, rtol=1e-5)
    for name, value in state.items():
        np.testing.assert_allclose(value, plain_state[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("n", [3, 16])
def test_a_pooling_between_does_not_cost_the_mask_a_pass(n, monkeypatch):
    """The ReLU's gradient comes from the pooling's, and its mask goes into the norm's own passes."""
    x, t = np.random.default_rng(1).standard_normal((n, 3, 9, 9)).astype(np.float32), np.arange(n) % 4

    def train(masked):
        fc.manual_seed(2)
        stem = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AvgPool2d(3, 2, padding=1)]
        model = nn.Sequential(*stem, nn.Conv2d(12, 4, 3), nn.Flatten(), nn.Linear(16, 4))
        step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
        assert ("map_bwd" not in [s.kernel for s in step.program(x, t).steps]) == masked
        return [float(step(x, t)) for _ in range(3)], model.state_dict()

    losses, state = train(True)
    monkeypatch.setattr(passes, "fuse_norm_mask", lambda *_: None)
    plain_losses, plain_state = train(False)
    np.testing.assert_allclose(losses, plain_losses, rtol=1e-5)
    for name, value in state.items():
        np.testing.assert_allclose(value, plain_state[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("side, past", [(590, 1), (560, 0)])
def test_large_results_are_written_past_the_caches(side, past, monkeypatch):
    """21.2 and 19.1 MiB of 16 channels."""
    monkeypatch.setattr(passes, "choose_layout", lambda *_: "lanes_c")
    symbols = [Symbol(shape) for shape in [(1, 16, side, side), (16,), (16,)]]
    y = channel_norm(symbols[0], None, None, *symbols[1:], 1e-5)[0]
    steps = Program(symbols, [y], symbols).steps
    assert {s.fields["past"] for s in steps if s.kernel in ("channel_affine", "batch_norm_bwd")} == {past}


@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_sums_in_the_store_of_convolutions(algorithm, isa, monkeypatch):
    """A block's shortcut forward, and backward the sum of its two gradients, masked: with strides and a frame too."""
    fc.set_conv_algorithm(algorithm)
    rng = np.random.default_rng(0)
    shapes = [(2, 9, 11, 10), (19, 9, 3, 3), (19, 9, 1, 1), (6, 19, 3, 3), (6, 19, 1, 1)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def block(x, a, b, c, d):
        y = F.relu(F.conv2d(x, a, padding=1) + F.conv2d(x, b))
        return F.conv2d(y, c, stride=2, padding=1) + F.conv2d(y, d, stride=2)

    fused, pullback = fc.vjp(block, *arrays)
    dy = rng.standard_normal(fused.shape).astype(np.float32)
    grads = pullback(dy)
    monkeypatch.setattr(passes, "run", lambda nodes, roots, *_: topological(roots))
    plain, pullback = fc.vjp(lambda *arrays: block(*arrays), *arrays)
    fc.set_conv_algorithm("auto")
    for one, other in zip([fused, *grads], [plain, *pullback(dy)]):
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


class _Folded(nn.Module):
    """Norms that follow a convolution with and without a bias, of groups, with a sum and ReLU, and a linear layer."""

    def __init__(self, affine):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 17, 3, padding=1), nn.BatchNorm2d(17, affine=affine)
        self.conv2, self.norm2 = nn.Conv2d(17, 17, 3, padding=1, bias=False), nn.BatchNorm2d(17, affine=affine)
        self.conv3, self.norm3 = nn.Conv2d(17, 34, 1, groups=17), nn.BatchNorm2d(34, affine=affine)
        self.linear, self.norm4 = nn.Linear(34, 9, bias=False), nn.BatchNorm1d(9, affine=affine)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)) + x)
        return self.norm4(self.linear(self.norm3(self.conv3(x)).mean((2, 3))))


def _evaluated(model, x):
    """The same in float64, batch norm as its formula."""

    def norm(x, layer):
        mean, var = (v.numpy().astype(np.float64) for v in (layer.running_mean, layer.running_var))
        ones = np.ones(len(mean))
        weight, bias = (layer.weight.numpy(), layer.bias.numpy()) if layer.affine else (ones, 0 * ones)
        per = (1, -1, *[1] * (x.ndim - 2))
        hat = (x - mean.reshape(per)) / np.sqrt(var.reshape(per) + layer.eps)
        return hat * weight.reshape(per) + bias.reshape(per)

    def conv(x, layer, groups=1):
        pad = (layer.weight.shape[2] - 1) // 2
        attrs = dict(stride=(1, 1), pads=(pad,) * 4, dilation=(1, 1), groups=groups)
        y = ref.conv2d(x, layer.weight.numpy().astype(np.float64), **attrs)
        return y if layer.bias is None else y + layer.bias.numpy().reshape(1, -1, 1, 1)

    x = np.maximum(norm(conv(x.astype(np.float64), model.conv1), model.norm1), 0)
    x = np.maximum(norm(conv(x, model.conv2), model.norm2) + x, 0)
    x = norm(conv(x, model.conv3, 17), model.norm3).mean((2, 3))
    return norm(x @ model.linear.weight.numpy().T.astype(np.float64), model.norm4)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("n", [3, 40])  # channels in the lanes, images in the lanes
def test_kept_moments_are_folded_into_the_weights(n, affine, isa):
    """Against float64, and every way to change what was folded shows in the next run."""
    rng = np.random.default_rng(n)
    fc.manual_seed(0)
    model, x = _Folded(affine), rng.standard_normal((n, 3, 6, 7)).astype(np.float32)
    layers = [m for m in model.modules() if hasattr(m, "running_var")]
    for layer in layers:
        state = {
            "running_mean": rng.standard_normal(layer.num_features),
            "running_var": rng.uniform(0.3, 4, layer.num_features),
        }
        layer.load_state_dict({**layer.state_dict(), **{k: v.astype(np.float32) for k, v in state.items()}})

    def check():
        model.eval()
        got, want = np.asarray(model(x)), _evaluated(model, x)
        assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)
        return got

    first = check()
    (call,) = model._programs._items.values()
    steps = call.program.steps
    assert "channel_affine" not in {s.kernel for s in steps}
    assert {s.kernel for s in steps if s.phase == "prepare"} >= {"fold_norm"}
    assert all(s.phase == "prepare" for s in steps if s.kernel == "fold_norm")
    model.train()
    model(x)  # moves the running statistics, and nothing else does
    second = check()
    layers[1].running_var[...] = layers[1].running_var.numpy() * 2
    third = check()
    model.conv2.weight[...] = model.conv2.weight.numpy() * 2
    fourth = check()
    assert not any(np.allclose(a, b, rtol=1e-3) for a, b in zip((first, second, third), (second, third, fourth)))


@pytest.mark.parametrize("n", [2, 16])
def test_statistics_moved_without_gradients_show_in_evaluation(n):
    """By the whole model, by one module of it, by another model that shares modules, by a profile."""
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), np.ones((n, 3, 9, 9), np.float32)
    x += np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    others = [model, model[1], nn.Sequential(model[0], model[1])]
    for moved in [*others, None]:
        model.eval()
        before = np.asarray(model(x))
        with fc.no_grad():
            model.train()
            if moved is None:
                fc.profile(model, 3 * x, runs=1)
            else:
                np.asarray(moved.train()(np.ones((n, 8, 7, 7), np.float32) if moved is model[1] else 3 * x))
        model.eval()
        after = np.asarray(model(x))
        assert np.abs(after - before).max() > 1e-3
        fresh = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        fresh.load_state_dict(model.state_dict())
        np.testing.assert_allclose(after, fresh(x), rtol=1e-5, atol=1e-5)


def test_a_training_loop_packs_weights_once_per_iteration(monkeypatch):
    """Its own norm's statistics, which move at each run, are nothing that its packed weights hold."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    x, opt, runs = np.ones((2, 3, 9, 9), np.float32), optim.SGD(model.parameters(), 0.1), []
    original = Program._run
    monkeypatch.setattr(
        Program, "_run", lambda p, io, first, last: (runs.append(first), original(p, io, first, last))[1]
    )
    for _ in range(3):
        y = model(x)
        y.backward(np.ones(y.shape, np.float32))
        opt.step()
        opt.zero_grad()
    assert runs.count(0) == 3 and len(runs) == 9  # prepare, forward, backward


def test_moments_that_are_given_are_not_folded():
    """A function's arrays may be others at the next call."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 5, 5)).astype(np.float32), rng.standard_normal((4, 3, 3, 3)).astype(np.float32)

    @operation("x", "w", "mean", "var")
    def both(x, w, mean, var):
        return F.batch_norm(F.conv2d(x, w), mean, var)

    for _ in range(2):
        mean, var = rng.standard_normal(4).astype(np.float32), rng.uniform(0.5, 2, 4).astype(np.float32)
        want = (np.asarray(F.conv2d(x, w)) - mean.reshape(1, -1, 1, 1)) / np.sqrt(var.reshape(1, -1, 1, 1) + 1e-5)
        np.testing.assert_allclose(both(x, w, mean, var), want, rtol=1e-4, atol=1e-5)


def test_running_statistics_move_once_per_forward_run():
    rng = np.random.default_rng(3)
    model = nn.Sequential(nn.BatchNorm2d(3))
    batches = [rng.standard_normal((4, 3, 5, 5)).astype(np.float32) * 3 + 1 for _ in range(3)]
    outputs = [model(b) for b in batches]
    for out in outputs:  # the runs that were overwritten are run again, which must leave no trace
        out.backward(np.ones(out.shape))
    mean, var = np.zeros(3), np.ones(3)
    for b in batches:
        mean = 0.9 * mean + 0.1 * b.mean((0, 2, 3), dtype=np.float64)
        var = 0.9 * var + 0.1 * b.astype(np.float64).var((0, 2, 3), ddof=1)
    state = model.state_dict()
    np.testing.assert_allclose(state["0.running_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["0.running_var"], var, rtol=1e-5)
    assert state["0.num_batches_tracked"] == 3 and state["0.num_batches_tracked"].dtype == np.int64
    model.eval()(batches[0])
    assert model.state_dict()["0.num_batches_tracked"] == 3


def test_momentum_is_read_at_run_time():
    layer = nn.BatchNorm1d(2, momentum=None)
    x = np.array([[1, 2], [3, 6], [5, 10]], np.float32)
    layer(x)
    layer(3 * x)
    np.testing.assert_allclose(layer.running_mean.numpy(), [6, 12], rtol=1e-6)  # the average of 3, 9 and of 6, 18
    layer.momentum = 1.0
    layer(x)
    np.testing.assert_allclose(layer.running_mean.numpy(), [3, 6], rtol=1e-6)
    assert "momentum=1.0" in repr(layer)


def test_function_moves_the_arrays_it_is_given():
    mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
    x = np.array([[1, 2], [3, 6]], np.float32)
    F.batch_norm(x, mean, var, training=True, momentum=0.5)
    np.testing.assert_allclose(mean, [1, 2])
    np.testing.assert_allclose(var, [1.5, 4.5])
    np.testing.assert_allclose(F.batch_norm(x, mean, var), (x - mean) / np.sqrt(var + 1e-5), rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nn.BatchNorm2d(4)(np.ones((1, 4, 1, 1))), "more than 1 value"),
        (lambda: nn.BatchNorm2d(4)(np.ones((2, 4, 3))), r"BatchNorm2d: input must have 4 dimensions.*\(2, 4, 3\)"),
        (lambda: nn.BatchNorm2d(4)(np.ones((2, 5, 3, 3))), "5 channels.*expected 4"),
        (lambda: nn.BatchNorm2d(0), "num_features must be at least 1, got 0"),
        (lambda: nn.BatchNorm2d(3, momentum=2), "momentum must be between 0 and 1, got 2"),
        (lambda: F.batch_norm(np.ones((2, 3, 4, 4)), None, None), "running_mean and running_var are needed"),
        (lambda: F.batch_norm(np.ones((2, 3)), np.zeros(4), np.ones(4)), r"3 channels.*running_mean has shape \(4,\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_torch_parity(options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    ours, theirs = nn.BatchNorm2d(6, **options), torch.nn.BatchNorm2d(6, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for _ in range(3):
        x, dy = (rng.standard_normal((5, 6, 4, 3)).astype(np.float32) for _ in range(2))
        leaf = torch.tensor(x, requires_grad=True)
        out = theirs(leaf)
        out.backward(torch.tensor(dy))
        y, pullback = fc.vjp(ours, x)
        np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pullback(dy), leaf.grad.numpy(), rtol=1e-4, atol=1e-5)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    ours.eval(), theirs.eval()
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})


@pytest.mark.parametrize("layer, shape", [("1d", (3, 4, 6)), ("2d", (5, 4, 3, 6)), ("3d", (2, 4, 3, 2, 3))])
@pytest.mark.parametrize("options", [{}, {"affine": True, "momentum": 0.3}, {"momentum": None}])
def test_instance_norm_running_statistics_as_torch(layer, shape, options):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    options = {"track_running_stats": True, **options}
    ours = getattr(nn, f"InstanceNorm{layer}")(4, **options)
    theirs = getattr(torch.nn, f"InstanceNorm{layer}")(4, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if ours.affine:
        values = rng.standard_normal((2, 4)).astype(np.float32)
        for p, q, v in zip(ours.parameters(), theirs.parameters(), values):
            p[...] = v
            q.data[...] = torch.tensor(v)
    for _ in range(3):
        x, dy = (rng.standard_normal(shape).astype(np.float32) * 2 + 1 for _ in range(2))
        leaf = torch.tensor(x, requires_grad=True)
        theirs.zero_grad()
        out = theirs(leaf)
        out.backward(torch.tensor(dy))
        y, pullback = fc.vjp(ours, x)
        np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pullback(dy), leaf.grad.numpy(), rtol=1e-4, atol=1e-4)
    if ours.affine:
        theirs(leaf)  # another run, for the gradients of the parameters
        ours(x).backward(dy)
        for p, q in zip(ours.parameters(), theirs.parameters()):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-4, atol=1e-4)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    ours.eval(), theirs.eval()
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert f"momentum={options.get('momentum', 0.1)}" in repr(ours)


def test_instance_norm_function_moves_the_arrays_it_is_given():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(7).standard_normal((3, 2, 5)).astype(np.float32)
    arrays = [np.zeros(2, np.float32), np.ones(2, np.float32)]
    tensors = [torch.zeros(2), torch.ones(2)]
    want = torch.nn.functional.instance_norm(torch.tensor(x), *tensors, None, None, True, 0.4, 1e-3)
    np.testing.assert_allclose(F.instance_norm(x, *arrays, None, None, True, 0.4, 1e-3), want.numpy(), atol=1e-5)
    for ours, theirs in zip(arrays, tensors):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="give running_mean and running_var both"):
        F.instance_norm(x, use_input_stats=False)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.InstanceNorm1d(2, track_running_stats=True)(x[:, :, :1])
