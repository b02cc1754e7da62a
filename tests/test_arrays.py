"""What is taken as an array: DLPack, the array interface, tensors of PyTorch; and what is refused, by name."""

import gc

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import nn
from fastcnn.arrays import as_array, gate


class Exporter:
    """An object that has nothing but DLPack, of either version."""

    def __init__(self, array, versioned=True, device=(1, 0)):
        self.array, self.versioned, self.device = array, versioned, device

    def __dlpack__(self, *, max_version=None, **rest):
        return self.array.__dlpack__(max_version=max_version if self.versioned else None)

    def __dlpack_device__(self):
        return self.device


class Interface:
    """An object that has nothing but the array interface."""

    def __init__(self, array):
        self.array, self.__array_interface__ = array, array.__array_interface__


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)


needs_versions = pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy exports DLPack 0.x only"
)


@pytest.mark.parametrize("versioned", [pytest.param(True, marks=needs_versions), False])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "u1"])
def test_from_dlpack_shares_memory(versioned, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)[:, ::2, ::-1]
    capsule = Exporter(array, versioned).__dlpack__(max_version=(1, 0))
    assert ("dltensor_versioned" in repr(capsule)) == versioned
    shared = fc.from_dlpack(Exporter(array, versioned))
    np.testing.assert_array_equal(shared, array)
    assert shared.dtype == array.dtype and shared.strides == array.strides and np.shares_memory(shared, array)
    array += 1
    np.testing.assert_array_equal(shared, array)
    assert shared.flags.writeable == versioned  # DLPack 0.x cannot tell


@needs_versions
def test_from_dlpack_keeps_what_is_read_only_read_only():
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    shared = fc.from_dlpack(Exporter(array))
    assert np.shares_memory(shared, array) and not shared.flags.writeable
    np.testing.assert_array_equal(F.relu(Exporter(array)), array)


@pytest.mark.parametrize(("x", "message"), [
    (3.0, "must have a method __dlpack__, got float"), ([1.0], "must have a method __dlpack__, got list"),
    (np.ones(3, np.float32).__dlpack__(), "got PyCapsule; give the tensor itself"),
    (Exporter(np.ones(3), device=(2, 0)), r"must be in the CPU's memory, .*Exporter on another device \(CUDA\); give .cpu"),
    (Exporter(np.ones(3), device=(99, 0)), "DLPack type 99"),
    (np.ones(3, bool), "must hold floats or integers, got dtype bool"),
    (np.ones(3, complex), "must hold floats or integers, got dtype complex128"),
    (Exporter(np.array(["a"])), "from_dlpack: x cannot be shared through DLPack, got .*Exporter of dtype unknown"),
])  # fmt: skip
def test_from_dlpack_refuses(x, message):
    with pytest.raises(TypeError, match=message):
        fc.from_dlpack(x)


@pytest.mark.parametrize("wrap", [Exporter, Interface, OnlyArray, lambda a: a.tolist(), lambda a: memoryview(a)])
def test_whatever_offers_an_array_is_one(wrap):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 3)).astype(np.float32), rng.integers(0, 2, 8)
    fc.manual_seed(0)
    model = nn.Linear(3, 2)
    expected = model.eval()(x)
    trainer = fc.Trainer(model)
    np.testing.assert_array_equal(model(wrap(x)), expected)
    np.testing.assert_array_equal(F.linear(wrap(x), model.weight, model.bias), expected)
    np.testing.assert_array_equal(trainer.predict(wrap(x)), expected)
    assert trainer.evaluate((wrap(x), wrap(y))) == trainer.evaluate((x, y))
    assert len(trainer.fit((wrap(x), wrap(y)), progress=False)["loss"]) == 1
    np.testing.assert_array_equal(nn.Parameter(wrap(x)).numpy(), x)


def test_gate_does_not_copy_what_fits():
    x = np.ones((2, 3), np.float32)
    assert gate(x) is x
    for value in (Exporter(x), Interface(x), nn.Parameter(x)):
        assert not gate(value).flags.owndata or np.shares_memory(gate(value), getattr(value, "storage", x))
    assert np.shares_memory(gate(Exporter(x)), x) and np.shares_memory(gate(Interface(x)), x)


def test_a_recorded_input_is_kept_apart_from_memory_that_may_change():
    x = np.ones((1, 2), np.float32)
    model = nn.Linear(2, 1).train()
    loss = F.sum(model(Exporter(x)))
    x[...] = 5
    loss.backward()
    np.testing.assert_array_equal(model.weight.grad, [[1, 1]])


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no values yet")


@pytest.mark.parametrize("value", [Exporter(np.ones((2, 3)), device=(2, 0)), Broken(), [[1.0, 2.0, 3.0], [1.0]]])
def test_the_error_names_the_argument(value):
    model = nn.Linear(3, 2)
    trainer = fc.Trainer(model)
    labels = np.zeros(2, int)
    for call, name in [
        (lambda: model(value), "Linear: input"),
        (lambda: nn.MSELoss()(np.ones((2, 3)), value), "MSELoss: input 2"),
        (lambda: F.relu(value), "relu: argument 1"),
        (lambda: trainer.predict(value), "Trainer.predict: x"),
        (lambda: trainer.fit((value, labels)), "Dataset: images"),
        (lambda: trainer.fit((np.ones((2, 3)), value)), "Dataset: labels"),
        (lambda: fc.compile_step(model, nn.CrossEntropyLoss(), trainer.optimizer)(value, labels), "step: x"),
        (lambda: model.load_state_dict({"weight": value, "bias": np.zeros(2)}), "load_state_dict of Linear: weight"),
    ]:
        with pytest.raises(TypeError, match=f"^{name} (must be in the CPU's memory|cannot be read as an array)"):
            call()


