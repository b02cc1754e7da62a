"""Layers, modules, optimizers and the trainer."""

import copy
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import models, nn, optim
from fastcnn.callbacks import Callback, EarlyStopping


def test_module_registers_and_names_as_pytorch():
    model = models.lenet5()
    assert list(model.state_dict()) == [
        f"{n}.{k}" for n in ("conv1", "conv2", "fc1", "fc2", "fc3") for k in ("weight", "bias")
    ]
    assert sum(p.size for p in model.parameters()) == 61706
    assert [n for n, _ in model.named_children()][:2] == ["conv1", "relu1"]
    assert model.eval().training is False and model.conv1.training is False and model.train().conv1.training


def test_load_state_dict_is_all_or_nothing():
    model = models.lenet5()
    before = model.state_dict()
    wrong = {**before, "fc3.bias": np.zeros(11), "conv1.bias": before["conv1.bias"] + 1, "new": np.zeros(1)}
    with pytest.raises(ValueError, match=r"unexpected: new; fc3.bias: expected shape \(10,\), got \(11,\)"):
        model.load_state_dict(wrong)
    np.testing.assert_array_equal(model.conv1.bias, before["conv1.bias"])
    found = model.load_state_dict({"conv1.bias": before["conv1.bias"] + 1, "new": np.zeros(1)}, strict=False)
    assert found.unexpected_keys == ["new"] and "fc1.weight" in found.missing_keys


@pytest.mark.parametrize("make", [
    lambda: nn.Conv2d(0, 4, 3), lambda: nn.Conv2d(3, 4, 0), lambda: nn.Conv2d(3, 4, 3, groups=2), lambda: nn.Conv2d(3, 4, 3, stride=0),
    lambda: nn.Conv2d(3, 4, 3, padding="full"), lambda: nn.Linear(-1, 2), lambda: nn.MaxPool2d(0), lambda: nn.Dropout(2),
    lambda: optim.SGD(models.lenet5().parameters(), -1), lambda: optim.Adam(models.lenet5().parameters(), betas=(1.1, 0.9)),
    lambda: optim.SGD(models.lenet5().parameters(), 0.1, nesterov=True), lambda: optim.SGD([], 0.1),
])  # fmt: skip
def test_constructors_check_their_arguments(make):
    with pytest.raises(ValueError, match=r"\w+: \w+"):
        make()


def test_initialisation_is_pytorchs_distribution():
    layer = nn.Linear(400, 300)
    bound = 1 / np.sqrt(400)
    weight = layer.weight.numpy()
    assert np.abs(weight).max() <= bound and abs(weight.std() - bound / np.sqrt(3)) < 0.02 * bound
    fc.manual_seed(3)
    a = nn.Conv2d(3, 8, 3).weight.numpy()
    fc.manual_seed(3)
    np.testing.assert_array_equal(nn.Conv2d(3, 8, 3).weight.numpy(), a)


def test_frozen_parameters_stay():
    model = models.lenet5()
    model.conv1.requires_grad_(False)
    before = model.state_dict()
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.AdamW(model.parameters(), 0.1))
    rng = np.random.default_rng(0)
    step(rng.standard_normal((4, 1, 28, 28)), rng.integers(0, 10, 4))
    after = model.state_dict()
    assert (after["conv1.weight"] == before["conv1.weight"]).all() and (
        after["conv2.weight"] != before["conv2.weight"]
    ).any()


def test_learning_rate_is_read_at_every_step():
    model = nn.Sequential(nn.Linear(3, 2))
    opt = optim.SGD([{"params": [model[0].weight], "lr": 0.5}, {"params": [model[0].bias]}], 0.1)
    schedule = optim.lr_scheduler.StepLR(opt, 1, 0.0)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), opt)
    x, y = np.ones((2, 3), np.float32), np.array([0, 1])
    before = model.state_dict()
    step(x[:1], y[:1])
    first = model.state_dict()
    np.testing.assert_allclose(
        (first["0.weight"] - before["0.weight"])[:, 0], 5 * (first["0.bias"] - before["0.bias"]), rtol=1e-4
    )
    schedule.step()
    step(x[:1], y[:1])
    np.testing.assert_array_equal(model.state_dict()["0.weight"], first["0.weight"])


