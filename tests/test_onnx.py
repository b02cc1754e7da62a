"""Models as ONNX files and back: equal to ONNX Runtime, trainable, saveable, and clear about what cannot be."""

import copy

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim
from fastcnn.io import FileFormatError
from fastcnn.nn.module import Buffer

onnx = pytest.importorskip("onnx")

SMALL = {"unet": (1, 64, 64), "fcn_resnet50": (3, 64, 64), "squeezenet1_1": (3, 96, 96), "mobilenet_v2": (3, 64, 64)}
SMALL |= {"mobilenet_v3_small": (3, 64, 64), "efficientnet_b0": (3, 64, 64), "resnet18": (3, 64, 64)}
SMALL |= dict.fromkeys(["resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"], (3, 64, 64))
SMALL |= dict.fromkeys(["wide_resnet50_2", "densenet121", "googlenet"], (3, 64, 64))
QUICK = {
    "lenet5",
    "lenet5_1998",
    "keras_cnn",
    "highway",
    "mlp",
    "perceptron",
    "cifar_resnet20",
    "unet",
    "squeezenet1_1",
}
QUICK |= {"mobilenet_v3_small", "resnet18"}
NETWORKS = models.list_models()


def runtime(path):
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"input": x})


def unsettle(model, seed=0):
    """Statistics and scales that are not 0 and 1, so that nothing passes by being left out."""
    rng = np.random.default_rng(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer[...] = rng.normal(0, 0.1, buffer.shape)
        elif name.endswith("running_var"):
            buffer[...] = rng.uniform(0.8, 1.2, buffer.shape)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter[...] = rng.normal(0, 0.1, parameter.shape)
    return model


def outputs_of(model, x):
    out = model(x)
    return [np.asarray(o) for o in (out if isinstance(out, tuple) else (out,))]


def assert_near(got, expected, ulps=300):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=ulps * 1.2e-7 * float(np.abs(b).max()))


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_every_network_runs_in_onnx_runtime_and_comes_back(name, tmp_path):
    model, shape = models.get_model(name), SMALL.get(name, models.input_shape(name))
    if name.startswith("vgg") and name != "vgg16":  # one with the three large layers is enough
        model, shape = model.features, (3, 64, 64)
    unsettle(model).eval()
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    path = tmp_path / "model.onnx"
    fc.onnx.export(model, path, (2, *shape))
    expected = outputs_of(model, x)
    assert np.ptp(expected[0]) > 0
    assert_near(runtime(path)(x), expected)
    loaded = fc.onnx.load(path)
    assert_near(outputs_of(loaded, x), expected)
    own, theirs = model.state_dict(), loaded.state_dict()
    assert {n for n in own if "num_batches" not in n and "aux" not in n.lower()} >= {
        n for n in theirs if "constant" not in n
    }
    assert [n for n in theirs if n in own]


@pytest.mark.parametrize("opset", [13, 14, 18, 20, onnx.defs.onnx_opset_version()])
def test_every_opset(opset, tmp_path):
    model = models.mobilenet_v3_small(num_classes=5).eval()
    head = nn.Sequential(model, nn.GELU(), nn.Softmax(1), nn.LayerNorm(5))
    head.eval()
    path = tmp_path / "model.onnx"
    fc.onnx.export(head, path, (1, 3, 32, 32), opset=opset)
    proto = onnx.load(str(path))
    assert proto.opset_import[0].version == opset
    assert proto.ir_version == onnx.helper.find_min_ir_version_for(proto.opset_import)
    x = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    assert_near(outputs_of(fc.onnx.load(path), x), outputs_of(head, x))
    if opset <= 20:  # the newest may be newer than the runtime
        assert_near(runtime(path)(x), outputs_of(head, x))


class Function(nn.Module):
    def __init__(self, function, *shapes):
        super().__init__()
        rng = np.random.default_rng(5)
        self.function = function
        for i, shape in enumerate(shapes):
            self.register_parameter(f"p{i}", nn.Parameter(rng.normal(size=shape).astype(np.float32)))

    def forward(self, x):
        return self.function(x, *self._parameters.values())


