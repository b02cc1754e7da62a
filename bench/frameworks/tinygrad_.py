"""tinygrad: a TinyJit of the training step, on kernels that it compiles with clang."""

from __future__ import annotations

import os

from . import common, measure

CONFIGS = {"lenet_train": ["jit"], "keras_cnn_train": ["jit"], "import": ["plain"]}


def environment(config: str) -> dict[str, str]:
    return {"DEV": "CPU", "TRAINING": "1"}


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"tinygrad": version("tinygrad")}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": measure.result(measure.import_seconds("tinygrad", quick))}
    os.environ["NUM_CPU_THREADS"] = str(threads)  # read when tinygrad is imported
    from tinygrad import Tensor, TinyJit, nn

    name, _ = common.network(task)
    layers = [(kind, a[-1] if kind == "conv" else 0) for kind, *a in common.MODELS[name]]
    weights = [Tensor(array).realize() for array in common.weights(name)]
    sgd = nn.optim.SGD(weights, lr=common.learning_rate(name), momentum=common.MOMENTUM)

    def logits(x):
        left = iter(weights)
        for kind, padding in layers:
            if kind == "conv":
                x = x.conv2d(next(left), next(left), padding=padding)
            elif kind == "linear":
                x = x.linear(next(left).T, next(left))
            else:
                x = {"relu": x.relu, "pool": x.max_pool2d, "flatten": lambda x=x: x.flatten(1)}[kind]()
        return x

    @TinyJit
    def step(x, y):
        sgd.zero_grad()
        loss = logits(x).sparse_categorical_crossentropy(y).backward()
        return loss.realize(*sgd.schedule_step())

    def prepare(x, y):
        x, y = Tensor(x).realize(), Tensor(y).realize()
        return lambda: step(x, y).item()

    return measure.time_training(name, quick, prepare)
