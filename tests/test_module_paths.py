"""Where errors and summaries say that something is: the path of the module, as state dicts have it."""

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import models, nn
from fastcnn.graph.trace import Symbol, tracing


class Nested(nn.Module):
    """Layers in lists and dicts, one of them twice, and a parameter of its own."""

    def __init__(self, norm=False):
        super().__init__()
        self.norm = norm
        self.parts = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3, padding=1)})
        self.parts["more"] = nn.ModuleList([nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1)]), nn.BatchNorm2d(5)])
        self.scale = nn.Parameter(np.ones((4, 1, 1), np.float32))

    def forward(self, x):
        convolve = self.parts["more"][0][0]
        x = convolve(convolve(self.parts["stem"](x))) * self.scale
        return self.parts["more"][1](x) if self.norm else x


class Strict(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, x):
        raise ValueError(self.text)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "googlenet", "lenet5", "unet", "lenet5_1998"])
def test_wrong_rank_and_channels_name_the_module(name):
    model, (channels, *size) = models.get_model(name), models.input_shape(name)
    layer = next(path for path, m in model.named_modules() if isinstance(m, nn.Conv2d))
    with pytest.raises(ValueError, match=rf"{layer}: conv2d: input has {channels + 1} channels .* expected {channels}"):
        model(zeros(2, channels + 1, *size))
    with pytest.raises(ValueError, match=r"input must have 4 dimensions .*, got shape \(2, 1, ") as caught:
        model(zeros(2, 1, channels, *size))
    assert str(caught.value).startswith((layer, "UNet"))


def test_a_batch_norm_and_a_layer_of_ones_own_are_named_once():
    with pytest.raises(ValueError, match=r"^parts\.more\.1: BatchNorm2d: input has 4 channels .* expected 5"):
        Nested(norm=True)(zeros(1, 3, 4, 4))
    model = nn.Sequential(nn.Sequential(nn.ReLU(), Strict("not this")))
    with pytest.raises(ValueError, match=r"^0\.1: not this$"):
        model(zeros(1, 3))


def test_paths_of_lists_and_dicts_are_those_of_the_state_dict():
    model, calls = Nested(), []
    with tracing(calls):
        model.forward(Symbol((1, 3, 4, 4)))
    assert [path for path, *_ in calls] == ["parts.stem", "parts.more.0.0", "parts.more.0.0"]
    assert fc.extract_features(model, zeros(1, 3, 4, 4), "parts.stem").shape[0] == 1


def test_a_summary_adds_up():
    text = Nested().summary((1, 3, 4, 4))
    rows = [line.split() for line in text.splitlines() if line.startswith("parts")]
    assert [row[-3] for row in rows] == ["112", "148", "0"]
    assert [row[-2] for row in rows] == ["1,728", "4,608", "0"]
    assert "(outside of these)" in text and "274 parameters" in text and "6,336 multiply-adds" in text
    assert "C3 " in models.lenet5_1998().summary((1, 1, 32, 32))


@pytest.mark.parametrize(
    "name, side", [("alexnet", 63), ("vgg11", 32), ("googlenet", 15), ("squeezenet1_1", 17), ("densenet121", 29)]
)
def test_an_image_that_is_too_small_is_told_how_small_is_too_small(name, side):
    with nn.init.skip():
        model = models.get_model(name).eval()
    x = np.zeros((1, 3, side - 1, side - 1), np.float32)
    with pytest.raises(ValueError, match=rf"is smaller than the .*large enough is \(1, 3, {side}, {side}\)") as caught:
        model(x)
    assert str(caught.value).split(":")[0] in dict(model.named_modules())
    model(np.zeros((1, 3, side, side), np.float32))