IMAGE = (2, 4, 9, 8)
FUNCTIONS = {
    "conv asymmetric": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 0, 2, 1), (1, 2), 2), IMAGE, (6, 2, 3, 2), (6,)),
    "conv1d": (lambda x, w: F.conv1d(x, w, None, 2, 1), (2, 4, 9), (6, 4, 3)),
    "conv3d": (lambda x, w: F.conv3d(x, w, None, (2, 1, 1), 1), (2, 2, 5, 6, 4), (3, 2, 3, 3, 3)),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2), IMAGE, (4, 3, 3, 3), (6,)),
    "conv_transpose1d": (lambda x, w: F.conv_transpose1d(x, w, None, 3, 1, 2), (2, 4, 5), (4, 3, 3)),
    "max_pool ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), IMAGE),
    "max_pool dilated": (lambda x: F.max_pool2d(x, (2, 3), 1, 1, (2, 1)), IMAGE),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (2, 3, 11)),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2, 2, 1), (2, 3, 4, 5, 6)),
    "adaptive_max_pool": (lambda x: F.adaptive_max_pool2d(x, (4, 3)), IMAGE),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "avg_pool ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, True), IMAGE),
    "avg_pool ceil inside": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), IMAGE),
    "avg_pool divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2, 2, 1), (2, 3, 4, 5, 6)),
    "adaptive_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), IMAGE),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "nearest odd": (lambda x: F.interpolate(x, size=(7, 13)), IMAGE),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"), IMAGE),
    "bilinear corners": (lambda x: F.interpolate(x, size=(5, 11), mode="bilinear", align_corners=True), IMAGE),
    "pad": (lambda x: F.pad(x, (1, 0, -2, 3), value=2.5), IMAGE),
    "pad reflect": (lambda x: F.pad(x, (1, 2, 0, 3), "reflect"), IMAGE),
    "slices": (lambda x: x[:, 1:3, ::2, -1], IMAGE),
    "permute": (lambda x: x.permute(0, 2, 3, 1), IMAGE),
    "split and cat": (lambda x: F.cat(F.split(x, [1, 3], 1)[::-1], 1), IMAGE),
    "broadcast": (lambda x, w: x * w / (F.abs(x) + 1.0) - w, IMAGE, (4, 1, 1)),
    "expand": (lambda x: F.max_pool2d(F.mean(x, (2, 3), True).expand(x.shape), 2), IMAGE),
    "reductions": (lambda x: F.sum(x, (1, 3)) - F.mean(x, 1)[:, :, 0], IMAGE),
    "matmul": (lambda x, w: F.matmul(x, w), (3, 5), (5, 4)),
    "softmax": (lambda x: F.log_softmax(x, 1) + F.softmax(x, 3), IMAGE),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (9, 8), w, b), IMAGE, (9, 8), (9, 8)),
    "group_norm": (lambda x, w: F.group_norm(x, 2, w), IMAGE, (4,)),
    "instance_norm": (lambda x: F.instance_norm(x), IMAGE),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "prelu": (lambda x, w: F.prelu(x, w), IMAGE, (4,)),
    "pow": (lambda x: F.pow(F.abs(x) + 0.1, 1.5) + F.pow(x, 3), IMAGE),
    **{
        name: (lambda x, name=name: getattr(F, name)(x * 3), IMAGE)
        for name in ("relu", "relu6", "sigmoid", "tanh", "elu", "leaky_relu", "gelu", "silu", "mish", "hardswish",
                     "hardsigmoid", "softplus", "selu", "softsign", "logsigmoid", "abs", "square", "exp")
    },
    "spread on both sides": (lambda x: F.mean(x, 1, True).expand(x.shape) + F.mean(x * x, 1, True).expand(x.shape), IMAGE),
    "spread and a parameter": (lambda x, p: F.mean(x, (2, 3), True).expand(x.shape) * p, IMAGE, (1, 1, 1, 1)),
    "number over spread": (lambda x: 1.0 / (F.mean(x, (2, 3), True).expand(x.shape) + 3.0), IMAGE),
    "a sum of parameters": (lambda x, p: x + F.softmax(p * 2.0, 0), IMAGE, (4, 1, 1)),
    "conv_transpose3d": (lambda x, w: F.conv_transpose3d(x, w, None, 2, 1, 1, 1, 2), (2, 2, 3, 4, 5), (2, 3, 3, 2, 3)),
    "avg_pool ceil odd": (lambda x: F.avg_pool2d(x, 3, 2, 1, True), (2, 4, 9, 7)),
    "nearest inexact": (lambda x: F.interpolate(x, size=(5, 13)), (2, 4, 9, 7)),
    "bilinear inexact": (lambda x: F.interpolate(x, size=(5, 13), mode="bilinear"), (2, 4, 9, 7)),
    "bilinear corners factor": (
        lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=True), (2, 4, 9, 7)
    ),
    "batch of one": (lambda x: F.instance_norm(x), (1, 4, 11)),
    "one channel turned": (lambda x: x.permute(0, 2, 3, 1), (1, 1, 6, 5)),
    "gelu tanh": (lambda x: F.gelu(x, "tanh"), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_functions(name, dynamic, tmp_path):
    function, shape, *shapes = FUNCTIONS[name]
    model = Function(function, *shapes)
    path = tmp_path / "model.onnx"
    fc.onnx.export(model, path, shape, dynamic_batch=dynamic)
    x = np.random.default_rng(2).normal(size=(shape[0] + 3 * dynamic, *shape[1:])).astype(np.float32)
    model.eval()
    expected = outputs_of(model, x)
    assert_near(runtime(path)(x), expected)
    assert_near(outputs_of(fc.onnx.load(path), x), expected)


def test_a_loaded_model_trains_as_the_original_does_and_saves(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    )
    unsettle(model)
    path = tmp_path / "model.onnx"
    fc.onnx.export(model, path, (1, 1, 8, 8))
    loaded = fc.onnx.load(path)
    assert not loaded.training and model.training
    assert [n for n, b in loaded.named_buffers()] == ["1.running_mean", "1.running_var"]
    assert {n for n, _ in loaded.named_parameters()} == {n for n, _ in model.named_parameters()}
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 16)
    for m in (model, loaded):
        m.train()
        step = fc.compile_step(m, nn.CrossEntropyLoss(), optim.SGD(m.parameters(), lr=0.1, momentum=0.9))
        for _ in range(3):
            step(x, y)
    theirs = loaded.state_dict()
    for key, value in model.state_dict().items():
        if "num_batches" not in key:
            np.testing.assert_allclose(theirs[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
    fc.save(loaded, tmp_path / "model.safetensors")
    again = fc.load(tmp_path / "model.safetensors")
    loaded.eval()
    np.testing.assert_array_equal(again(x), loaded(x))


def test_export_leaves_the_model_as_it_was(tmp_path):
    model = models.lenet5()
    before = model.state_dict()
    fc.onnx.export(model, tmp_path / "m.onnx", (1, 1, 28, 28))
    assert model.training
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(opset=12), "opset must be an int from 13 to"),
        (dict(opset=99), "opset must be an int from 13 to"),
        (dict(opset="13"), "opset must be an int"),
        (dict(input_shape=(1, 28.5)), "input_shape must be positive ints"),
        (dict(input_shape=(1, 3, 28, 28)), "1 channels|has 3 channels"),
    ],
)
def test_export_says_what_is_wrong(arguments, message, tmp_path):
    given = {"input_shape": (1, 1, 28, 28), **arguments}
    with pytest.raises(ValueError, match=message):
        fc.onnx.export(models.lenet5(), tmp_path / "m.onnx", **given)
    assert list(tmp_path.iterdir()) == []


