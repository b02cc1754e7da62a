"""PyTorch: eager mode, in both memory formats, with glibc's malloc as it is and tuned to keep its blocks."""

from __future__ import annotations

import os
import re
import sys
import tempfile

from . import common

# Big blocks come from the heap and stay there: without this every large tensor is a fresh mapping, zeroed page by page.
TUNED = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=268435456"
}
_TRAIN = ["nchw", "nhwc", "nchw malloc", "nhwc malloc"]
CONFIGS = {
    "lenet_train": _TRAIN,
    "keras_cnn_train": _TRAIN,
    "mnist_epoch": ["nchw", "nhwc malloc"],
    "lenet_infer": ["nchw", "nhwc malloc", "frozen"],
    "keras_cnn_infer": ["nchw", "nhwc malloc", "frozen"],
    "conv": ["nchw malloc", "nhwc malloc"],
    "sgemm": ["mkl"],
    "import": ["plain"],
    "memory": ["nchw"],
    **{f"{name}_{what}": ["nchw", "nhwc", "nhwc malloc"] for name in common.LARGE for what in ("train", "infer")},
}


def environment(config: str) -> dict[str, str]:
    return TUNED if "malloc" in config else {}


def versions() -> dict[str, str]:
    import torch

    onednn = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "oneDNN": onednn[1] if onednn else "?",
        "ISA": torch.backends.cpu.get_cpu_capability(),
    }


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": common.result(common.import_seconds("torch", quick))}
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    model, _, what = task.rpartition("_")
    if what in ("train", "infer"):
        task, model = what, {"lenet": "lenet5"}.get(model, model)
        if model in common.LARGE:
            return {"train": large_train, "infer": large_infer}[what](model, config, quick)
        return {"train": train, "infer": infer}[what](model, config, quick)
    return {"conv": conv, "sgemm": sgemm, "mnist_epoch": epoch, "memory": memory}[task](config, quick)


def build(name: str, config: str):
    import torch
    from torch import nn

    layers = {
        "conv": lambda i, o, k, p: nn.Conv2d(i, o, k, padding=p),
        "linear": lambda i, o: nn.Linear(i, o),
        "pool": lambda: nn.MaxPool2d(2),
        "relu": lambda: nn.ReLU(),
        "flatten": lambda: nn.Flatten(),
    }
    net = nn.Sequential(*(layers[kind](*a) for kind, *a in common.MODELS[name]))
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), common.weights(name), strict=True):
            parameter.copy_(torch.from_numpy(array))
    return net.to(memory_format=torch.channels_last) if "nhwc" in config else net


def tensor(array, config: str):
    import torch

    t = torch.from_numpy(array)
    return t.contiguous(memory_format=torch.channels_last) if "nhwc" in config and t.ndim == 4 else t


def trainer(name: str, config: str):
    """One training step as a function of a batch; it returns the loss."""
    import torch

    net, loss_of = build(name, config), torch.nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), common.LEARNING_RATE, common.MOMENTUM, fused="malloc" in config)

    def step(x, y):
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(net(x), y)
        loss.backward()
        sgd.step()
        return loss

    return step


def train(name: str, config: str, quick: bool) -> dict[str, dict]:
    x, y = common.images(common.BATCH)
    x, y = tensor(x, config), tensor(y, config)
    step = trainer(name, config)
    losses = [step(x, y).item() for _ in range(common.STEPS_CHECKED)]
    times = common.timed(lambda: step(x, y).item(), 0.5 if quick else 3, warm=5)
    return {"train b64": common.result(times, losses, images=common.BATCH)}


def infer(name: str, config: str, quick: bool) -> dict[str, dict]:
    import torch

    net = build(name, config).eval()
    out = {}
    for batch in (common.BATCH, 1):
        x = tensor(common.images(batch)[0], config)
        call = net
        if config == "frozen":
            call = torch.jit.optimize_for_inference(torch.jit.trace(net, x))
        with torch.inference_mode():
            check = call(x).numpy()
            times = common.timed(lambda x=x, call=call: call(x), 0.3 if quick else 1.5, warm=20)
        out[f"infer b{batch}"] = common.result(times, check, images=batch)
    return out


def large_model(name: str, config: str):
    import torch

    try:
        import torchvision.models as models
    except RuntimeError:  # its compiled part is for another build: the networks need no more than the names
        library = torch.library.Library("torchvision", "DEF")
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.models as models

    net = getattr(models, name)(weights=None, **common.LARGE_OPTIONS[name])
    state = common.large_state({k: tuple(v.shape) for k, v in net.state_dict().items()})
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    if "dropout" in common.LARGE_OPTIONS[name]:
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    return net.to(memory_format=torch.channels_last) if "nhwc" in config else net


