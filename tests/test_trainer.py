"""Trainer's odd arguments, each with an error that names it; samples without a class."""

import os
import subprocess
import sys

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn
from fastcnn.metrics import accuracy


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 3, 12)


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"epochs": "3"}, TypeError, r"Trainer.fit: epochs must be an integer, got '3' \(str\)"),
    ({"epochs": 2.0}, TypeError, "epochs must be an integer"),
    ({"epochs": True}, TypeError, "epochs must be an integer"),
    ({"epochs": -1}, ValueError, "epochs must be at least 1"),
    ({"epochs": 2, "initial_epoch": "1"}, TypeError, "initial_epoch must be an integer"),
    ({"epochs": 2, "initial_epoch": 2}, ValueError, r"initial_epoch in \[0, epochs\)"),
    ({"batch_size": "8"}, TypeError, "Trainer.fit: batch_size must be an integer"),
    ({"batch_size": 0}, ValueError, "Trainer.fit: batch_size must be at least 1"),
    ({"callbacks": fc.EarlyStopping()}, TypeError, "callbacks must be a list of Callbacks, got one EarlyStopping"),
    ({"callbacks": fc.EarlyStopping}, TypeError, "callbacks must be a list of Callbacks, got the class EarlyStopping"),
    ({"callbacks": "early"}, TypeError, "callbacks must be a list of Callbacks, got one str"),
    ({"callbacks": 3}, TypeError, "callbacks must be a list of Callbacks, got one int"),
    ({"callbacks": [fc.EarlyStopping]}, TypeError, "must hold instances, got the class EarlyStopping; call it"),
    ({"callbacks": [print]}, TypeError, "must be instances of fastcnn.Callback, got builtin_function_or_method"),
])  # fmt: skip
def test_fit_refuses(data, arguments, error, message):
    model = nn.Linear(4, 3)
    before = model.weight.numpy()
    with pytest.raises(error, match=message):
        fc.Trainer(model).fit(data, progress=False, **arguments)
    np.testing.assert_array_equal(model.weight.numpy(), before)


