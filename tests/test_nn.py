"""Layers, modules, optimizers and the trainer."""

import copy
import pickle

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
