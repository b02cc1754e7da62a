"""The networks: parameter counts, state-dict keys, evaluation and a training step as torchvision's, files, errors."""

import copy
import json

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import models, nn, optim
from fastcnn.nn.registry import REGISTRY, build, describe

COUNTS = {
    "alexnet": 61100840, "alexnet_2012": 60965224, "vgg11": 132863336, "vgg11_bn": 132868840, "vgg13": 133047848,
    "vgg13_bn": 133053736, "vgg16": 138357544, "vgg16_bn": 138365992, "vgg19": 143667240, "vgg19_bn": 143678248,
    "googlenet": 13004888, "inception_v3": 27161264, "resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032,
    "resnet101": 44549160, "resnet152": 60192808, "resnext50_32x4d": 25028904, "wide_resnet50_2": 68883240,
    "cifar_resnet20": 269722, "cifar_resnet56": 853018, "densenet121": 7978856, "squeezenet1_1": 1235496, "mobilenet_v2": 3504872,
    "mobilenet_v3_small": 2542856, "efficientnet_b0": 5288548, "fcn_resnet50": 32957013, "unet": 31036546,
    "ssd300_vgg16": 35641826, "lenet5": 61706, "lenet5_1998": 60900, "mlp": 9, "perceptron": 3, "keras_cnn": 1668490,
    "highway": 90760,
}  # fmt: skip
# torchvision's networks, a size they can take, arguments for both that leave nothing random
PARITY = {
    "alexnet": (64, dict(num_classes=7, dropout=0.0)),
    "vgg11": (32, dict(num_classes=7, dropout=0.0)),
    "vgg13_bn": (32, dict(num_classes=7, dropout=0.0)),
    "googlenet": (64, dict(num_classes=7, aux_logits=True, transform_input=True, dropout=0.0, dropout_aux=0.0)),
    "inception_v3": (139, dict(num_classes=7, aux_logits=False, transform_input=True, dropout=0.0)),
    "resnet18": (64, dict(num_classes=7)),
    "resnet50": (64, dict(num_classes=7)),
    "resnext50_32x4d": (64, dict(num_classes=7)),
    "vgg19_bn": (32, dict(num_classes=7, dropout=0.0)),
    "resnet101": (64, dict(num_classes=7)),
    "wide_resnet50_2": (64, dict(num_classes=7)),
    "fcn_resnet50": (64, dict(num_classes=7, aux_loss=True)),
    "densenet121": (64, dict(num_classes=7)),
    "squeezenet1_1": (64, dict(num_classes=7, dropout=0.0)),
    "mobilenet_v2": (64, dict(num_classes=7, dropout=0.0)),
    "mobilenet_v3_small": (64, dict(num_classes=7, dropout=0.0)),
    "efficientnet_b0": (64, dict(num_classes=7, dropout=0.0, stochastic_depth_prob=0.0)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    with nn.init.skip():
        model = getattr(models, name)()
    assert sum(p.size for p in model.parameters()) == COUNTS[name]


def test_every_model_can_be_written_to_a_file():
    kinds = set()
    for name in sorted(set(COUNTS) - {f"vgg{k}" for k in ("11_bn", "13", "13_bn", "16", "19", "19_bn")}):
        with nn.init.skip():
            model = getattr(models, name)()
        again = build(json.loads(json.dumps(describe(model))))
        shapes = [{k: v.shape for k, v in m._named_state()} for m in (model, again)]
        assert shapes[0] == shapes[1] and describe(again) == describe(model), name
        kinds.add(type(model).__name__)
    assert {k for k, cls in REGISTRY.items() if cls.__module__.startswith("fastcnn.models")} - kinds <= {
        "SSDFeatureExtractor",
        "SSDFeatureExtractorVGG",
    }


LARGE = ("fcn_resnet50", "vgg19_bn", "resnet101", "wide_resnet50_2")
PARAMETERS = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in PARITY]


@pytest.mark.parametrize("name", PARAMETERS)
def test_training_step_and_evaluation_as_torchvision(name, torchvision):
    import torch

    size, options = PARITY[name]
    torch.manual_seed(1)
    pixels = name.startswith("fcn")
    rest = {"weights_backbone": None} if pixels else {}
    maker = torchvision.segmentation if pixels else torchvision
    theirs = getattr(maker, name)(weights=None, **rest, **options)
    with nn.init.skip():
        ours = getattr(models, name)(**options)
    state = {k: v.numpy().copy() for k, v in theirs.state_dict().items()}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in state.items()}
    ours.load_state_dict(state)
    rng = np.random.default_rng(2)
    x, t = (
        rng.standard_normal((4, 3, size, size)).astype(np.float32),
        rng.integers(0, 7, (4, size, size) if pixels else 4),
    )
    for module in (*theirs.modules(), *ours.modules()):
        if "Dropout" in type(module).__name__:
            module.p = 0.0

    def loss_of(out, target, cross_entropy):
        if isinstance(out, dict):
            out = (out["out"], out["aux"])
        if isinstance(out, tuple):
            return sum(w * cross_entropy(o, target) for w, o in zip((1.0, 0.3, 0.3), out))
        return cross_entropy(out, target)

    def train(network, dtype):
        sgd = torch.optim.SGD(network.parameters(), 0.01)
        loss = loss_of(network(torch.tensor(x, dtype=dtype)), torch.tensor(t), torch.nn.functional.cross_entropy)
        loss.backward()
        sgd.step()
        network.eval()
        with torch.inference_mode():
            out = network(torch.tensor(x, dtype=dtype))
            out = (out["out"] if pixels else out).numpy()
        return loss.item(), {k: v.detach().numpy().astype(np.float64) for k, v in network.state_dict().items()}, out

    exact = train(copy.deepcopy(theirs).double(), torch.float64)
    single = train(theirs, torch.float32)
    size_of = lambda v: float(np.linalg.norm(np.asarray(v, np.float64)))
    # Rounding that turns a single ReLU or maximum moves a gradient here by some percent, in PyTorch's float32 as in this one
    # (forward errors are equal, 3e-5 at most); a wrong gradient is off by the whole change. Winograd's rounding is up to
    # twenty times the direct sum's per layer: noise of 3e-6 on each convolution of GoogLeNet in float64 moves some
    # gradients of these batches by 5 to 12 percent, noise of 1e-7 by 2; of 8e-6 on those of Inception that Winograd
    # takes, its loss by 2e-3 (of 1e-7 by 2e-5).
    noise = 2e-3 if name == "inception_v3" else 2e-4  # of the loss, by Winograd's rounding
    for algorithm, more, turned, moves in (("direct", 1, 0.05, 1e-5), ("auto", 20, 0.15, noise)):
        fc.set_conv_algorithm(algorithm)
        ours.load_state_dict(state)
        ours.train()
        step = fc.compile_step(
            ours, lambda out, y: loss_of(out, y, F.cross_entropy), optim.SGD(ours.parameters(), 0.01)
        )
        loss = step(x, t)
        moved = {k: v.astype(np.float64) for k, v in ours.state_dict().items()}
        assert abs(loss - exact[0]) <= more * 4 * abs(single[0] - exact[0]) + moves * abs(exact[0]), algorithm
        for key, want in exact[1].items():
            change, allowed = size_of(want - state[key]), size_of(single[1][key] - want)
            error = size_of(moved[key] - want)
            bound = min(more * 6 * allowed + turned * change, 6 * allowed + 0.5 * change) + 1e-6 * (1 + size_of(want))
            assert error <= bound, (algorithm, key, error, allowed, change)
        ours.load_state_dict({k: v.astype(np.float32) for k, v in exact[1].items()})
        out = ours.eval()(x)
        assert size_of(out - exact[2]) <= more * 6 * size_of(single[2] - exact[2]) + 1e-4 * size_of(exact[2]), algorithm


