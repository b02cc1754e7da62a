"""The layers one by one: arguments, shapes, names in state dicts, repr, config and back."""

import json
from collections import OrderedDict

import layer_table
import numpy as np
import pytest

import fastcnn as fc
from fastcnn import models, nn
from fastcnn.nn import init, registry
from fastcnn.nn.registry import REGISTRY, build, describe

LAYERS = [
    (nn.Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), groups=2, bias=False), (2, 4, 9, 8)),
    (nn.Conv2d(1, 3, 3, padding="same", stride=2), (2, 1, 7, 7)),
    (nn.Conv2d(1, 3, 3, padding="valid"), (2, 1, 7, 7)),
    (nn.Conv2d(1, 3, 3, padding=(0, 1, 2, 0)), (2, 1, 7, 7)),
    (nn.Linear(5, 3), (2, 5)),
    (nn.Linear(5, 3, bias=False), (2, 5)),
    (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), (2, 3, 8, 8)),
    (nn.MaxPool2d((2, 3), dilation=2), (2, 3, 8, 8)),
    (nn.AvgPool2d(3, 2, 1, True, False), (2, 3, 8, 8)),
    (nn.AvgPool2d(2, divisor_override=3), (2, 3, 8, 8)),
    (nn.BatchNorm1d(3, momentum=None), (2, 3)),
    (nn.BatchNorm2d(3, 1e-3, 0.2), (2, 3, 4, 4)),
    (nn.BatchNorm3d(3, affine=False, track_running_stats=False), (2, 3, 16, 2, 2)),
    (nn.ReLU(inplace=True), (2, 3)),
    (nn.LeakyReLU(0.2), (2, 3)),
    (nn.ELU(0.5), (2, 3)),
    (nn.Sigmoid(), (2, 3)),
    (nn.Tanh(), (2, 3)),
    (nn.Softmax(1), (2, 3)),
    (nn.Flatten(1, 2), (2, 3, 4, 5)),
    (nn.Dropout(0.25), (2, 3)),
    (models.lenet5(7), (2, 1, 28, 28)),
    (models.keras_cnn(3), (2, 1, 28, 28)),
    (nn.Dropout1d(0.25), (2, 3, 4)),
    (nn.Dropout2d(0.25), (2, 3, 4, 4)),
    (nn.Dropout3d(0.25), (2, 3, 2, 2, 2)),
    (nn.StochasticDepth(0.25, "row"), (2, 3, 4, 4)),
    (nn.Concat(1), (2, 3)),
    (nn.Sequential(OrderedDict(a=nn.Linear(4, 3), b=nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))), (2, 4)),
]
LAYERS += [(getattr(nn, name)(*args, **options), shape) for name, args, options, shape in layer_table.LAYERS]
LOSSES = [
    nn.CrossEntropyLoss([1.0, 2.0, 3.0], 1, "sum", 0.1),
    nn.CrossEntropyLoss(),
    nn.NLLLoss([1.0, 2.0, 3.0], 1, "sum"),
    nn.MSELoss("sum"),
    nn.L1Loss("none"),
    nn.SmoothL1Loss(beta=0.5),
    nn.HuberLoss(delta=2.0),
    nn.BCEWithLogitsLoss([1.0, 2.0, 3.0], pos_weight=[1.0, 2.0, 3.0]),
    nn.BCELoss([1.0, 2.0, 3.0]),
    nn.KLDivLoss("batchmean", log_target=True),
    nn.DiceLoss(0.5),
]
UNTRIED = {"GaussianNLLLoss", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "ModuleList", "ModuleDict"}  # below


@pytest.mark.parametrize("layer, shape", LAYERS, ids=lambda value: type(value).__name__)
def test_config_rebuilds_the_layer(layer, shape):
    spec = json.loads(json.dumps(describe(layer)))
    again = build(spec)
    assert describe(again) == describe(layer) == spec and repr(again) == repr(layer)
    assert not any(p.numpy().any() for p in again.parameters())
    again.load_state_dict(layer.state_dict())
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(again.eval()(x)), np.asarray(layer.eval()(x)))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_config_rebuilds_the_loss(loss):
    again = build(json.loads(json.dumps(describe(loss))))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3)).astype(np.float32)
    indices = isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss))
    target = rng.integers(0, 3, 6) if indices else rng.uniform(0, 1, (6, 3)).astype(np.float32)
    x = 1 / (1 + np.exp(-x)) if isinstance(loss, nn.BCELoss) else x
    if loss.state_dict():
        again.load_state_dict(loss.state_dict())
    assert repr(again) == repr(loss)
    np.testing.assert_array_equal(np.asarray(again(x, target)), np.asarray(loss(x, target)))


def test_every_registered_class_is_tried_above():
    tried = {type(module).__name__ for module, _ in LAYERS} | {type(loss).__name__ for loss in LOSSES}
    layers = {
        name for name, kind in REGISTRY.items() if not kind.__module__.startswith(("fastcnn.models", "fastcnn.onnx"))
    }
    assert layers <= tried | UNTRIED and not tried & UNTRIED