def test_export_names_the_layer_that_has_no_expression(tmp_path):
    untracked = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match=r"layer 1 .*track_running_stats"):
        fc.onnx.export(untracked, tmp_path / "m.onnx", (2, 1, 8, 8))
    folded = Function(lambda x: F.reshape(x, (1, x.shape[0] * 4, 72)) * (1.0 / x.shape[0]))
    with pytest.raises(ValueError, match="dynamic_batch=False"):
        fc.onnx.export(folded, tmp_path / "m.onnx", IMAGE)
    fc.onnx.export(folded, tmp_path / "m.onnx", IMAGE, dynamic_batch=False)
    with pytest.raises(TypeError, match="must be a fastcnn Module, got function"):
        fc.onnx.export(lambda x: x, tmp_path / "m.onnx", IMAGE)


def written(path, nodes, opset=13, initializers=(), inputs=("x",), kind=onnx.TensorProto.FLOAT, shape=(1, 2, 4, 4)):
    h = onnx.helper
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info(n, kind, shape) for n in inputs],
        [h.make_tensor_value_info("y", kind, None)],
        list(initializers),
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", opset)]), str(path))
    return path


@pytest.mark.parametrize(
    "nodes, arguments, message",
    [
        ([("Acos", {})], {}, r"operators that fastcnn does not have: Acos \(node first\) \(opset 13\)"),
        ([("Relu", {})], dict(opset=5), "opset 5 is older than 6"),
        ([("Relu", {})], dict(kind=onnx.TensorProto.STRING), "input 'x' is STRING"),
        ([("Relu", {})], dict(kind=onnx.TensorProto.FLOAT16), "input 'x' is FLOAT16"),
    ],
)
def test_load_says_what_is_not_supported(nodes, arguments, message, tmp_path):
    made = [onnx.helper.make_node(kind, ["x"], ["y"], name="first", **a) for kind, a in nodes]
    path = written(tmp_path / "m.onnx", made, **arguments)
    with pytest.raises(FileFormatError, match=message) as caught:
        fc.onnx.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "node, message",
    [
        (("LRN", dict(size=4)), r"node first \(LRN, opset 13\): size=4 is not supported, only odd"),
        (("Concat", dict(axis=9)), r"node first \(Concat, opset 13\): axis 9"),
        (("Flatten", dict(axis=1)), None),
        (("MaxPool", dict(kernel_shape=[5, 5])), r"node first \(MaxPool, opset 13\): input .* smaller than the window"),
        (("Squeeze", {}), None),
    ],
)
def test_running_names_the_node(node, message, tmp_path):
    kind, attributes = node
    made = [onnx.helper.make_node(kind, ["x"], ["y"], name="first", **attributes)]
    model = fc.onnx.load(written(tmp_path / "m.onnx", made))
    x = np.zeros((1, 2, 4, 4), np.float32)
    if message is None:
        assert model(x).size == x.size
        return
    with pytest.raises(ValueError, match=message):
        model(x)
    with pytest.raises(ValueError, match="input 'x' must have 4 dimensions"):
        model(x[0])
    with pytest.raises(ValueError, match="1 inputs expected"):
        model(x, x)