@pytest.mark.parametrize(
    "name, shape",
    [
        ("resnet18", (2, 3, 32, 32)), ("cifar_resnet20", (2, 3, 32, 32)), ("mobilenet_v3_small", (2, 3, 32, 32)),
        ("squeezenet1_1", (2, 3, 40, 40)), ("lenet5_1998", (2, 1, 32, 32)), ("highway", (2, 1, 28, 28)),
        ("mlp", (3, 2)), ("unet", (1, 1, 32, 32)),
    ],
)  # fmt: skip
def test_files_and_summary(name, shape, tmp_path):
    model = getattr(models, name)().eval()
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    fc.save(model, tmp_path / "model.safetensors")
    again = fc.load(tmp_path / "model.safetensors").eval()
    np.testing.assert_array_equal(again(x), model(x))
    text = model.summary(shape)
    assert f"{sum(p.size for p in model.parameters()):,} parameters" in text


def test_mlp_learns_xor():
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([[0], [1], [1], [0]], np.float32)
    fc.manual_seed(3)
    for _ in range(5):  # the smallest network has local minima
        model = models.mlp((2, 4, 1))
        step = fc.compile_step(model, nn.MSELoss(), optim.Adam(model.parameters(), 0.05))
        losses = [step(x, y) for _ in range(500)]
        if losses[-1] < 0.01:
            break
    assert losses[-1] < 0.01 and np.abs(np.asarray(model(x)) - y).max() < 0.3
    line = models.perceptron()
    step = fc.compile_step(line, nn.MSELoss(), optim.Adam(line.parameters(), 0.05))
    assert min(step(x, y) for _ in range(500)) > 0.2  # no line separates it