def test_layers_of_several_inputs():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    y, idx = nn.MaxPool2d(2, return_indices=True)(x)
    for module in (
        nn.MaxUnpool2d(2),
        nn.MaxUnpool1d(3, 2, 1),
        nn.MaxUnpool3d((2, 1, 1)),
        nn.GaussianNLLLoss(True, 0.1, "sum"),
    ):
        assert describe(build(describe(module))) == describe(module)
    back = nn.MaxUnpool2d(2)(y, idx)
    assert back.shape == x.shape and np.count_nonzero(back) == y.size and back.max() == x.max()
    assert nn.Concat(-1)(x, x).shape == nn.Concat(3)(x, x).shape == (2, 3, 4, 12)


def test_module_list_and_dict():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
            self.heads = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 1)})

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x), self.heads["b"](x)

    net = Net()
    assert list(net.state_dict())[::2] == ["blocks.0.weight", "blocks.1.weight", "heads.a.weight", "heads.b.weight"]
    a, b = net(np.ones((5, 3), np.float32))
    assert a.shape == (5, 2) and b.shape == (5, 1) and len(net.blocks) == 2 and list(net.heads) == ["a", "b"]
    net.blocks.append(nn.ReLU())
    net.heads["c"] = nn.Identity()
    assert "c" in net.heads and len(net.blocks[1:]) == 2 and isinstance(net.blocks[-1], nn.ReLU)
    for container in (net.blocks, net.heads):
        again = build(describe(container))
        assert describe(again) == describe(container)
        with pytest.raises(NotImplementedError, match="has no forward"):
            container(np.ones((1, 3), np.float32))
    with pytest.raises(TypeError, match="must be a fastcnn Module"):
        nn.ModuleList([3])


class Mine(nn.Module):
    pass


def nested(depth):
    spec = {"type": "ReLU", "config": {}}
    for _ in range(depth):
        spec = {"type": "Sequential", "config": {"modules": [["0", spec]]}}
    return spec


@pytest.mark.parametrize("spec", [
    None, [], {"type": "ReLU"}, {"type": "os.system", "config": {}}, {"type": ["ReLU"], "config": {}},
    {"type": "ReLU", "config": []}, {"type": "ReLU", "config": {"where": 1}}, {"type": "Linear", "config": {"in_features": 3}},
    {"type": "Linear", "config": {"in_features": "3", "out_features": 1}}, {"type": "Conv2d", "config": {"in_channels": 0}},
    {"type": "Sequential", "config": {}}, {"type": "Sequential", "config": {"modules": [["0"]]}},
    {"type": "Sequential", "config": {"modules": [["forward", {"type": "ReLU", "config": {}}]]}},
    {"type": "Sequential", "config": {"modules": [["0", {"type": "ReLU", "config": {}}]] * 2}}, nested(100),
], ids=lambda spec: str(spec)[:50])  # fmt: skip
def test_malformed_architectures_are_refused(spec):
    with pytest.raises(ValueError, match=r"architecture|Sequential"):
        build(spec)


def test_only_registered_classes_are_described():
    with pytest.raises(TypeError, match="Mine is not a registered module"):
        describe(nn.Sequential(Mine()))
    with pytest.raises(ValueError, match="registered already"):
        registry.register(type("ReLU", (nn.Module,), {}))