class Watch(Callback):
    def __init__(self):
        self.seen = []

    def on_epoch_end(self, trainer, epoch, logs):
        self.seen.append((epoch, sorted(logs)))


def test_trainer_fits_evaluates_and_predicts():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((70, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    fc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    trainer, watch = fc.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), 0.02)), Watch()
    history = trainer.fit(
        (x, y), validation=(x, y), epochs=12, batch_size=16, callbacks=[watch], seed=1, progress=False
    )
    assert len(history["loss"]) == 12 and history["val_accuracy"][-1] > 0.9 and len(watch.seen) == 12
    score = trainer.evaluate((x, y))
    logits = trainer.predict(x)
    assert logits.shape == (70, 2) and abs((logits.argmax(1) == y).mean() - score["accuracy"]) < 1e-6
    stop = EarlyStopping("val_loss", patience=2)
    assert len(trainer.fit((x, y), validation=(x, 1 - y), epochs=50, callbacks=[stop], progress=False)["loss"]) < 50


def test_training_is_repeatable():
    def run():
        fc.manual_seed(5)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((50, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 50)
        model = models.lenet5()
        history = fc.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1)).fit(
            (x, y), epochs=2, batch_size=16, seed=9, progress=False
        )
        return history["loss"]

    assert run() == run()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_share_nothing(copied):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    x = np.random.default_rng(0).standard_normal((20, 1, 6, 6)).astype(np.float32)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
    step(x, np.arange(20) % 3)
    other = copied(model)
    want = model.eval()(x)
    np.testing.assert_array_equal(other.eval()(x), want)
    again = fc.compile_step(other.train(), nn.CrossEntropyLoss(), optim.SGD(other.parameters(), 0.1))
    again(x, np.arange(20) % 3)
    np.testing.assert_array_equal(model(x), want)
    assert not np.array_equal(other.eval()(x), want)
    step(x, np.arange(20) % 3)  # the first model's step still moves the first model
    assert not np.array_equal(model(x), want)


def test_names_with_an_underscore_are_registered():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self._fc, self._scale = nn.Linear(4, 2), 1.0

        def forward(self, x):
            return self._fc(x) * self._scale

    net, x = Net().eval(), np.ones((1, 4), np.float32)
    assert list(net.state_dict()) == ["_fc.weight", "_fc.bias"]
    before = net(x)
    net._scale = 3.0
    np.testing.assert_allclose(net(x), 3 * before, rtol=1e-6)
    assert list(nn.Sequential(OrderedDict(_a=nn.Linear(4, 2), b=nn.ReLU())).state_dict()) == ["_a.weight", "_a.bias"]


def test_a_parameter_is_not_replaced_by_an_array():
    layer = nn.Linear(4, 2)
    with pytest.raises(TypeError, match="weight is a Parameter"):
        layer.weight = np.zeros((2, 4))
    with pytest.raises(ValueError, match=r"data must have shape \(2, 4\), got \(1,\)"):
        layer.weight.data = np.zeros(1)
    layer.bias = None
    layer.weight = nn.Parameter(np.ones((2, 4)))
    np.testing.assert_array_equal(layer(np.ones((1, 4), np.float32)), [[4, 4]])


def test_arrays_by_name():
    x, t = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32), np.arange(5) % 3
    model, loss = nn.Linear(4, 3), nn.CrossEntropyLoss()
    np.testing.assert_array_equal(model(x=x), model(x))
    assert float(loss(input=model(x), target=t)) == float(loss(model(x), target=t)) == float(loss(model(x), t))


