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
_FORMATS = ["nchw", "nhwc", "nchw malloc", "nhwc malloc"]
CONFIGS = {
    **dict.fromkeys(common.TRAIN + common.INFER, _FORMATS),
    "lenet_infer": ["nchw", "nhwc malloc", "frozen"],
    "keras_cnn_infer": ["nchw", "nhwc malloc", "frozen"],
    "mnist_epoch": ["nchw", "nhwc malloc"],
    "conv": ["nchw malloc", "nhwc malloc"],
    "sgemm": ["mkl"],
    "import": ["plain"],
    "memory": ["nchw"],
}


def environment(config: str) -> dict[str, str]:
    return TUNED if "malloc" in config else {}


def versions() -> dict[str, str]:
    import torch

    onednn = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "oneDNN": onednn[1] if onednn else "?",
        "torch ISA": torch.backends.cpu.get_cpu_capability(),
    }


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": common.result(common.import_seconds("torch", quick))}
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    if found := common.network(task):
        name, what = found
        return {"train": train, "infer": infer}[what](name, config, quick)
    return {"conv": conv, "sgemm": sgemm, "mnist_epoch": epoch, "memory": memory}[task](config, quick)


def build(name: str, config: str):
    import torch

    net = large(name) if name in common.LARGE else small(name)
    return net.to(memory_format=torch.channels_last) if "nhwc" in config else net


def small(name: str):
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
    return net


def large(name: str):
    """torchvision's network."""
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
    return net


def tensor(array, config: str):
    import torch

    t = torch.from_numpy(array)
    return t.contiguous(memory_format=torch.channels_last) if "nhwc" in config and t.ndim == 4 else t


def trainer(name: str, config: str):
    """One training step as a function of a batch; it returns the loss."""
    import torch

    net, loss_of = build(name, config), torch.nn.CrossEntropyLoss()
    sgd = torch.optim.SGD(net.parameters(), common.learning_rate(name), common.MOMENTUM, fused="malloc" in config)

    def step(x, y):
        sgd.zero_grad(set_to_none=True)
        loss = loss_of(net(x), y)
        loss.backward()
        sgd.step()
        return loss

    return step


def train(name: str, config: str, quick: bool) -> dict[str, dict]:
    step = trainer(name, config)

    def prepare(x, y):
        x, y = tensor(x, config), tensor(y, config)
        return lambda: step(x, y).item()

    return common.time_training(name, quick, prepare)


def infer(name: str, config: str, quick: bool) -> dict[str, dict]:
    import torch

    net = build(name, config).eval()

    def prepare(x):
        x = tensor(x, config)
        call = torch.jit.optimize_for_inference(torch.jit.trace(net, x)) if config == "frozen" else net
        return lambda: call(x)

    with torch.inference_mode():
        return common.time_inference(name, quick, prepare)


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
    return {"resident MB": common.memory()}


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
