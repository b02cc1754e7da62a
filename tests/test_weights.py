"""Pretrained weights: the table against torchvision's, preprocessing, what a builder takes."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from weight_files import same, sha, write_pth

import fastcnn as fc
from fastcnn import models, nn
from fastcnn.image import Preprocess
from fastcnn.io import FileFormatError
from fastcnn.models.weights import Weights, WeightsEnum

PRETRAINED = [name for name in models.list_models() if hasattr(getattr(models, name), "weights_enum")]
MEMBERS = [member for name in PRETRAINED for member in models.get_model_weights(name)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCNN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FASTCNN_WEIGHTS_URL", raising=False)
    return tmp_path / "home" / "weights"


# ---- the table ----------------------------------------------------------------------------------
def test_every_published_network_is_here(torchvision):
    theirs = set(torchvision.list_models(torchvision)) | {"fcn_resnet50"}
    assert set(PRETRAINED) == theirs & set(models.list_models()) and len(PRETRAINED) == 24


@pytest.mark.parametrize("name", PRETRAINED)
def test_table_is_torchvisions(name, torchvision):
    ours, theirs = models.get_model_weights(name), torchvision.get_model_weights(name)
    assert ours.__name__ == theirs.__name__ and list(ours.__members__) == list(theirs.__members__)
    assert ours.DEFAULT.name == theirs.DEFAULT.name
    for mine, other in zip(ours, theirs):
        assert mine.url == other.url and mine.value.sha256 in other.url
        meta, figures = mine.meta, {k: v for m in other.meta["_metrics"].values() for k, v in m.items()}
        assert all(meta[key] == other.meta[key] for key in ("categories", "num_params", "min_size"))
        assert {k: v for k, v in meta.items() if k in figures and v is not None} == {
            k: v for k, v in figures.items() if v == v
        }
        assert len(meta["categories"] or range(1000)) == mine.value.num_classes
        a, b = mine.transforms(), other.transforms()
        assert [a.resize_size] == b.resize_size and [a.crop_size] == getattr(b, "crop_size", [None])
        assert (list(a.mean), list(a.std), a.interpolation) == (b.mean, b.std, b.interpolation.value)


@pytest.mark.parametrize(
    "name", sorted({*PRETRAINED} - {"alexnet", "wide_resnet50_2"} - set(models.list_models(models.vgg)))
)
def test_parameters_are_those_of_the_file(name):
    enum = models.get_model_weights(name)
    for options in {str(member.value.options): member.value.options for member in enum}.values():
        with nn.init.skip():
            model = models.get_model(name, **options)
        assert sum(p.size for p in model.parameters()) == enum.DEFAULT.meta["num_params"]


@pytest.mark.parametrize("name", PRETRAINED)
def test_arrays_are_those_of_torchvisions_network(name, torchvision):
    import torch

    heads = {"fcn_resnet50": "aux_loss", "googlenet": "aux_logits", "inception_v3": "aux_logits"}
    options = {heads[name]: True} if name in heads else {}
    with nn.init.skip():
        ours = models.get_model(name, **options)
    if name == "fcn_resnet50":
        options["weights_backbone"] = None
    elif name in heads:
        options["init_weights"] = False
    with torch.device("meta"):
        theirs = torchvision.get_model(name, **options)
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours._named_state()} == shapes


def test_lookup_by_name():
    weights = models.ResNet50_Weights.IMAGENET1K_V2
    assert models.ResNet50_Weights.DEFAULT is weights and repr(weights) == "ResNet50_Weights.IMAGENET1K_V2"
    assert models.get_weight("ResNet50_Weights.IMAGENET1K_V2") is weights
    assert models.get_model_weights(models.resnet50) is models.get_model_weights("ResNet50") is models.ResNet50_Weights
    assert pickle.loads(pickle.dumps(weights)) is weights and copy.deepcopy(weights) is weights
    assert weights.meta["categories"][207] == "golden retriever"
    assert models.FCN_ResNet50_Weights.DEFAULT.meta["categories"][12] == "dog"
    assert {"lenet5", "resnet18", "unet"} <= set(models.list_models()) and "get_model" not in models.list_models()
    assert models.list_models(models) == models.list_models()
    assert models.list_models(models.mobilenet) == ["mobilenet_v2", "mobilenet_v3_small"]
    assert models.list_models(include="resnet1*", exclude=["*52"]) == ["resnet101", "resnet18"]
    assert isinstance(models.get_model("LeNet5", weights=None, progress=False, num_classes=3), models.LeNet5)
    assert list(inspect.signature(models.resnet18).parameters) == ["weights", "progress", "kwargs"]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: models.resnet18(weights="V3"),
            ValueError,
            r"resnet18: no weights 'V3' in ResNet18_Weights, which has ",
        ),
        (
            lambda: models.resnet18(weights=models.VGG11_Weights.DEFAULT),
            TypeError,
            "resnet18: .*ResNet18_Weights.*VGG11",
        ),
        (lambda: models.resnet18(weights=True), TypeError, "a path or None, got True"),
        (lambda: models.resnet18(weights="DEFAULT", num_classes=7), ValueError, r"replace_head\(model, 7\)"),
        (lambda: models.resnet18(weights="DEFAULT", depth=7), TypeError, "depth"),
        (lambda: models.resnet18(weights="nowhere.pth"), FileNotFoundError, r"nowhere\.pth"),
        (lambda: models.get_weight("ResNet18_Weights"), ValueError, "no weights 'ResNet18_Weights'"),
        (lambda: models.get_weight("ResNet.V1"), ValueError, "no weights 'ResNet.V1'"),
        (lambda: models.get_model("resnet19"), ValueError, "unknown model 'resnet19'; there are alexnet, "),
        (lambda: models.get_model("lenet5", weights="DEFAULT"), ValueError, "lenet5: no weights are published"),
        (lambda: models.get_model_weights("unet"), ValueError, "no weights are published for unet"),
        (lambda: Weights("https://example.org/model.pth"), ValueError, "Weights: url must .* sha256"),
        (lambda: Weights("ftp://example.org/model-01234567.pth"), ValueError, "Weights: url must be http"),
    ],
)
def test_errors(call, error, message, cache):
    with pytest.raises(error, match=message):
        call()
    assert not cache.exists()


# ---- preprocessing ------------------------------------------------------------------------------
SIZES = [(37, 52), (300, 256), (256, 300), (224, 224), (500, 233), (19, 261)]


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "efficientnet_b0", "fcn_resnet50"])
def test_transforms_are_torchvisions(name, torchvision):
    import torch

    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(5)
    ours = models.get_model_weights(name).DEFAULT.transforms()
    theirs = torchvision.get_model_weights(name).DEFAULT.transforms()
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        picture = image.fromarray(pixels)
        got = ours(picture)
        assert got.dtype == np.float32 and got.flags.c_contiguous
        # both resize with Pillow, then do the same three float32 operations on each pixel: the same bits
        np.testing.assert_array_equal(got, theirs(picture).numpy())
        np.testing.assert_array_equal(ours(pixels), got)
        if ours.interpolation == "bicubic":
            continue  # it overshoots, which Pillow cuts off between its two passes and torch at the end
        # a tensor is resized by torch, which rounds to bytes once, where Pillow does after each of its two passes
        other = theirs(torch.from_numpy(pixels).permute(2, 0, 1)).numpy()
        assert np.abs((other - got) * np.float32(ours.std)[:, None, None]).max() <= 1.01 / 255


def test_preprocess_takes_modes_and_batches():
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(6)
    grey = rng.integers(0, 256, (40, 30), np.uint8)
    prepare = Preprocess(resize_size=20, crop_size=16, mean=(0, 0, 0), std=(1, 1, 1))
    got = prepare(image.fromarray(grey))
    assert got.shape == (3, 16, 16) and (got[0] == got[1]).all() and 0 <= got.min() < got.max() <= 1
    three = np.repeat(grey[:, :, None], 3, 2)
    np.testing.assert_array_equal(prepare(np.stack([three, three[::-1]]))[0], got)
    np.testing.assert_array_equal(prepare(image.fromarray(three).convert("RGBA")), got)
    whole = Preprocess(resize_size=30, crop_size=None, mean=(0, 0, 0), std=(1, 1, 1))(three)
    np.testing.assert_array_equal(whole, three.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert models.ResNet50_Weights.DEFAULT.transforms(crop_size=200).crop_size == 200


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda p: p(np.zeros((8, 8, 3))), TypeError, "uint8 array, got ndarray of float64"),
        (lambda p: p("cat.jpg"), TypeError, "a PIL image or a uint8 array, got str"),
        (lambda p: p(np.zeros((8, 8), np.uint8)), ValueError, r"\[H, W, 3\] or \[N, H, W, 3\], got \[8, 8\]"),
        (lambda p: p(np.zeros((0, 8, 3), np.uint8)), ValueError, r"got \[0, 8, 3\]"),
        (lambda p: Preprocess(crop_size=300), ValueError, "crop_size 300 is larger than resize_size 256"),
        (lambda p: Preprocess(resize_size=0), ValueError, "resize_size must be at least 1"),
        (lambda p: Preprocess(interpolation="nearest"), ValueError, "interpolation must be"),
        (lambda p: Preprocess(std=(1, 0, 1)), ValueError, "std above 0"),
    ],
)
def test_preprocess_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(Preprocess())


def test_preprocess_refuses_deep_pixels():
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(ValueError, match="8 bits a channel, got mode 'F'"):
        Preprocess()(image.fromarray(np.zeros((8, 8), np.float32)))


def test_importing_models_loads_no_network_or_image_code(tmp_path):
    code = (
        "import sys, fastcnn.models; print(sorted({'PIL', 'ssl', 'urllib.request', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True) == "[]\n"


# ---- what a builder takes -----------------------------------------------------------------------
def random_state(model, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(3) if v.dtype.kind == "i" else rng.standard_normal(v.shape, np.float32)
        for name, v in model.state_dict().items()
    }


def put(cache, monkeypatch, member, state):
    """The file of this member, in the cache, as if it had been published."""
    cache.mkdir(parents=True, exist_ok=True)
    path = write_pth(cache / member.value.file_name, state)
    monkeypatch.setattr(member.value, "sha256", sha(path.read_bytes())[:8])
    return path


def test_every_way_to_name_weights(cache, monkeypatch, tmp_path):
    with nn.init.skip():
        state = random_state(models.squeezenet1_1())
    member = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    file = put(cache, monkeypatch, member, state)
    fc.save(models.squeezenet1_1(weights=file), tmp_path / "s.safetensors")
    fc.manual_seed(4)
    expected = fc.random.generator().random()
    fc.manual_seed(4)
    names = ["IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1", "DEFAULT", member]
    for weights in [*names, str(file), file, tmp_path / "s.safetensors"]:
        model = models.squeezenet1_1(weights=weights, progress=False, dropout=0.1)
        same(model, state)
        assert model.dropout == 0.1 and model.training
    assert fc.random.generator().random() == expected  # nothing was drawn
    same(models.get_model("squeezenet1_1", weights="DEFAULT"), state)
    assert set(member.get_state_dict()) == set(state)
    assert not np.array_equal(models.squeezenet1_1().features[0].weight.numpy(), state["features.0.weight"])


def test_path_takes_other_classes_and_must_fit(tmp_path):
    with nn.init.skip():
        state = random_state(models.squeezenet1_1(num_classes=5))
    file = write_pth(tmp_path / "mine.pt", state)
    same(models.squeezenet1_1(weights=file, num_classes=5), state)
    with pytest.raises(FileFormatError, match=r"mine\.pt: the weights do not fit.*classifier\.1\.weight is \(5, 512"):
        models.squeezenet1_1(weights=file)
    with pytest.raises(FileFormatError, match=r"mine\.pt: .*is missing in the file"):
        models.mobilenet_v3_small(weights=file)
    model = models.squeezenet1_1()
    before = model.state_dict()
    with pytest.raises(FileFormatError):
        models.weights.fill(model, file)
    same(model, before)


def test_auxiliary_heads(cache, monkeypatch, tmp_path):
    with nn.init.skip():
        state = random_state(models.googlenet())
    member = models.GoogLeNet_Weights.IMAGENET1K_V1
    file = put(cache, monkeypatch, member, state)
    main = {name: value for name, value in state.items() if not name.startswith("aux")}
    for weights in ("DEFAULT", file):  # the file itself needs what the name needs
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = models.googlenet(weights=weights)
        assert (model.aux_logits, model.aux1, model.transform_input) == (False, None, True)
        same(model, main)
    with pytest.warns(UserWarning, match="googlenet: GoogLeNet_Weights.IMAGENET1K_V1 has no trained auxiliary heads"):
        same(models.googlenet(weights="DEFAULT", aux_logits=True), state)
    same(models.googlenet(weights=file.rename(tmp_path / "mine.pth")), state)  # as asked for: with heads
    fc.save(model, tmp_path / "again.safetensors")
    same(fc.load(tmp_path / "again.safetensors"), main)
    with pytest.raises(FileFormatError, match=r"aux1.*is missing in the file"):
        models.googlenet(weights=write_pth(tmp_path / "main.pth", main))


@pytest.mark.parametrize(
    "name, option, head", [("inception_v3", "aux_logits", "AuxLogits"), ("fcn_resnet50", "aux_loss", "aux_classifier")]
)
def test_auxiliary_heads_that_stay(name, option, head, monkeypatch):
    member = models.get_model_weights(name).DEFAULT
    with nn.init.skip():
        state = {
            k: np.ones((), v.dtype) if v.ndim == 0 else v
            for k, v in models.get_model(name, **{option: True}).state_dict().items()
        }
    monkeypatch.setattr(WeightsEnum, "download", lambda self, progress: "somewhere")
    monkeypatch.setattr("fastcnn.io.checkpoint.load_state", lambda path: state)
    model = models.get_model(name, weights="DEFAULT")
    assert getattr(model, head) is not None and sum(p.size for p in model.parameters()) == member.meta["num_params"]
    model = models.get_model(name, weights="DEFAULT", **{option: False})
    assert getattr(model, head) is None and getattr(model, option) is False


def test_old_files(tmp_path):
    with nn.init.skip():
        state = random_state(models.densenet121())
    old = {}
    for name, value in state.items():
        if "num_batches_tracked" not in name:
            for kind in ("norm", "conv"):
                for i in "12":
                    name = name.replace(f".{kind}{i}.", f".{kind}.{i}.") if "denselayer" in name else name
            old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old and "features.norm0.weight" in old
    model = models.densenet121(weights=write_pth(tmp_path / "old.pth", old))
    same(model, {k: np.asarray(0) if "num_batches" in k else v for k, v in state.items()})
    some = {k: v for k, v in state.items() if k != "features.norm0.num_batches_tracked"}
    with pytest.raises(FileFormatError, match=r"features\.norm0\.num_batches_tracked is missing in the file"):
        models.densenet121(weights=write_pth(tmp_path / "some.pth", some))


def test_half_precision(tmp_path):
    with nn.init.skip():
        state = {
            k: v.astype(np.float16) if v.dtype.kind == "f" else v
            for k, v in random_state(models.squeezenet1_1()).items()
        }
    same(
        models.squeezenet1_1(weights=write_pth(tmp_path / "half.pth", state)),
        {k: v.astype(np.float32) for k, v in state.items()},
    )


def test_file_that_torch_wrote(torchvision, tmp_path, cache, monkeypatch):
    import torch

    theirs = torchvision.squeezenet1_1()
    for new in (True, False):
        torch.save(theirs.state_dict(), tmp_path / "theirs.pth", _use_new_zipfile_serialization=new)
        same(
            models.squeezenet1_1(weights=tmp_path / "theirs.pth"),
            {k: v.numpy() for k, v in theirs.state_dict().items()},
        )