@pytest.mark.parametrize("make, error, text", [
    (lambda: nn.Conv2d(1.0, 2, 3), TypeError, r"Conv2d: in_channels must be an integer, got 1.0 \(float\)"),
    (lambda: nn.Conv2d(1, 2, (3, 3, 3)), TypeError, r"Conv2d: kernel_size .* sequence of 2"),
    (lambda: nn.Conv2d(1, 2, 3, padding=-1), ValueError, "Conv2d: padding must be at least 0, got -1"),
    (lambda: nn.Conv2d(1, 2, 3, padding="SAME"), ValueError, "Conv2d: padding must be one of 'same', 'valid'"),
    (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, r"Conv2d: out_channels \(6\) must be a multiple of groups \(4\)"),
    (lambda: nn.Conv2d(1, 2, 3, bias=None), TypeError, "Conv2d: bias must be True or False"),
    (lambda: nn.Conv2d(1, 2, 3, padding_mode="mirror"), ValueError, "Conv2d: padding_mode must be one of"),
    (lambda: nn.Linear(True, 2), TypeError, "Linear: in_features must be an integer"),
    (lambda: nn.MaxPool2d(2, padding=2), ValueError, "MaxPool2d: padding must be at most half of kernel_size"),
    (lambda: nn.AvgPool2d(2, divisor_override=0), ValueError, "AvgPool2d: divisor_override must be at least 1"),
    (lambda: nn.LeakyReLU("0.1"), TypeError, "LeakyReLU: negative_slope must be a number"),
    (lambda: nn.Dropout(float("nan")), ValueError, "Dropout: p must be between 0 and 1, got nan"),
    (lambda: nn.CrossEntropyLoss(reduction="avg"), ValueError, "CrossEntropyLoss: reduction must be one of"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=2), ValueError, "CrossEntropyLoss: label_smoothing must be between"),
    (lambda: nn.CrossEntropyLoss(weight=[[1.0]]), ValueError, "CrossEntropyLoss: weight must be one number per class"),
    (lambda: nn.Sequential(nn.ReLU), TypeError, "Sequential: child '0' must be a fastcnn Module, got type"),
    (lambda: models.lenet5(0), ValueError, "LeNet5: num_classes must be at least 1"),
])  # fmt: skip
def test_errors_name_layer_argument_and_what_is_allowed(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_numpy_integers_and_lists_are_integers_and_pairs():
    layer = nn.Conv2d(np.int64(2), np.int32(4), [3, np.int64(5)], bias=np.bool_(True))
    assert layer.weight.shape == (4, 2, 3, 5) and layer.bias.shape == (4,)
    json.dumps(layer.config())


def test_sequential_is_a_list_of_modules():
    a, b, c, d = nn.ReLU(), nn.Linear(2, 2), nn.Tanh(), nn.Sigmoid()
    s = nn.Sequential(a, b, c)
    assert len(s) == 3 and list(s) == [a, b, c] and s[0] is a and s[-1] is c
    assert list(s[1:]) == [b, c] and s[1:].state_dict().keys() == {"1.weight", "1.bias"}
    assert list(s.append(d)) == [a, b, c, d] and list(s.insert(1, d)) == [a, d, b, c, d]
    del s[1]
    s[0] = c
    assert list(s) == [c, b, c, d] and list(s.state_dict()) == ["1.weight", "1.bias"]
    with pytest.raises(IndexError, match="index 4 is out of range for 4 modules"):
        s[4]
    with pytest.raises(TypeError, match="only a Module can be put at 0, got float"):
        s[0] = 1.0
    named = nn.Sequential(OrderedDict(first=b, second=a))
    assert named.first is b and list(named.state_dict()) == ["first.weight", "first.bias"]
    assert list(nn.Sequential(a, a)) == [a, a]
    with pytest.raises(ValueError, match="'forward' is an attribute already"):
        nn.Sequential(OrderedDict(forward=a))


def test_dropout_acts_in_training_only():
    layer, x = nn.Dropout(0.5), np.ones((50, 40), np.float32)
    fc.manual_seed(0)
    y = np.asarray(layer(x))
    assert set(np.unique(y)) == {0.0, 2.0} and (np.asarray(layer.eval()(x)) == 1).all()


def test_skip_leaves_the_generator_alone():
    fc.manual_seed(1)
    with init.skip():
        assert not nn.Linear(3, 3).weight.numpy().any()
    first = nn.Linear(3, 3).weight.numpy()
    fc.manual_seed(1)
    np.testing.assert_array_equal(nn.Linear(3, 3).weight.numpy(), first)


@pytest.mark.parametrize("fill, spread", [
    (lambda w: init.kaiming_uniform_(w, nonlinearity="relu"), np.sqrt(2 / (20 * 9))),
    (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), np.sqrt(2 / (60 * 9))),
    (lambda w: init.xavier_uniform_(w), np.sqrt(2 / (80 * 9))),
    (lambda w: init.xavier_normal_(w, gain=2), 2 * np.sqrt(2 / (80 * 9))),
    (lambda w: init.normal_(w, 0, 3), 3),
    (lambda w: init.uniform_(w, -1, 1), 1 / np.sqrt(3)),
])  # fmt: skip
def test_initialisers_have_their_variance(fill, spread):
    fc.manual_seed(0)
    weight = nn.Conv2d(20, 60, 3).weight
    assert fill(weight) is weight and not weight.exposed
    assert weight.numpy().std() == pytest.approx(spread, rel=0.03) and abs(weight.numpy().mean()) < 0.03 * spread
    assert (init.ones_(np.zeros(3)) == 1).all() and (init.zeros_(weight).numpy() == 0).all()


def test_repr_is_pytorchs():
    torch = pytest.importorskip("torch")
    for args, kwargs in [((1, 6, 5), dict(padding=2)), ((4, 4, 3), dict(groups=2, bias=False, stride=2, dilation=2))]:
        assert repr(nn.Conv2d(*args, **kwargs)) == repr(torch.nn.Conv2d(*args, **kwargs))
    for name, args in [("Linear", (3, 2)), ("MaxPool2d", (2,)), ("AvgPool2d", (3, 2, 1)), ("Dropout", (0.5,)), ("ReLU", ()),
                       ("LeakyReLU", (0.1,)), ("ELU", (1.0,)), ("Softmax", (1,)), ("Flatten", ()), ("Tanh", ())]:  # fmt: skip
        assert repr(getattr(nn, name)(*args)) == repr(getattr(torch.nn, name)(*args))
    assert repr(nn.Sequential(nn.ReLU(), nn.Tanh())) == repr(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh()))