def test_a_damaged_file_is_an_error_and_no_more(tmp_path):
    path = tmp_path / "m.onnx"
    fc.onnx.export(models.lenet5(), path, (1, 1, 28, 28))
    whole = path.read_bytes()
    x = np.zeros((1, 1, 28, 28), np.float32)
    rng = np.random.default_rng(0)
    for cut in [0, 1, 10, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError):
            fc.onnx.load(path)
    for _ in range(150):  # a changed byte may be a changed weight; nothing else than these errors comes of it
        data = bytearray(whole)
        data[rng.integers(0, 3000)] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            fc.onnx.load(path)(x)
        except (FileFormatError, ValueError, TypeError, NotImplementedError):
            pass
    with pytest.raises(FileNotFoundError):
        fc.onnx.load(tmp_path / "none.onnx")


def test_a_saved_graph_is_not_trusted(tmp_path):
    path = tmp_path / "m.onnx"
    fc.onnx.export(models.lenet5(), path, (1, 1, 28, 28))
    graph = fc.onnx.load(path).graph
    for key, value in [
        ("nodes", [["Relu"]]),
        ("weights", {"w": [[-1], True]}),
        ("inputs", [["x", "y"]]),
        ("opset", "1"),
    ]:
        with pytest.raises(ValueError, match="malformed"):
            fc.onnx.OnnxModel({**graph, key: value})
    bad = {"dtype": "object", "shape": [1], "data": ""}
    with pytest.raises(ValueError, match="is not an array"):
        fc.onnx.OnnxModel({**graph, "constants": {**graph["constants"], "c": bad}})


def test_statistics_are_buffers_and_products_learn(tmp_path):
    path = tmp_path / "m.onnx"
    fc.onnx.export(unsettle(models.resnet18(num_classes=3)), path, (1, 3, 32, 32))
    loaded = fc.onnx.load(path)
    kinds = {n: isinstance(v, Buffer) for n, v in loaded._named_state()}
    assert kinds["bn1.running_mean"] and not kinds["bn1.weight"] and not kinds["fc.bias"]


def test_names_that_the_module_or_the_graph_has_too(tmp_path):
    """The names in a file are data: no attribute of the module is shadowed, nothing is given twice."""
    path, saved = tmp_path / "m.onnx", tmp_path / "m.safetensors"
    x = np.ones((1, 2, 4, 4), np.float32)
    for name in ("forward", "graph", "_modules", "__class__", "__dict__", "eval", "config", "training", "state_dict"):
        array = onnx.numpy_helper.from_array(np.full((2, 1, 1), 3, np.float32), name)
        written(path, [onnx.helper.make_node("Mul", ["x", name], ["y"])], initializers=[array])
        model = fc.onnx.load(path)
        assert list(model.state_dict()) == [name] and not model.training
        fc.save(model, saved)
        for m in (model, copy.deepcopy(model), fc.load(saved)):
            np.testing.assert_array_equal(m(x), 3 * x)
    for name in ("input", "output", "constant_0", "constant_1", "/Mul_0", "/Add_1"):
        model = Function(lambda x, p: x * p + 2.0)
        model.register_parameter(name, nn.Parameter(np.full((2, 1, 1), 3, np.float32)))
        fc.onnx.export(model, path, x.shape)
        loaded = fc.onnx.load(path)
        assert list(loaded.state_dict()) == [name]
        np.testing.assert_array_equal(loaded(x), 3 * x + 2)


