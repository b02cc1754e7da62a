"""PyTorch: eager mode, in both memory formats, with glibc's malloc as it is and tuned to keep its blocks."""

from __future__ import annotations

import re

from . import common, measure, torch_ops

# Big blocks come from the heap and stay there: without this every large tensor is a fresh mapping, zeroed page by page.
TUNED = {
    "GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=268435456"
}
_FORMATS = ["nchw", "nhwc", "nchw malloc", "nhwc malloc"]
CONFIGS = {
    **dict.fromkeys(common.TRAIN + common.INFER, _FORMATS),
    "lenet_infer": ["nchw", "nhwc malloc", "frozen"],
    "keras_cnn_infer": ["nchw", "nhwc malloc", "frozen"],
    "mnist_epoch": ["nchw", "nhwc malloc", "DataLoader", "DataLoader malloc"],
    "conv": ["nchw malloc", "nhwc malloc"],
    "sgemm": ["mkl"],
    "streaming": ["nchw malloc", "nhwc malloc"],
    "scaling": ["nhwc malloc"],
    "import": ["plain"],
    "memory": ["nchw"],
}


def environment(config: str) -> dict[str, str]:
    return TUNED if "malloc" in config else {}


def versions() -> dict[str, str]:
    import torch

    built = torch.__config__.show()
    onednn, mkl = re.search(r"MKL-DNN v([\d.]+)", built), re.search(r"Math Kernel Library Version ([\d.]+)", built)
    return {
        "torch": torch.__version__,
        "oneDNN": onednn[1] if onednn else "none",
        "MKL": mkl[1] if mkl else "none",
        "torch ISA": torch.backends.cpu.get_cpu_capability(),
    }


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": measure.result(measure.import_seconds("torch", quick))}
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    if found := common.network(task):
        name, what = found
        return {"train": train, "infer": infer}[what](name, config, quick)
    tasks = {"mnist_epoch": epoch, "memory": memory, "scaling": scaling}
    return (tasks.get(task) or getattr(torch_ops, task))(config, quick)


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

    return measure.time_training(name, quick, prepare)


def infer(name: str, config: str, quick: bool) -> dict[str, dict]:
    import torch

    net = build(name, config).eval()

    def prepare(x):
        x = tensor(x, config)
        call = torch.jit.optimize_for_inference(torch.jit.trace(net, x)) if config == "frozen" else net
        return lambda: call(x)

    with torch.inference_mode():
        return measure.time_inference(name, quick, prepare)


def scaling(config: str, quick: bool) -> dict[str, dict]:
    import torch

    def prepare(name, what, x, y):
        x, y = tensor(x, config), torch.from_numpy(y)
        if what == "train":
            step = trainer(name, config)
            return lambda: step(x, y).item()
        net = build(name, config).eval()

        @torch.inference_mode()
        def call():
            return net(x)

        return call

    return measure.time_scaled(quick, prepare)


def epoch(config: str, quick: bool) -> dict[str, dict]:
    """PyTorch's plain loop over shuffled slices of float32 tensors that are in memory already; or its DataLoader."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y, source = common.mnist()
    count = 10000 if quick else len(x)
    x = tensor(x[:count].astype("float32") / 255, config)
    y = torch.from_numpy(y[:count])
    step = trainer("lenet5", config)
    loader = DataLoader(TensorDataset(x, y), common.BATCH, shuffle=True) if "DataLoader" in config else None
    losses: list[float] = []

    def slices():
        order = torch.randperm(count)
        for start in range(0, count, common.BATCH):
            batch = order[start : start + common.BATCH]
            yield x[batch], y[batch]

    def one_epoch():
        losses.append(sum(step(*batch).item() * len(batch[1]) for batch in loader or slices()) / count)

    times = measure.timed(one_epoch, 0, least=1, warm=0 if quick else 1)
    return {f"epoch of {source}": measure.result(times, losses[-1:])}


def memory(config: str, quick: bool) -> dict[str, dict]:
    """The peak of a process that trains LeNet-5 over MNIST kept as bytes."""
    import torch

    x, y, source = common.mnist()
    x, y = torch.from_numpy(x.copy()), torch.from_numpy(y)
    step = trainer("lenet5", config)
    for start in range(0, 10000 if quick else len(x), common.BATCH):
        batch = slice(start, start + common.BATCH)
        step(x[batch].float() / 255, y[batch]).item()
    return {"resident MB": measure.memory()}