def test_callbacks_may_be_any_iterable_or_none(data):
    trainer = fc.Trainer(nn.Linear(4, 3))
    for callbacks in (None, (), iter([fc.Callback()]), [fc.Callback()]):
        assert len(trainer.fit(data, epochs=np.int64(2), callbacks=callbacks, progress=False)["loss"]) == 2


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_what_is_no_data(data, method):
    x, y = data
    call = getattr(fc.Trainer(nn.Linear(4, 3)), method)
    for given, message in [
        (x, "be a Dataset, a pair .* got ndarray"), ("mnist", "got str"), ({"x": x, "y": y}, "got dict"),
        ((x, y, y), "got tuple of 3 items"), ([x, x, x], "got list of 3 items"), ([], "got list of 0 items"), (7, "got int"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=f"Trainer: {'train' if method == 'fit' else 'evaluate'} must .*{message}"):
            call(given)
    with pytest.raises(TypeError, match=r"Dataset: images must be uint8 or floats, not int64.*astype"):
        call(([[0, 1, 0, 1], [1, 0, 1, 0]], [0, 1]))
    with pytest.raises(ValueError, match="images and labels differ in length"):
        call((x, y[:3]))


def test_lists_are_data(data):
    x, y = data
    trainer = fc.Trainer(nn.Linear(4, 3))
    expected = trainer.evaluate(data)
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    for given in ((x.tolist(), y.tolist()), [x.tolist(), y.tolist()], [x, y], batches, tuple(batches), [data]):
        assert trainer.evaluate(given) == pytest.approx(expected)


def test_predict_refuses(data):
    x, y = data
    trainer = fc.Trainer(nn.Linear(4, 3))
    np.testing.assert_array_equal(trainer.predict(x.astype(float).tolist()), trainer.predict(x))
    np.testing.assert_array_equal(trainer.predict(fc.Dataset(x, y), batch_size=5), trainer.predict(x, batch_size=5))
    for given, error, message in [
        ((x, y), TypeError, r"Trainer.predict: x must be an array \[N, ...\] or a Dataset, got a pair \(x, y\)"),
        (fc.DataLoader((x, y), 4), TypeError, "Trainer.predict: x must be .* got a DataLoader; give the images"),
        ([[1.0, 2.0], [1.0]], TypeError, "Trainer.predict: x cannot be read as an array, got list"),
        (x[:0], ValueError, "x must hold at least one sample"), (3.0, ValueError, "x must hold at least one sample"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            trainer.predict(given)
    for size, error in [("5", TypeError), (2.5, TypeError), (0, ValueError)]:
        with pytest.raises(error, match=r"Trainer.predict: batch_size"):
            trainer.predict(x, batch_size=size)


def test_save_refuses_what_is_no_module(tmp_path):
    path = tmp_path / "model.safetensors"
    for model, message in [
        (nn.Linear, "model must be a fastcnn Module, got type"), ({}, "got dict"),
        (str(path), r"got str \(the model comes before the path\)"), (fc.Trainer(nn.Linear(1, 2)), "got Trainer"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match="^save: .*" + message):
            fc.save(model, path)
    with pytest.raises(TypeError, match=r"^save_checkpoint: model must be a fastcnn Module"):
        fc.io.save_checkpoint(path, {})
    assert not path.exists()


@pytest.mark.parametrize(("value", "expected"), [
    ("3", "3"), (" 1024 ", "1024"), ("", "7"), *[(v, None) for v in ("0", "-1", "two", "1.5", "1025", "9" * 30, "²", "2,2")],
])  # fmt: skip
def test_number_of_threads_from_the_environment(value, expected, tmp_path):
    env = {**os.environ, "FASTCNN_NUM_THREADS": value, "OMP_NUM_THREADS": "7,2", "PYTHONIOENCODING": "utf-8"}
    code = "import fastcnn as fc; print(fc.get_num_threads())"
    command = [sys.executable, "-c", code]  # not in the source tree, which need not be built
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    if expected:
        assert done.stdout.strip() == expected, done.stderr
    else:
        assert f"ValueError: FASTCNN_NUM_THREADS must be an integer from 1 to 1024, got {value!r}" in done.stderr


# ---- samples without a class -----------------------------------------------------------------------------------------
class Fixed(nn.Module):
    """Gives its input back."""

    def forward(self, x):
        return x + 0.0


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(ignore_index=2), F.cross_entropy])
@pytest.mark.parametrize("batch_size", [1, 3, 12])
def test_accuracy_leaves_out_samples_without_a_class(loss, batch_size):
    ignored = getattr(loss, "ignore_index", -100)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 4)).astype(np.float32), rng.integers(0, 2, 12)
    y[[0, 1, 2, 7]] = ignored  # a whole batch of 3 among them
    trainer = fc.Trainer(Fixed(), loss, fc.optim.SGD(nn.Linear(1, 1).parameters(), 0.1), metrics=["accuracy", "top2"])
    found = trainer.evaluate((x, y), batch_size=batch_size)
    kept = y != ignored
    order = x[kept].argsort(axis=1)
    assert found["accuracy"] == pytest.approx((order[:, -1] == y[kept]).mean())
    assert found["top2"] == pytest.approx((order[:, -2:] == y[kept, None]).any(axis=1).mean())
    assert np.isnan(trainer.evaluate((x[:3], y[:3]), batch_size=batch_size)["accuracy"])


@pytest.mark.parametrize("ignored", [-100, 255])
def test_accuracy_of_pixels_leaves_out_those_without_a_class(ignored):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3, 4, 2, 5)).astype(np.float32), rng.integers(0, 4, (3, 2, 5))
    y[0, :, :3], y[1] = ignored, ignored
    trainer = fc.Trainer(
        Fixed(), nn.CrossEntropyLoss(ignore_index=ignored), fc.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    )
    right = x.argmax(axis=1) == y
    expected = (right[0][:, 3:].mean() + right[2].mean()) / 2  # the second image has no class at all
    assert trainer.evaluate((x, y), batch_size=2)["accuracy"] == pytest.approx(expected)
    assert accuracy(x, np.where(y == ignored, -100, y)) == pytest.approx(2 * expected)
    if ignored == 255:  # as masks are stored
        assert trainer.evaluate([(x, y.astype(np.uint8))])["accuracy"] == pytest.approx(expected)
