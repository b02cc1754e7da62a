"""Files: what is saved comes back, hostile and broken files change nothing."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fastcnn as fc
from fastcnn import models, nn, optim
from fastcnn.io import FileFormatError, load_checkpoint, load_weights, save_checkpoint

X = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)


@pytest.mark.parametrize("make", [
    models.lenet5, lambda: models.lenet5(num_classes=3), models.keras_cnn,
    lambda: nn.Sequential(nn.Conv2d(1, 3, (3, 2), padding="same", bias=False), nn.ELU(0.5), nn.AvgPool2d(2), nn.LeakyReLU(0.2),
                          nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(588, 4)), nn.Softmax(1)),
])  # fmt: skip
def test_models_come_back(make, tmp_path):
    model, path = make(), tmp_path / "m.safetensors"
    fc.save(model, path)
    again = fc.load(path)
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.eval()(X), model.eval()(X))
    assert set(load_file(path)) == set(model.state_dict()), "the official library reads it"
    assert os.listdir(tmp_path) == ["m.safetensors"], "no temporary file is left"


def test_a_class_of_ones_own_keeps_its_weights_only(tmp_path):
    path = tmp_path / "own.safetensors"
    model = Own()
    fc.save(model, path)
    with pytest.raises(FileFormatError, match=r"load_weights|load_state"):
        fc.load(path)
    other = Own()
    load_weights(other, path)
    np.testing.assert_array_equal(other.fc.weight, model.fc.weight)


def test_every_truncation_is_a_named_error_and_changes_nothing(tmp_path):
    path = tmp_path / "m.safetensors"
    fc.save(models.lenet5(), path)
    whole, model = path.read_bytes(), models.lenet5()
    before = model.state_dict()
    for size in [0, 1, 7, 8, 9, 100, 1000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            load_weights(model, path)
        with pytest.raises(FileFormatError):
            fc.load(path)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_every_byte_of_a_small_safetensors_file(tmp_path):
    """Cut anywhere it is an error; a changed byte gives an error or other numbers, never another exception."""
    path = tmp_path / "a.safetensors"
    save_file({"w": np.arange(3, dtype=np.float32), "b": np.array(7)}, path)
    whole = path.read_bytes()
    assert fc.load_state(path)["b"] == 7
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            fc.load_state(path)
    for at in range(len(whole)):
        for new in (0, whole[at] ^ 1, 0xFF):
            path.write_bytes(whole[:at] + bytes([new]) + whole[at + 1 :])
            try:
                fc.load_state(path)
            except FileFormatError:
                pass


def test_half_floats_come_as_float32(tmp_path):
    path = tmp_path / "a.safetensors"
    half, wide = np.array([[1.5, -2]], np.float16), np.array([3.25, -1], np.float32)
    header = {"h": ("F16", [1, 2], half), "b": ("BF16", [2], (wide.view(np.uint32) >> 16).astype(np.uint16))}
    header |= {"n": ("I64", [], np.int64(5).reshape(())), "d": ("F64", [1], np.array([0.1]))}
    spec, raw = {}, b""
    for name, (kind, shape, array) in header.items():
        spec[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(raw), len(raw) + array.nbytes]}
        raw += array.tobytes()
    text = json.dumps(spec).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw)
    got = fc.load_state(path)
    assert {k: v.dtype.name for k, v in got.items()} == {"h": "float32", "b": "float32", "n": "int64", "d": "float64"}
    assert got["h"].tolist() == half.tolist() and got["b"].tolist() == wide.tolist() and got["n"] == 5
    model = nn.Linear(2, 1, bias=False)
    fc.io.load_weights(model, _save(tmp_path, weight=half))
    assert model.weight.numpy().tolist() == half.tolist()
    path.write_bytes(path.read_bytes().replace(b'"I64"', b'"F8"') + b" ")
    with pytest.raises(FileFormatError):
        fc.load_state(path)


def _save(folder, **arrays):
    save_file(arrays, folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize("name", ["os.system", "__import__", "Module", "Sequential.__init__", "nn.Linear"])
def test_names_outside_the_registry_are_refused(name, tmp_path):
    path = tmp_path / "m.safetensors"
    fc.save(nn.Sequential(nn.ReLU()), path)
    raw = path.read_bytes()
    assert b"ReLU" in raw
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].decode().replace("ReLU", name).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    with pytest.raises(FileFormatError):
        fc.load(path)


def test_weights_of_another_model(tmp_path):
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        load_weights(models.lenet5(), tmp_path / "a.safetensors")


def test_resumed_training_equals_uninterrupted(tmp_path):
    def batches():
        rng = np.random.default_rng(1)
        return [(rng.standard_normal((8, 1, 28, 28)), rng.integers(0, 10, 8)) for _ in range(6)]

    def fresh():
        fc.manual_seed(1)
        model = models.lenet5()
        opt = optim.Adam(model.parameters(), 1e-3)
        return model, opt, fc.compile_step(model, nn.CrossEntropyLoss(), opt)

    model, opt, step = fresh()
    for x, y in batches()[:3]:
        step(x, y)
    save_checkpoint(tmp_path / "c.safetensors", model, opt, epoch=3)
    for x, y in batches()[3:]:
        step(x, y)
    want = model.state_dict()
    model, opt, step = fresh()
    load_checkpoint(tmp_path / "c.safetensors", model, opt)
    for x, y in batches()[3:]:
        step(x, y)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, want[name])
