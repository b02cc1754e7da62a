"""fastcnn."""

from __future__ import annotations

import numpy as np

from . import common

CONFIGS = {
    task: ["default"] for task in (*common.TRAIN, *common.INFER, "mnist_epoch", "conv", "sgemm", "import", "memory")
}


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    import fastcnn
    from fastcnn import _core

    return {"fastcnn": fastcnn.__version__, "ISA": _core.isa()["name"], "compiler": _core.compiler()}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": common.result(common.import_seconds("fastcnn", quick))}
    import fastcnn as fc

    fc.set_num_threads(threads)
    if found := common.network(task):
        name, what = found
        return {"train": train, "infer": infer}[what](name, quick)
    return {"conv": conv, "sgemm": sgemm, "mnist_epoch": epoch, "memory": memory}[task](threads, quick)


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


def train(name: str, quick: bool) -> dict[str, dict]:
    import fastcnn as fc
    from fastcnn import nn, optim

    model = build(name)
    sgd = optim.SGD(model.parameters(), common.learning_rate(name), common.MOMENTUM)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), sgd)
    return common.time_training(name, quick, lambda x, y: lambda: step(x, y))


def infer(name: str, quick: bool) -> dict[str, dict]:
    model = build(name).eval()
    return common.time_inference(name, quick, lambda x: lambda: model(x))


def _trainer():
    import fastcnn as fc
    from fastcnn import nn, optim

    model = build("lenet5")
    sgd = optim.SGD(model.parameters(), common.learning_rate("lenet5"), common.MOMENTUM)
    return fc.Trainer(model, nn.CrossEntropyLoss(), sgd)


def epoch(threads: int, quick: bool) -> dict[str, dict]:
    """Trainer.fit over a data set of bytes, shuffled."""
    import fastcnn as fc

    images, labels, source = common.mnist()
    count = 10000 if quick else len(images)
    data = fc.Dataset(images[:count], labels[:count], scale=1 / 255)
    trainer = _trainer()
    losses: list[float] = []

    def one_epoch():
        losses.append(trainer.fit(data, epochs=1, batch_size=common.BATCH, progress=False)["loss"][-1])

    times = common.timed(one_epoch, 0, least=1, warm=0 if quick else 1)
    return {"MNIST epoch": common.result(times, images=count, loss=losses[-1], data=source)}


def memory(threads: int, quick: bool) -> dict[str, dict]:
    """The most resident memory of a process that trains LeNet-5 on MNIST for an epoch."""
    epoch(threads, quick)
    return {"resident MB": common.memory()}


def conv_program(kind: str, p: common.Conv):
    """(program, its inputs) of one pass of a convolution; kind: forward, data gradient or weight gradient."""
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol, add_node
    from fastcnn.ops import OPS

    attrs = dict(stride=(p.stride,) * 2, pads=(p.padding,) * 4, dilation=(1, 1), groups=1)
    x, w, dy = p.arrays()
    if kind == "forward":
        arrays, op, extra = [x, w], "conv2d", {}
    elif kind == "data gradient":
        arrays, op, extra = [dy, w], "conv2d_data", {"shape": p.x_shape}
    else:
        arrays, op, extra = [x, dy], "conv2d_weight", {"shape": p.w_shape}
    inputs = [Symbol(a.shape) for a in arrays]
    return Program(inputs, [add_node(OPS[op], inputs, **attrs, **extra)]), arrays


EDGE = ("pack_lanes_c", "pack_lanes_n", "unpack_lanes_c", "unpack_lanes_n", "halo", "copy")


def conv(threads: int, quick: bool) -> dict[str, dict]:
    """Every pass of every layer: the convolution and its weight packing, as inside a network; the conversion between
    NCHW and the internal layout, which a network does at its edges, is given apart (`edges`)."""
    out = {}
    for p in common.convolutions(quick):
        for kind in ("forward", "data gradient", "weight gradient"):
            program, arrays = conv_program(kind, p)
            y = program.forward(arrays)[0]
            steps, io = program.steps, (*arrays, y)
            inside = np.array([step.kernel not in EDGE for step in steps])
            times, edges, timings = [], [], np.zeros(len(steps))

            def call(program=program, io=io, timings=timings, inside=inside, times=times, edges=edges):
                program.plan.run(io, 0, len(program.plan), threads, timings)
                times.append(timings[inside].sum() * 1e-3)
                edges.append(timings[~inside].sum() * 1e-3)

            common.timed(call, 0.2 if quick else 0.6, least=3, warm=1)
            out[f"{p.name} {kind}"] = common.result(times[1:], y, flops=p.flops, edges=float(np.median(edges)))
    return out


def sgemm(threads: int, quick: bool) -> dict[str, dict]:
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol, add_node
    from fastcnn.ops import OPS

    out = {}
    for name, n in common.sgemm_sizes(quick):
        a, b = common.matrices(n)
        inputs = [Symbol(a.shape), Symbol(b.shape)]
        program = Program(inputs, [add_node(OPS["matmul"], inputs)])
        c = np.empty((n, n), np.float32)
        call = lambda program=program, io=(a, b, c): program.plan.run(io, 0, len(program.plan), threads)
        program.forward([a, b])
        times = common.timed(call, 0.3 if quick else 1, warm=3)
        out[name] = common.result(times, c, flops=2.0 * n**3)
    return out
