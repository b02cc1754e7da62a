"""What the public functions accept, refuse and mean."""

import numpy as np
import pytest
import reference as ref

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim

X = np.random.default_rng(0).standard_normal((3, 4, 7, 6)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((5, 4, 3, 3)).astype(np.float32)


def unaligned(a):
    view = np.frombuffer(np.zeros(a.nbytes + 3, np.uint8)[3:].data, np.float32).reshape(a.shape)
    view[...] = a
    return view


def odd_strides(a):
    """The same values with a dimension of size 1 whose stride is nonsense."""
    return np.lib.stride_tricks.as_strided(a[None], (1, *a.shape), (-7, *a.strides))[0]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


FORMS = {
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "Fortran": np.asfortranarray,
    "negative strides": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "every second": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "read-only": read_only,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(">f4"),
    "list": lambda a: a.tolist(),
    "size-1 strides": odd_strides,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_any_float_array_gives_the_same(form):
    want = F.conv2d(X, W)
    np.testing.assert_array_equal(F.conv2d(FORMS[form](X), FORMS[form](W)), want)
    model = nn.Sequential(nn.Conv2d(4, 2, 3)).eval()
    np.testing.assert_array_equal(model(FORMS[form](X)), model(X))


def test_float16_is_widened():
    np.testing.assert_array_equal(F.relu(X.astype(np.float16)), np.maximum(X.astype(np.float16).astype(np.float32), 0))


@pytest.mark.parametrize("array", [X.astype(np.uint8), X.astype(np.int32), X > 0, X.astype(object), X.astype(complex)])
def test_other_arrays_are_refused_with_the_cure(array):
    with pytest.raises(TypeError, match="astype"):
        F.conv2d(array, W)
    with pytest.raises(TypeError, match="astype"):
        nn.Conv2d(4, 2, 3)(array)


def test_empty_arrays_are_refused():
    with pytest.raises(ValueError, match="empty"):
        F.relu(np.zeros((0, 3), np.float32))


@pytest.mark.parametrize("padding, pads", [
    (1, (1, 1, 1, 1)), ((2, 1), (2, 2, 1, 1)), ((0, 1, 2, 3), (0, 1, 2, 3)), ("valid", (0, 0, 0, 0)),
    ("same", (1, 1, 1, 1)),
])  # fmt: skip
def test_padding_forms(padding, pads):
    want = ref.conv2d(X.astype(float), W.astype(float), stride=(1, 1), pads=pads, dilation=(1, 1), groups=1)
    np.testing.assert_allclose(F.conv2d(X, W, padding=padding), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_is_tensorflows(stride, kernel):
    y = F.conv2d(X, np.ones((1, 4, kernel, kernel), np.float32), stride=stride, padding="same")
    assert y.shape[2:] == (-(-7 // stride), -(-6 // stride))
    total = max(0, kernel - 1 - (7 - 1) % stride)
    rows = max(0, -(total // 2)), min(7, kernel - total // 2)
    total = max(0, kernel - 1 - (6 - 1) % stride)
    cols = max(0, -(total // 2)), min(6, kernel - total // 2)
    np.testing.assert_allclose(
        y[:, 0, 0, 0], X[:, :, rows[0] : rows[1], cols[0] : cols[1]].sum((1, 2, 3)), rtol=1e-4, atol=1e-5
    )


ERRORS = [
    (lambda: F.conv2d(X, W[:, :3]), ValueError, r"conv2d: input has 4 channels .* expected 3"),
    (lambda: F.conv2d(X[0, 0], W), ValueError, r"conv2d: input must have 4 dimensions .*\(7, 6\)"),
    (lambda: F.conv2d(X, W, bias=np.ones(4, np.float32)), ValueError, r"conv2d: bias must have shape \(5,\), got \(4,\)"),
    (lambda: F.conv2d(X, W, stride=0), ValueError, r"conv2d: stride .*>= 1, got 0"),
    (lambda: F.conv2d(X, W, stride=1.5), TypeError, r"conv2d: stride"),
    (lambda: F.conv2d(X, W, padding="full"), ValueError, r'conv2d: padding must be "same"'),
    (lambda: F.conv2d(X, W, groups=3), ValueError, r"conv2d: groups=3"),
    (lambda: F.conv2d(X, np.ones((1, 4, 9, 9), np.float32)), ValueError, r"conv2d: input 7x6 .* smaller than the kernel 9x9"),
    (lambda: F.max_pool2d(X, 2, padding=2), ValueError, r"max_pool2d: padding must be at most half"),
    (lambda: F.avg_pool2d(X, 9), ValueError, r"avg_pool2d: input 7x6 is smaller"),
    (lambda: F.avg_pool2d(X, 2, divisor_override=0), ValueError, r"divisor_override"),
    (lambda: F.linear(X[0, 0], W[0, 0]), ValueError, r"linear: input has 6 features .* expected 3"),
    (lambda: F.softmax(X, 4), ValueError, r"softmax: dim must be an int in \[-4, 3\], got 4"),
    (lambda: F.cross_entropy(X[0, 0], np.zeros(3, int)), ValueError, r"target must have shape \(7,\)"),
    (lambda: F.cross_entropy(X[0, 0], X[0, 0, :, 0]), TypeError, r"class indices"),
    (lambda: F.cross_entropy(X[0, 0], np.zeros(7, int), reduction="avg"), ValueError, r'"mean", "sum" or "none", got \'avg\''),
    (lambda: F.dropout(X, 1.5), ValueError, r"dropout: p must be in \[0, 1\], got 1.5"),
    (lambda: F.reshape(X, (5, 5)), ValueError, r"reshape: cannot make"),
    (lambda: nn.Conv2d(4, 2, 3)(X[:, :3]), ValueError, r"3 channels"),
    (lambda: models.lenet5()(np.zeros((1, 1, 20, 20), np.float32)), ValueError, r"fc1: linear: input has 144 features"),
]  # fmt: skip


def test_integers_keep_their_values_in_other_shapes():
    x = np.arange(12).reshape(3, 4)
    for y in (F.flatten(x), F.reshape(x, (2, 6)), F.unsqueeze(x, 0), F.dropout(x, training=False), nn.Flatten()(x)):
        assert y.dtype == np.int64
        np.testing.assert_array_equal(np.ravel(y), np.arange(12))


@pytest.mark.parametrize("call, kind, message", ERRORS)
def test_errors_name_what_came_and_what_is_allowed(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("use", [bool, float, np.asarray, len, list, lambda s: s > 0])
def test_reading_a_traced_value_names_the_line(use):
    class Net(nn.Module):
        def forward(self, x):
            return F.relu(x) if use(x) is None else x

    with pytest.raises(TypeError, match=r"test_functional.py:\d+: a traced value"):
        Net()(X)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_pooling_of_special_values(value):
    x = np.full((2, 3, 4, 4), value, np.float32)
    y, pos = F.max_pool2d(x, 2, return_indices=True)
    assert pos.dtype == np.int64
    np.testing.assert_array_equal(y, np.full(y.shape, value, np.float32))
    assert pos.min() >= 0 and pos.max() < 16
    _, pullback = fc.vjp(lambda x: F.max_pool2d(x, 2), x)
    assert pullback(np.ones_like(y)).sum() == y.size


def test_nan_at_any_place_of_a_window_wins():
    for place in range(9):
        x = X[:, :, :3, :3].copy()
        x.reshape(3, 4, 9)[:, :, place] = np.nan
        assert np.isnan(F.max_pool2d(x, 3)).all() and np.isnan(F.relu(x)).sum() == 12


@pytest.mark.parametrize("k, stride, pad", [(3, 1, 1), (3, 2, 1), (2, 2, 0), (2, 1, 0), (5, 2, 2), (17, 1, 8)])
def test_gradient_of_pooling_by_bytes_is_the_one_by_positions(k, stride, pad):
    """Ties, infinities and NaN too; windows of more than 256 elements have no bytes."""
    x = np.random.default_rng(0).integers(-2, 3, (3, 9, 18, 17)).astype(np.float32)
    x[0, 0, 4:9] = -np.inf
    x[1, 1, 3, 5] = x[2, 2, 0, 0] = np.inf
    x[1, 2, 7, 7] = np.nan
    y, positions = F.max_pool2d(x, k, stride, pad, return_indices=True)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    want = np.zeros((3, 9, 18 * 17), np.float64)
    n, c = np.indices(y.shape)[:2]
    np.add.at(want, (n, c, positions), dy)
    got, pullback = fc.vjp(lambda x: F.max_pool2d(x, k, stride, pad), x)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_allclose(pullback(dy), want.reshape(x.shape), rtol=1e-5, atol=1e-5)


def test_arithmetic_and_reductions_of_traced_values():
    f = lambda a, b: F.mean((2 * a - b) * a / 4 + 1) - F.sum(-b)
    a, b = X, X[::-1].copy()
    value, (da, db) = fc.value_and_grad(f, argnums=(0, 1))(a, b)
    np.testing.assert_allclose(value, ((2 * a - b) * a / 4 + 1).mean(dtype=float) + b.sum(dtype=float), rtol=1e-5)
    np.testing.assert_allclose(da, (4 * a - b) / 4 / a.size, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(db, -a / 4 / a.size + 1, rtol=1e-5)


def test_pad_transpose_and_flatten():
    np.testing.assert_array_equal(
        F.pad(X, (1, 2, 0, 3), value=7), np.pad(X, ((0, 0), (0, 0), (0, 3), (1, 2)), constant_values=7)
    )
    np.testing.assert_array_equal(F.pad(X, (-1, 1)), np.pad(X, ((0, 0),) * 3 + ((0, 1),))[..., 1:])
    np.testing.assert_array_equal(F.transpose(X, 1, -1), X.swapaxes(1, 3))
    assert F.flatten(X, 1, 2).shape == (3, 28, 6) and F.reshape(X, (3, -1)).shape == (3, 168)
    _, pullback = fc.vjp(lambda x: F.transpose(F.pad(x, (1, 2, -1, 3)), 0, 2), X)
    dy = np.random.default_rng(2).standard_normal((9, 4, 3, 9)).astype(np.float32)
    np.testing.assert_array_equal(
        pullback(dy), np.pad(dy.swapaxes(0, 2)[:, :, :6, 1:7], ((0, 0), (0, 0), (1, 0), (0, 0)))
    )


def test_softmax_along_any_dimension():
    for dim in range(-4, 4):
        z = np.exp(X.astype(float) - X.max(dim, keepdims=True))
        np.testing.assert_allclose(F.softmax(X, dim), z / z.sum(dim, keepdims=True), rtol=1e-5)
        np.testing.assert_allclose(F.log_softmax(X, dim), np.log(z / z.sum(dim, keepdims=True)), rtol=1e-5, atol=1e-6)


def test_four_lines_equal_compile_step():
    def train(four_lines):
        fc.manual_seed(11)
        model, loss_fn = models.lenet5(), nn.CrossEntropyLoss()
        opt = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
        step, losses = fc.compile_step(model, loss_fn, opt), []
        for n in (8, 3, 20):
            rng = np.random.default_rng(n)
            x, y = rng.standard_normal((n, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, n)
            if four_lines:
                loss = loss_fn(model(x), y)
                loss.backward()
                opt.step()
                opt.zero_grad()
            else:
                loss = step(x, y)
            losses.append(float(loss))
        return losses, model.state_dict()

    (a, wa), (b, wb) = train(True), train(False)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    for name in wa:
        np.testing.assert_allclose(wa[name], wb[name], rtol=1e-5, atol=1e-7)


def test_tape_follows_arithmetic_and_adds_up():
    model = nn.Sequential(nn.Linear(6, 6))
    x = X[0, 0]
    y = model(x)
    loss = F.mean(y * 2 + model(y))
    loss.backward()
    weight, bias = model[0].weight.numpy().astype(float), model[0].bias.numpy().astype(float)
    y1 = x @ weight.T + bias
    dy2 = np.full(y1.shape, 1 / y1.size)
    dy1 = 2 * dy2 + dy2 @ weight
    np.testing.assert_allclose(model[0].weight.grad, dy1.T @ x + dy2.T @ y1, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model[0].bias.grad, dy1.sum(0) + dy2.sum(0), rtol=1e-5)


def test_no_history_is_an_error_not_a_silent_zero():
    model = nn.Sequential(nn.Linear(6, 6))
    with fc.no_grad():
        out = model(X[0, 0])
    assert type(out) is np.ndarray
    with pytest.raises(RuntimeError, match="only a scalar"):
        model(X[0, 0]).backward()
    with pytest.raises(RuntimeError, match="no history"):
        (np.exp(model(X[0, 0])) * 1).view(fc.Tensor).backward()


def test_outputs_are_fresh_arrays():
    model = nn.Sequential(nn.Linear(6, 6)).eval()
    a = model(X[0, 0])
    kept = a.copy()
    model(X[1, 1])
    np.testing.assert_array_equal(a, kept)


HISTORY = {
    "sum": lambda o: o.sum(),
    "sum axis": lambda o: (o.sum(axis=0) * o.sum(0, keepdims=True)).sum(),
    "np.sum": lambda o: np.sum(o) + np.sum(o, axis=1).mean(),
    "mean": lambda o: o.mean() + np.mean(o, axis=1).sum(),
    "power": lambda o: (o**2).mean() + ((o * o + 1.0) ** 1.5).sum(),
    "neg abs": lambda o: abs(-o).sum(),
    "slices": lambda o: (o[:2] * 3.0).sum() + o[0, 1] + o[..., None, 1:].sum(),
    "reshape": lambda o: (o.reshape(-1)[3:] * 2.0).sum() + o.reshape(1, -1).sum() + o.flatten()[0],
    "transpose": lambda o: (o.T[0] * 2.0).sum(),
    "exp log": lambda o: np.exp(o).sum() + np.log(o * o + 1.0).sum(),
    "sqrt tanh": lambda o: np.sqrt(o * o + 1.0).sum() + np.tanh(o).sum() + np.square(o).sum(),
}


@pytest.mark.parametrize("name", HISTORY)
def test_values_keep_their_history(name):
    """The gradient of a loss made of an output in NumPy's ways, against differences of plain NumPy in float64."""
    model = nn.Linear(3, 4)
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    HISTORY[name](model(x)).backward()
    weight, bias = (p.numpy().astype(np.float64) for p in (model.weight, model.bias))
    step, numeric = 1e-6, np.zeros((4, 3))
    for at in np.ndindex(4, 3):
        ends = []
        for sign in (1, -1):
            moved = weight.copy()
            moved[at] += sign * step
            ends.append(HISTORY[name](x @ moved.T + bias))
        numeric[at] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(model.weight.grad, numeric, rtol=1e-4, atol=1e-4)


def test_in_place_sums_of_losses():
    model, loss_fn = nn.Linear(3, 4), nn.CrossEntropyLoss()
    x, t = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32), np.arange(5) % 4
    total = 0.0
    for batch in x:
        total += loss_fn(model(batch), t)
    total /= 3
    total.backward()
    got, model.weight.grad = model.weight.grad.copy(), None
    for batch in x:
        loss_fn(model(batch), t).backward()
    np.testing.assert_allclose(got, model.weight.grad / 3, rtol=1e-5, atol=1e-6)


def test_a_frozen_critic_passes_gradients_on():
    g, d = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2), nn.Tanh()).eval()
    x, z = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.zeros((5, 2), np.float32)
    F.mse_loss(d(g(x)), z).backward()
    got, g.weight.grad = g.weight.grad, None
    F.mse_loss(d.train()(g(x)), z).backward()
    np.testing.assert_array_equal(got, g.weight.grad)


def test_other_functions_do_not_lose_the_history_in_silence():
    out = nn.Linear(3, 4)(np.ones((2, 3), np.float32))
    with pytest.raises(TypeError, match="sin of a value with a history is not recorded"):
        np.sin(out)
    assert (
        (out > 0).dtype == bool
        and np.isfinite(out).all()
        and out.argmax(1).shape == (2,)
        and np.sin(out.detach()).any()
    )


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda x: F.pad(x, (1.5, 1)), TypeError, "pad: pad must be ints, got 1.5"),
        (lambda x: F.pad(x, 1), TypeError, "pad: pad must be a sequence of ints"),
        (lambda x: F.conv2d(x, x, padding=(1.5, 2, 3, 1)), TypeError, "padding must be an int or 4 ints"),
        (lambda x: F.conv2d(x, x, padding=1.5), TypeError, "padding must be an int or a pair"),
        (lambda x: F.conv2d(x, x, groups=1.7), TypeError, "groups must be an int, got 1.7"),
        (lambda x: F.conv2d(x, x, stride=2**62), ValueError, "stride must be"),
        (lambda x: F.relu(None), TypeError, "relu: x must be an array of floats, got None"),
        (lambda x: fc.value_and_grad(lambda a: F.sum(a), argnums=1)(x), ValueError, "argnums must name some of the 1"),
        (
            lambda x: fc.vjp(lambda w: F.cross_entropy(x[0, 0], [0, 1], weight=w), x[0, 0, 0])[1](1.0),
            Exception,
            "class weights",
        ),
    ],
)
def test_arguments_of_the_wrong_kind(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.ones((1, 1, 2, 2), np.float32))


def test_dim_may_be_a_numpy_integer():
    assert F.softmax(np.ones((2, 4), np.float32), np.int64(1))[0, 0] == 0.25