def test_a_single_number_learns_and_a_matrix_of_the_export_does_not(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.PReLU(), nn.AdaptiveAvgPool2d((3, 4)),
        nn.BatchNorm2d(1, affine=False), nn.Flatten(), nn.Linear(12, 1),
    )  # fmt: skip
    fc.onnx.export(model, tmp_path / "m.onnx", (1, 1, 8, 9))
    loaded = fc.onnx.load(tmp_path / "m.onnx")
    assert {n for n, _ in loaded.named_parameters()} == {n for n, _ in model.named_parameters()}
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 1, 8, 9)).astype(np.float32), rng.normal(size=(16, 1)).astype(np.float32)
    for m in (model, loaded):
        step = fc.compile_step(m.train(), nn.MSELoss(), optim.SGD(m.parameters(), lr=0.1))
        for _ in range(3):
            step(x, y)
    theirs = loaded.state_dict()
    for key, value in model.state_dict().items():
        if "num_batches" not in key:
            np.testing.assert_allclose(theirs[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


N = onnx.helper.make_node


@pytest.mark.parametrize(
    "nodes, message",
    [
        ([N("Relu", ["x"], ["y"]), N("Neg", ["x"], ["y"])], r"\(Neg\) gives 'y', which something else gives already"),
        ([N("Relu", ["x"], ["x"]), N("Neg", ["x"], ["y"])], r"\(Relu\) gives 'x'"),
        ([N("Add", ["x", "b"], ["a"]), N("Relu", ["a"], ["b"]), N("Relu", ["b"], ["y"])], r"\(Add\) reads 'b'"),
        ([N("Relu", ["a"], ["y"]), N("Neg", ["x"], ["a"])], r"\(Relu\) reads 'a', which nothing before it gives"),
        ([N("Relu", ["x"], ["z"])], "nothing gives the output 'y'"),
        ([N("ConstantOfShape", ["big"], ["c"]), N("Add", ["x", "c"], ["y"])], "up to 268,435,456 elements"),
        ([N("Foo", ["x"], ["y"], domain="com.example")], r"com.example.Foo \(opset unknown\)"),
        ([N("If", ["x"], ["y"], then_branch=onnx.GraphProto(), else_branch=onnx.GraphProto())], r"\(If, opset 13\)"),
        ([N("Constant", [], [], value_int=1), N("Relu", ["x"], ["y"])], "m.onnx"),
    ],
)
def test_a_graph_that_is_none_is_refused_when_it_is_loaded(nodes, message, tmp_path):
    big = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "big")
    with pytest.raises(FileFormatError, match=message):
        fc.onnx.load(written(tmp_path / "m.onnx", nodes, initializers=[big]))


HUGE = np.array([1, 1, 1 << 40, 1])


@pytest.mark.parametrize(
    "nodes, given, message",
    [
        ([N("Expand", ["z", "g"], ["c"]), N("Add", ["x", "c"], ["y"])], HUGE, "268,435,456"),
        ([N("Tile", ["k", "g"], ["c"]), N("Add", ["x", "c"], ["y"])], np.array([1 << 40]), "268,435,456"),
        ([N("Range", ["z", "g", "o"], ["c"]), N("Add", ["x", "c"], ["y"])], np.array(1 << 40), "268,435,456"),
        ([N("Range", ["z", "g", "z"], ["c"]), N("Add", ["x", "c"], ["y"])], np.array(5), "steps of 0"),
        ([N("Expand", ["x", "g"], ["y"])], HUGE, "node|TB of memory"),
        ([N("Tile", ["x", "g"], ["y"])], HUGE, "1,048,576"),
        ([N("Tile", ["x", "g"], ["y"])], np.array([1, 1, 0, 1]), "0 elements"),
        ([N("Pad", ["x", "g"], ["y"], mode="edge")], np.array([0] * 7 + [1 << 40]), "1,048,576"),
        ([N("Pad", ["x", "g"], ["y"])], np.array([0, 0, 0]), "3 pads for 4 dimensions"),
        ([N("Resize", ["x", "", "g"], ["y"])], np.array([1, 1, 1e12, 1], np.float32), "1,048,576"),
        ([N("Resize", ["x", "", "g"], ["y"])], np.array([1, 1, 0, 1], np.float32), "0 elements"),
        ([N("Resize", ["x", "", "g"], ["y"])], np.array([1, 1, np.inf, 1], np.float32), "infinity"),
        ([N("Reshape", ["x", "g"], ["y"])], np.array([-2, -16]), "is no shape"),
        ([N("Reshape", ["x", "g"], ["y"])], np.array([-1, -1]), "is no shape"),
        ([N("Unsqueeze", ["x", "g"], ["y"])], np.array([0, 0]), "not all different"),
        ([N("Flatten", ["x"], ["y"], axis=9)], HUGE, "axis 9"),
        ([N("MaxPool", ["x"], ["y"])], HUGE, "kernel_shape is missing"),
        ([N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0])], HUGE, "strides must be at least 1"),
        ([N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1])], HUGE, "pads must be 4 integers"),
        ([N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="FOO")], HUGE, "auto_pad='FOO'"),
        ([N("AveragePool", ["x"], ["y"], kernel_shape=[1 << 30] * 2, pads=[1 << 30] * 4)], HUGE, "elements"),
        ([N("DepthToSpace", ["x"], ["y"], blocksize=0)], HUGE, "zero"),
        ([N("Relu", ["x", "x"], ["y"])], HUGE, "inputs are too many"),
        ([N("Relu", [""], ["y"])], HUGE, "node|TB of memory"),
    ],
)
def test_what_a_node_cannot_do_is_an_error_that_names_it(nodes, given, message, tmp_path):
    arrays = {"g": given, "k": np.array([1.0], np.float32), "z": np.array(0), "o": np.array(1)}
    initializers = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
    model = fc.onnx.load(written(tmp_path / "m.onnx", nodes, initializers=initializers))
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        model(np.zeros((1, 2, 4, 4), np.float32))
    assert "opset 13" in str(caught.value) or "TB of memory" in str(caught.value)