def test_accuracy_is_of_classes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 1, 8, 8)).astype(np.float32)
    pixels = fc.Trainer(nn.Conv2d(1, 3, 1)).evaluate((x, rng.integers(0, 3, (10, 8, 8))))
    assert 0 <= pixels["accuracy"] <= 1
    flat, target = x.reshape(10, 64), rng.standard_normal((10, 2)).astype(np.float32)
    assert list(fc.Trainer(nn.Linear(64, 2), nn.MSELoss()).evaluate((flat, target))) == ["loss"]
    with pytest.raises(ValueError, match="accuracy: targets must be class indices"):
        fc.Trainer(nn.Linear(64, 2), nn.MSELoss(), metrics=("accuracy",)).evaluate((flat, target))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_fork_while_another_thread_runs(tmp_path):
    """The child must not wait for a lock that a thread of the parent held."""
    code = """
import os, sys, threading
import numpy as np
import fastcnn as fc
from fastcnn import models, nn, optim
model = models.lenet5()
x, y = np.zeros((256, 1, 28, 28), np.float32), np.zeros(256, int)
step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
step(x, y)
stop = threading.Event()
thread = threading.Thread(target=lambda: [step(x, y) for _ in iter(stop.is_set, True)])
thread.start()
for _ in range(4):
    child = os.fork()
    if not child:
        model.eval()(x[:64])
        fc.functional.sigmoid(x[:1])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_step_takes_no_integers_for_floats_that_it_has_a_plan_for():
    model = nn.Linear(4, 3)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
    x, y = np.arange(8).reshape(2, 4), np.array([0, 1])
    step(x.astype(np.float32), y)
    before = model.state_dict()
    for dtype in (np.int64, np.int32, np.uint8):
        with pytest.raises(TypeError, match="input must be floating point, got"):
            step(x.astype(dtype), y)
    for name, value in before.items():
        np.testing.assert_array_equal(model.state_dict()[name], value)


def test_a_parameter_keeps_its_place_when_it_is_assigned_again():
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(np.zeros((3, 4), np.float32))
    assert list(model.state_dict()) == ["weight", "bias"]
    model.weight = None
    assert [name for name, _ in model.named_parameters()] == ["bias"]
    with pytest.raises(
        TypeError, match="load_state_dict of Linear: state_dict must be a dict of arrays by name, got list"
    ):
        model.load_state_dict([1, 2])


def test_load_state_dict_that_is_not_strict_reports_and_leaves_out():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    state = model.state_dict()
    given = {"0.weight": state["0.weight"] + 1, "0.bias": np.zeros(5), "other": np.zeros(1)}
    with pytest.raises(
        ValueError, match=r"missing: 1\.weight.*unexpected: other.*0\.bias: expected shape \(2,\), got \(5,\)"
    ):
        model.load_state_dict(given)
    found = model.load_state_dict(given, strict=False)
    missing, unexpected = found
    assert missing == ["1.weight", "1.bias"] and unexpected == ["other"]
    assert found.mismatched_shapes == [("0.bias", (2,), (5,))]
    np.testing.assert_array_equal(model[0].weight.numpy(), given["0.weight"])
    np.testing.assert_array_equal(model[0].bias.numpy(), state["0.bias"])


def test_dlpack_shares_parameters_and_outputs():
    model, x = nn.Linear(3, 2).eval(), np.ones((1, 3), np.float32)
    shared = np.from_dlpack(model.weight)
    np.testing.assert_array_equal(shared, model.weight.numpy())
    assert np.shares_memory(shared, model.weight.data) and model.weight.__dlpack_device__() == (1, 0)
    before = model(x)
    model.weight.data[...] = 0
    assert not shared.any() and not np.array_equal(model(x), before)
    out = np.from_dlpack(model.train()(x))
    np.testing.assert_array_equal(out, model.bias.numpy()[None])


def test_dlpack_with_pytorch():
    torch = pytest.importorskip("torch")
    model = nn.Linear(3, 2).eval()
    weight = torch.from_dlpack(model.weight)
    weight.zero_()  # the memory is one
    assert not model.weight.numpy().any()
    inputs = np.from_dlpack(torch.ones(2, 3))
    np.testing.assert_array_equal(model(inputs), np.tile(model.bias.numpy(), (2, 1)))


@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 5.0]])
def test_evaluation_does_not_depend_on_the_batch_size(weight):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)).astype(np.float32), rng.integers(0, 3, 30)
    y[:12] = -100  # whole batches of 4 without a label
    trainer = fc.Trainer(nn.Linear(4, 3), nn.CrossEntropyLoss(weight))
    losses = [trainer.evaluate((x, y), batch_size=n)["loss"] for n in (4, 7, 30)]
    np.testing.assert_allclose(losses, losses[-1], rtol=1e-5)


def test_environment_flags(monkeypatch):
    for value, on in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("FASTCNN_VERBOSE", value)
        assert fc.config.flag("FASTCNN_VERBOSE") is on