def large_train(name: str, config: str, quick: bool) -> dict[str, dict]:
    import torch

    batch = 2 if quick else common.LARGE[name]
    net, loss_of = large_model(name, config), torch.nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), 1e-4, common.MOMENTUM, fused="malloc" in config)
    x, y = (tensor(a, config) for a in common.large_images(batch))

    def step():
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(net(x), y)
        loss.backward()
        sgd.step()
        return loss.item()

    losses = [step() for _ in range(2)]
    times = common.timed(step, 1 if quick else 5, least=3, warm=0)
    return common.large_results(times, losses, batch)


def large_infer(name: str, config: str, quick: bool) -> dict[str, dict]:
    import torch

    net = large_model(name, config).eval()
    out = {}
    for batch in (2 if quick else common.LARGE_BATCH, 1):
        x = tensor(common.large_images(batch)[0], config)
        with torch.inference_mode():
            check = net(x).numpy()
            times = common.timed(lambda x=x: net(x), 0.5 if quick else 3, least=3, warm=0)
        out[f"infer b{batch}"] = common.result(times, check, images=batch)
    return out


def epoch(config: str, quick: bool) -> dict[str, dict]:
    """PyTorch's plain loop: shuffled slices of float32 tensors that are in memory already."""
    import torch

    x, y, source = common.mnist()
    count = 10000 if quick else len(x)
    x = tensor(x[:count].astype("float32") / 255, config)
    y = torch.from_numpy(y[:count])
    step = trainer("lenet5", config)
    losses: list[float] = []

    def one_epoch():
        order, total = torch.randperm(count), 0.0
        for start in range(0, count, common.BATCH):
            batch = order[start : start + common.BATCH]
            total += step(x[batch], y[batch]).item() * len(batch)
        losses.append(total / count)

    times = common.timed(one_epoch, 0, least=1, warm=0 if quick else 1)
    return {"MNIST epoch": common.result(times, images=count, loss=losses[-1], data=source)}


def memory(config: str, quick: bool) -> dict[str, dict]:
    """The peak of a process that trains LeNet-5 over MNIST kept as bytes."""
    import torch

    x, y, source = common.mnist()
    x, y = torch.from_numpy(x.copy()), torch.from_numpy(y)
    step = trainer("lenet5", config)
    for start in range(0, 10000 if quick else len(x), common.BATCH):
        batch = slice(start, start + common.BATCH)
        step(x[batch].float() / 255, y[batch]).item()
    return {"memory": {"median": common.resident_mb(), "best": common.resident_mb(), "check": []}}


def conv(config: str, quick: bool) -> dict[str, dict]:
    """Each pass: the whole call ("call"), and oneDNN's own time of its primitive, reorders left out ("onednn")."""
    import torch

    form = torch.channels_last if "nhwc" in config else torch.contiguous_format
    out = {}
    for p in common.convolutions(quick):
        x, w, dy = (torch.from_numpy(a).contiguous(memory_format=form) for a in p.arrays())
        rest = ([0], [p.stride] * 2, [p.padding] * 2, [1, 1], False, [0, 0], 1)
        backward = torch.ops.aten.convolution_backward

        def forward(x=x, w=w, p=p):
            return torch.nn.functional.conv2d(x, w, None, p.stride, p.padding)

        def data(x=x, w=w, dy=dy, rest=rest):
            return backward(dy, x, w, *rest, [True, False, False])[0]

        def weight(x=x, w=w, dy=dy, rest=rest):
            return backward(dy, x, w, *rest, [False, True, False])[1]

        for kind, call in (("forward", forward), ("data", data), ("weight", weight)):
            with torch.no_grad():
                check = call().contiguous().numpy()
                times = common.timed(call, 0.1 if quick else 0.4, least=3, warm=1)
                own, names = primitive_times(call, len(times))
            label = f"{p.name} {kind}" if kind == "forward" else f"{p.name} {kind} gradient"
            out[label] = common.result(times, check, flops=p.flops)
            if own:
                out[label]["onednn"] = common.result(own)
                out[label]["onednn"]["kernel"] = names
    return out


def primitive_times(call, count: int) -> tuple[list[float], str]:
    """Seconds of the convolution primitive in each of `count` calls, as oneDNN itself reports them."""
    import torch

    sys.stdout.flush()
    keep = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                for _ in range(count):
                    call()
        finally:
            os.dup2(keep, 1)
            os.close(keep)
        file.seek(0)
        lines = file.read().decode().splitlines()
    rows = [line.split(",") for line in lines if ",exec,cpu,convolution," in line]
    return [float(row[-1]) / 1e3 for row in rows], ", ".join(sorted({row[6] for row in rows}))


def sgemm(config: str, quick: bool) -> dict[str, dict]:
    import torch

    out = {}
    for name, n in common.sgemm_sizes(quick):
        a, b = common.matrices(n)
        a, b, c = torch.from_numpy(a), torch.from_numpy(b), torch.empty(n, n)
        check = torch.mm(a, b, out=c).numpy().copy()
        times = common.timed(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), 0.3 if quick else 1)
        out[name] = common.result(times, check, flops=2.0 * n**3)
    return out
