"""fastcnn."""

from __future__ import annotations

from . import common, fastcnn_ops, measure

TASKS = ("mnist_epoch", "scaling", "conv", "sgemm", "streaming", "import", "memory")
CONFIGS = {
    **{task: ["default"] for task in (*common.TRAIN, *common.INFER, *TASKS)},
    "conv": ["default", "direct"],
}


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    import fastcnn
    from fastcnn import _core

    return {"fastcnn": fastcnn.__version__, "ISA": _core.isa()["name"], "compiler": _core.compiler()}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": measure.result(measure.import_seconds("fastcnn", quick))}
    import fastcnn as fc

    fc.set_num_threads(threads)
    if found := common.network(task):
        name, what = found
        return {"train": train, "infer": infer}[what](name, quick)
    tasks = {"mnist_epoch": epoch, "memory": memory, "scaling": scaling}
    return (tasks.get(task) or getattr(fastcnn_ops, task))(config, threads, quick)


def build(name: str):
    from fastcnn import models, nn

    with nn.init.skip():
        model = getattr(models, name)(**common.LARGE_OPTIONS.get(name, {}))
    if name in common.LARGE:
        model.load_state_dict(common.large_state({k: v.shape for k, v in model._named_state()}))
    else:
        for parameter, array in zip(model.parameters(), common.weights(name), strict=True):
            parameter[...] = array
    return model


def export(name: str, batch: int, path: str) -> None:
    """Write the network as ONNX, for images of this batch."""
    import fastcnn as fc

    shape = (batch, 3, 224, 224) if name in common.LARGE else (batch, 1, 28, 28)
    fc.onnx.export(build(name), path, shape, dynamic_batch=False)


def compiled_step(name: str):
    import fastcnn as fc
    from fastcnn import nn, optim

    model = build(name)
    sgd = optim.SGD(model.parameters(), common.learning_rate(name), common.MOMENTUM)
    return fc.compile_step(model, nn.CrossEntropyLoss(), sgd)


def train(name: str, quick: bool) -> dict[str, dict]:
    """The peak of memory has beside it what the plan states, and what Python and its packages took before."""
    from fastcnn import functional, models, nn, optim  # noqa: F401

    imported = measure.resident_mb(now=True)
    step, stated = compiled_step(name), []

    def prepare(x, y):
        stated.append(step.program(x, y).peak_bytes / 1e6)
        return lambda: step(x, y)

    out = measure.time_training(name, quick, prepare)
    for thing in out:
        if "MB" in thing:
            out[thing].update(stated=stated[0], imported=imported)
    return out


def infer(name: str, quick: bool) -> dict[str, dict]:
    model = build(name).eval()
    return measure.time_inference(name, quick, lambda x: lambda: model(x))


def scaling(config: str, threads: int, quick: bool) -> dict[str, dict]:
    def prepare(name, what, x, y):
        if what == "train":
            step = compiled_step(name)
            return lambda: step(x, y)
        model = build(name).eval()
        return lambda: model(x)

    return measure.time_scaled(quick, prepare)


def epoch(config: str, threads: int, quick: bool) -> dict[str, dict]:
    """Trainer.fit over a data set of bytes, shuffled."""
    import fastcnn as fc
    from fastcnn import nn, optim

    images, labels, source = common.mnist()
    count = 10000 if quick else len(images)
    data = fc.Dataset(images[:count], labels[:count], scale=1 / 255)
    model = build("lenet5")
    sgd = optim.SGD(model.parameters(), common.learning_rate("lenet5"), common.MOMENTUM)
    trainer = fc.Trainer(model, nn.CrossEntropyLoss(), sgd)
    losses: list[float] = []

    def one_epoch():
        losses.append(trainer.fit(data, epochs=1, batch_size=common.BATCH, progress=False)["loss"][-1])

    times = measure.timed(one_epoch, 0, least=1, warm=0 if quick else 1)
    # each framework shuffles by its own random numbers: only the loss of the epoch can be compared
    return {f"epoch of {source}": measure.result(times, losses[-1:], tolerance=0.05)}


def memory(config: str, threads: int, quick: bool) -> dict[str, dict]:
    """The most resident memory of a process that trains LeNet-5 on MNIST for an epoch."""
    epoch(config, threads, quick)
    return {"resident MB": measure.memory()}