def test_a_file_written_for_training_trains_and_moves_its_statistics(tmp_path):
    h, rng = onnx.helper, np.random.default_rng(0)
    arrays = {"w": [1, 2], "b": [0, 1], "m": [0, 0], "v": [1, 1]}
    initializers = [onnx.numpy_helper.from_array(np.array(a, np.float32), n) for n, a in arrays.items()]
    bn = h.make_node("BatchNormalization", [*"xwbmv"], ["y", "m2", "v2"], training_mode=1, momentum=0.9)
    model = fc.onnx.load(written(tmp_path / "m.onnx", [bn], opset=15, initializers=initializers))
    own = nn.BatchNorm2d(2)
    own.load_state_dict(dict(weight=[1.0, 2.0], bias=[0.0, 1.0]), strict=False)
    x = rng.normal(3, 2, size=(4, 2, 4, 4)).astype(np.float32)
    for m in (own, model):
        m.train()
        step = fc.compile_step(m, nn.MSELoss(), optim.SGD(m.parameters(), lr=0.1))
        step(x, x)
    theirs = model.state_dict()
    for a, b in zip("wbmv", ("weight", "bias", "running_mean", "running_var")):
        np.testing.assert_allclose(theirs[a], own.state_dict()[b], rtol=1e-5)


def test_a_scale_of_one_element_is_learned_and_a_bare_number_is_not(tmp_path):
    h = onnx.helper
    numbers = [onnx.numpy_helper.from_array(np.full(s, 2, np.float32), n) for n, s in (("scale", (1,)), ("two", ()))]
    nodes = [h.make_node("Mul", ["x", "scale"], ["a"]), h.make_node("Add", ["a", "two"], ["y"])]
    model = fc.onnx.load(written(tmp_path / "m.onnx", nodes, initializers=numbers))
    assert [n for n, _ in model.named_parameters()] == ["scale"]
    x = np.ones((1, 2, 4, 4), np.float32)
    np.testing.assert_array_equal(model(x), 4 * x)
    dict(model.named_parameters())["scale"][...] = 3
    np.testing.assert_array_equal(model(x), 5 * x)