def test_lenet5_of_1998_sees_only_its_connections():
    model = models.lenet5_1998()
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32)).astype(np.float32)
    distances = model(x)
    assert distances.shape == (3, 10) and np.asarray(distances).min() >= 0
    distances.backward(np.ones((3, 10)))
    absent = model.connections.numpy()[:, :, 0, 0] == 0
    assert absent.sum() == 36 and not model.C3.weight.grad[absent].any() and model.C3.weight.grad[~absent].any()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: models.resnet18()(np.zeros((1, 1, 64, 64), np.float32)), "conv1.*1 channels"),
        (
            lambda: models.vgg11()(np.zeros((1, 3, 16, 16), np.float32)),
            r"features\.\d+: max_pool2d: input 1x1 is smaller",
        ),
        (lambda: models.unet()(np.zeros((1, 1, 30, 32), np.float32)), "UNet: height and width must be multiples of 16"),
        (lambda: models.vgg.VGG("C"), "configuration must be one of A, B, D, E"),
        (lambda: models.mlp((3,)), "MLP: give 2 sizes"),
    ],
)
def test_errors(call, message):
    with nn.init.skip(), pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "squeezenet1_1", "googlenet", "densenet121", "mobilenet_v2", "fcn_resnet50"]
)
def test_replace_head(name, tmp_path):
    with nn.init.skip():
        model = getattr(models, name)(num_classes=9)
    before = model.state_dict()
    assert models.replace_head(model, 4) is model and model.num_classes == 4
    changed = {key for key, value in model.state_dict().items() if value.shape != before[key].shape}
    heads = 3 if name == "googlenet" else 1
    assert len(changed) == 2 * heads and all(model.state_dict()[key].shape[0] == 4 for key in changed)
    again = build(json.loads(json.dumps(describe(model))))
    assert [v.shape for v in again.state_dict().values()] == [v.shape for v in model.state_dict().values()]
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        models.replace_head(model, 0)


def test_fine_tuning_moves_the_head_only():
    fc.manual_seed(0)
    model = models.replace_head(models.cifar_resnet20(), 3)
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((6, 3, 32, 32)).astype(np.float32), rng.integers(0, 3, 6)
    groups = [{"params": model.fc.weight, "lr": 0.1}, {"params": model.fc.bias, "lr": 0.2}]
    before, step = model.state_dict(), fc.compile_step(model.eval(), nn.CrossEntropyLoss(), optim.SGD(groups, 0.1))
    step(x, t)
    moved = {key for key, value in model.state_dict().items() if not np.array_equal(value, before[key])}
    assert moved == {"fc.weight", "fc.bias"}
    kernels = [s.kernel for s in step.program(x, t).steps if s.phase == "backward"]
    assert not any(k.startswith(("conv", "wgrad", "batch_norm")) for k in kernels)


def test_extract_features():
    model = models.cifar_resnet20()
    x = np.random.default_rng(0).standard_normal((7, 3, 32, 32)).astype(np.float32)
    features = fc.extract_features(model, x, "avgpool", batch_size=3)
    assert features.shape == (7, 64, 1, 1) and model.training and model.bn1.training
    logits = features[:, :, 0, 0] @ model.fc.weight.numpy().T + model.fc.bias.numpy()
    np.testing.assert_allclose(model.eval()(x), logits, rtol=1e-4, atol=1e-5)
    assert fc.extract_features(model, x, "layer2.0.conv2").shape == (7, 32, 16, 16)
    with pytest.raises(ValueError, match=r"no layer 'layer9'; forward\(\) calls conv1"):
        fc.extract_features(model, x, "layer9")


def test_features_for_a_linear_classifier():
    svm = pytest.importorskip("sklearn.svm")
    train, test = fc.datasets.digits()
    fc.manual_seed(0)
    model = models.lenet5()
    pairs = []
    for data in (train, test):
        images, labels = data.batch(np.arange(len(data)))
        keep = labels < 5
        pairs.append((images[keep], labels[keep]))
    (x, y), (tx, ty) = pairs
    fc.Trainer(model, optimizer=optim.Adam(model.parameters(), 2e-3)).fit((x, y), epochs=1, progress=False)
    features = [fc.extract_features(model, v, "relu4").reshape(len(v), -1) for v in (x, tx)]
    assert svm.LinearSVC().fit(features[0], y).score(features[1], ty) > 0.97
