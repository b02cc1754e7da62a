"""The command `fastcnn`: train, evaluate, predict, summary, profile, info, bench.

Nothing heavy is imported before a command runs, so that --help answers at once. Exit codes: 0 done,
2 an error (one line on stderr), 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from .data import Dataset
    from .nn import Module

DATA = ("digits", "mnist")
OPTIMIZERS = {"adam": 0.002, "sgd": 0.05}  # and the learning rate each begins with
# The small set gets more epochs, smaller batches, and its images moved about at random.
DEFAULTS = {
    "digits": {"epochs": 30, "batch_size": 32, "shift": 2},
    "mnist": {"epochs": 5, "batch_size": 64, "shift": 0},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv without the program by default); returns the exit code."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        code = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("fastcnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `fastcnn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("FASTCNN_TRACEBACK"):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"fastcnn: error: {text}", file=sys.stderr)
        return 2


def _show_warning(message: Any, category: Any, *rest: Any, **more: Any) -> None:
    print(f"fastcnn: warning: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fastcnn", description="Train and use small, fast convolutional networks.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    def data_options(added: argparse.ArgumentParser, default: str) -> None:
        added.add_argument("--data", choices=DATA, help=f"data set (default: {default})")
        added.add_argument(
            "--data-dir",
            metavar="D",
            help="folder of the MNIST files, gzipped or not (default: the cache; what is missing is downloaded)",
        )
        added.add_argument("--threads", type=_positive, metavar="N", help="CPU threads")

    train = command("train", _train, "Train a model and save it, with its training curve.")
    train.add_argument("model", metavar="MODEL", help="lenet5, keras_cnn")
    data_options(train, "digits, embedded")
    train.add_argument("--epochs", type=_positive, metavar="N", help="digits: 30, mnist: 5")
    train.add_argument("--batch-size", type=_positive, metavar="N", help="digits: 32, mnist: 64")
    train.add_argument("--lr", type=_rate, metavar="X", help="first learning rate; it falls to 0")
    train.add_argument("--optimizer", choices=OPTIMIZERS, help="default: adam")
    train.add_argument("--clip-grad-norm", type=_rate, metavar="X", help="largest norm of all gradients together")
    train.add_argument("--seed", type=_seed, metavar="N", help="default: 0")
    train.add_argument("--out", default="runs", metavar="DIR", help="default: runs")
    train.add_argument("--resume", metavar="FILE", help="go on from a checkpoint of this command")
    train.add_argument("--quiet", action="store_true", help="no progress bar")

    evaluate = command("evaluate", _evaluate, "Loss and accuracy of a saved model on test data.")
    evaluate.add_argument("file", metavar="FILE", help="a file of `fastcnn train` or fastcnn.save")
    data_options(evaluate, "what the model was trained on")

    predict = command("predict", _predict, "Classify image files with a saved model.")
    predict.add_argument("file", metavar="MODEL", help="a file of `fastcnn train` or fastcnn.save")
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="PNG, JPEG, ...")
    predict.add_argument("--top", type=_positive, default=3, metavar="N", help="classes to show")

    summary = command("summary", _summary, "Print a model's layers, shapes and parameters.")
    summary.add_argument("model", metavar="MODEL", help="the name of a model, such as resnet18, or a saved file")

    profile = command("profile", _profile, "Where the time of a training step or of inference goes, kernel by kernel.")
    profile.add_argument("model", metavar="MODEL", help="the name of a model, such as resnet50")
    mode = profile.add_mutually_exclusive_group()
    mode.add_argument("--infer", dest="train", action="store_false", default=False, help="inference (the default)")
    mode.add_argument("--train", action="store_true", help="a training step: forward, loss, backward, update")
    profile.add_argument("--batch", type=_positive, default=16, metavar="N", help="default: 16")
    profile.add_argument("--size", type=_size, metavar="S", help="pixels: 160, or 160x240 (default: the model's)")
    profile.add_argument("--threads", type=_positive, metavar="N", help="CPU threads")
    profile.add_argument(
        "--runs", type=_positive, default=5, metavar="N", help="of which medians are taken; default: 5"
    )
    profile.add_argument("--top", type=_positive, metavar="N", help="only the N slowest kernel calls, slowest first")
    profile.add_argument("--json", action="store_true", help="print JSON instead of the table")
    picture = profile.add_mutually_exclusive_group()
    picture.add_argument(
        "--plot",
        metavar="FILE",
        help="where the picture goes: .png, .svg or .pdf; default: profile-MODEL.png, where matplotlib ('.[plot]') is",
    )
    picture.add_argument("--no-plot", dest="plot", action="store_const", const="", help="no picture")
    profile.add_argument("--recalibrate", action="store_true", help="measure anew what this machine can do at most")

    command("info", _info, "Print version, instruction set, threads, compiler and kernels.")
    bench = command("bench", _bench, "A quick speed check on LeNet-5, next to PyTorch if installed.")
    bench.add_argument("--threads", type=_positive, metavar="N", help="CPU threads")
    bench.add_argument("--seconds", type=_rate, default=1.0, metavar="X", help="per measurement")
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        import fastcnn

        print(f"fastcnn {fastcnn.__version__}")
        parser.exit()


def _positive(text: str) -> int:
    return _bounded(text, 1)


def _seed(text: str) -> int:
    return _bounded(text, 0)


def _bounded(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be an integer >= {least}, not {text!r}")
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number > 0, not {text!r}")
    return number


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _positive(height), _positive(width or height)


def _model_maker(name: str) -> Any:
    """The function of `models` with this name."""
    from . import models

    if name not in models.list_models():
        raise ValueError(f"unknown model {name!r}; there are {', '.join(models.list_models())}")
    return getattr(models, name)


def _data(name: str, folder: str | None) -> tuple[Dataset, Dataset]:
    from . import datasets

    if name == "mnist":
        return datasets.mnist(folder)
    return datasets.digits()


def _threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        import fastcnn

        fastcnn.set_num_threads(arguments.threads)


def _train(arguments: argparse.Namespace) -> int:
    from .cli_train import train

    _threads(arguments)
    return train(arguments, _model_maker, _data)


def _evaluate(arguments: argparse.Namespace) -> int:
    import fastcnn

    _threads(arguments)
    model, info = _saved(arguments.file)
    name = arguments.data or info.get("data")
    if name not in DATA:
        raise ValueError(f"{arguments.file} does not say what it was trained on; give --data")
    test = _data(name, arguments.data_dir)[1]
    result = fastcnn.Trainer(model).evaluate(test)
    print(
        f"{arguments.file} on the {len(test):,} test images of {name}: "
        f"accuracy {100 * result['accuracy']:.2f} %, loss {result['loss']:.4f}"
    )
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    import numpy as np

    from .functional import softmax
    from .image import read_image

    model, info = _saved(arguments.file)
    try:
        channels, height, width = (int(size) for size in info["shape"])
        scale, shift = float(info["scale"]), float(info["shift"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{arguments.file} does not say how its images were normalised (a file of "
            f"`fastcnn train` does); use fastcnn.load and call the model"
        ) from None
    if channels != 1:
        raise ValueError(f"{arguments.file} takes images of {channels} channels, predict gives 1")
    for path in arguments.images:
        pixels = read_image(path, height, width)
        x = pixels[None, None].astype(np.float32) * np.float32(scale) + np.float32(shift)
        chances = np.asarray(softmax(np.asarray(model(x)), 1))[0]
        classes = info.get("classes") or range(len(chances))
        best = np.argsort(-chances, kind="stable")[: arguments.top]
        shown = [f"{classes[i] if i < len(classes) else i} {100 * chances[i]:.1f} %" for i in best]
        print(f"{path}: {shown[0]}" + (f"   ({', '.join(shown[1:])})" if shown[1:] else ""))
    return 0


def _saved(path: str) -> tuple[Module, dict[str, Any]]:
    from .io import load, read_info

    return load(path), read_info(path)


def _summary(arguments: argparse.Namespace) -> int:
    if Path(arguments.model).suffix:
        model, info = _saved(arguments.model)
        shape = tuple(info.get("shape") or (1, 28, 28))
    else:
        from .models import input_shape

        model, shape = _model_maker(arguments.model)().eval(), input_shape(arguments.model)
    print(model.summary((1, *shape)))
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    from .cli_profile import run_profile

    _threads(arguments)
    return run_profile(arguments)


def _info(arguments: argparse.Namespace) -> int:
    import fastcnn

    fastcnn.show_config()
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    from .cli_bench import bench

    _threads(arguments)
    return bench(arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