# ---- parameters ------------------------------------------------------------------------------------------------------
def test_asarray_of_a_parameter_shares_its_memory():
    model, x = nn.Linear(3, 2).eval(), np.ones((1, 3), np.float32)
    before = model(x)
    shared = np.asarray(model.weight)
    assert shared.shape == (2, 3) and shared.dtype == np.float32 and shared.flags.writeable
    assert np.shares_memory(shared, model.weight.data)
    shared[...] = 0
    np.testing.assert_array_equal(model(x), model.bias.numpy()[None])
    assert not np.array_equal(model(x), before)
    assert not np.shares_memory(np.array(model.weight), model.weight.data)
    assert np.asarray(model.weight, np.float64).dtype == np.float64
    assert not np.shares_memory(model.weight.__array__(copy=True), model.weight.data)


def test_an_array_of_a_parameter_outlives_the_move_into_an_optimizer():
    model = nn.Linear(1000, 1000)
    shared, values = np.asarray(model.weight), model.weight.numpy()
    fc.optim.SGD(model.parameters(), lr=0.1)
    gc.collect()
    filler = [np.full((1000, 1000), 7, np.float32) for _ in range(4)]  # would take memory that had been freed
    np.testing.assert_array_equal(shared, values)
    assert not np.shares_memory(shared, model.weight.data) and len(filler) == 4
    assert np.shares_memory(np.asarray(model.weight), model.weight.data)
    weight, values = np.asarray(model.weight), model.weight.numpy()
    del model
    gc.collect()
    np.testing.assert_array_equal(weight, values)


# ---- PyTorch ---------------------------------------------------------------------------------------------------------
def test_tensors_of_pytorch_are_arrays():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 3)).astype(np.float32), rng.integers(0, 2, 16)
    tx, ty = torch.from_numpy(x.copy()), torch.from_numpy(y)
    model = nn.Linear(3, 2).eval()
    for value in (tx, tx.double(), torch.from_numpy(x.T.copy()).T):
        np.testing.assert_array_equal(model(value), model(x))
    trainer = fc.Trainer(model, optimizer=fc.optim.SGD(model.parameters(), lr=0.1))
    np.testing.assert_array_equal(trainer.predict(tx), trainer.predict(x))
    loaders = [torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tx, ty), 4), (tx, ty), [tx, ty]]
    for data in loaders:
        assert trainer.evaluate(data) == pytest.approx(trainer.evaluate((x, y)))
        assert len(trainer.fit(data, validation=data, progress=False, seed=0)["val_loss"]) == 1
    model.load_state_dict(torch.nn.Linear(3, 2).state_dict())
    np.testing.assert_array_equal(nn.Parameter(tx).numpy(), x)
    loss = nn.CrossEntropyLoss()(model.train()(tx), ty)
    loss.backward()
    assert np.shares_memory(fc.from_dlpack(tx), tx.numpy())


def test_tensors_of_pytorch_that_are_refused():
    torch = pytest.importorskip("torch")
    model, ones = nn.Linear(3, 2), torch.ones(2, 3)
    for value, message in [
        (torch.ones(2, 3, requires_grad=True), "Linear: input requires grad.*give .detach()"),
        (torch.nn.Parameter(ones), "Linear: input requires grad"),
        (torch.ones(2, 3, device="meta"), "Linear: input cannot be read as an array, got torch.Tensor.*meta"),
        (ones.bfloat16(), "Linear: input cannot be shared through DLPack, got torch.Tensor of dtype torch.bfloat16"),
        (ones.to_sparse(), "Linear: input cannot be shared through DLPack.*layout"),
        (ones.bool(), "Linear: input must be an array of floats .*got dtype bool"),
        (torch.complex(ones, ones).conj().imag, "Linear: input has PyTorch's negative bit set; give .resolve_neg()"),
    ]:
        with pytest.raises(TypeError, match=message):
            model(value)
    with pytest.raises(TypeError, match="load_state_dict of Linear: weight requires grad"):
        model.load_state_dict(dict(torch.nn.Linear(3, 2).named_parameters()))
    with pytest.raises(TypeError, match="from_dlpack: x requires grad"):
        fc.from_dlpack(torch.nn.Parameter(ones))


def test_pytorch_shares_the_memory_of_parameters():
    torch = pytest.importorskip("torch")
    model = nn.Linear(3, 2).eval()
    for shared in (torch.from_dlpack(model.weight), torch.from_numpy(np.asarray(model.weight))):
        shared += 1
        np.testing.assert_array_equal(shared.numpy(), model.weight.numpy())
    np.testing.assert_array_equal(as_array(model.weight), model.weight.numpy())
