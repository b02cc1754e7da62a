"""PyTorch's single operations: convolutions, matrix products, pooling and batch normalisation."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile

from . import measure, problems


def conv(config: str, quick: bool) -> dict[str, dict]:
    """Each pass: the whole call, and oneDNN's own time of its primitive, reorders left out ("primitive")."""
    import torch

    form = torch.channels_last if "nhwc" in config else torch.contiguous_format
    out = {}
    for p in problems.convolutions(quick):
        x, w, dy = (torch.from_numpy(a).contiguous(memory_format=form) for a in p.arrays())
        rest = ([0], [p.stride] * 2, [p.padding] * 2, [1, 1], False, [0, 0], p.groups)
        backward = torch.ops.aten.convolution_backward

        def forward(x=x, w=w, p=p):
            return torch.nn.functional.conv2d(x, w, None, p.stride, p.padding, 1, p.groups)

        def data(x=x, w=w, dy=dy, rest=rest):
            return backward(dy, x, w, *rest, [True, False, False])[0]

        def weight(x=x, w=w, dy=dy, rest=rest):
            return backward(dy, x, w, *rest, [False, True, False])[1]

        for kind, call in zip(problems.PASSES, (forward, data, weight)):
            with torch.no_grad():
                check = call().contiguous().numpy()
                times = measure.timed(call, 0.1 if quick else 0.4, least=3, warm=1)
                own, names = primitive_times(call, len(times))
            found = {"primitive": statistics.median(own), "kernel": names} if own else {}
            out[f"{p.name} {kind}"] = measure.result(times, check, **found)
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
    for name, n in problems.sgemm_sizes(quick):
        a, b = problems.matrices(n)
        a, b, c = torch.from_numpy(a), torch.from_numpy(b), torch.empty(n, n)
        check = torch.mm(a, b, out=c).numpy().copy()
        times = measure.timed(lambda a=a, b=b, c=c: torch.mm(a, b, out=c), 0.3 if quick else 1)
        out[name] = measure.result(times, check)
    return out


def streaming(config: str, quick: bool) -> dict[str, dict]:
    """Pooling and batch normalisation."""
    import torch

    out = {}
    form = torch.channels_last if "nhwc" in config else torch.contiguous_format
    for p in problems.streaming(quick):
        x, weight, bias, dy = (torch.from_numpy(a) for a in p.arrays())
        x, dy = x.contiguous(memory_format=form), dy.contiguous(memory_format=form)
        passes = pooling(p, x, dy) if problems.STREAMED[p.layer] else normalisation(x, weight, bias, dy)
        with torch.inference_mode():
            call = passes[p.what]
            check = call().contiguous().numpy()
            out[p.name] = measure.result(measure.timed(call, 0.1 if quick else 0.5, warm=3), check)
    return out


def pooling(p: problems.Streaming, x, dy) -> dict:
    import torch

    kernel, stride, padding = ([size, size] for size in problems.STREAMED[p.layer])
    positions = torch.ops.aten.max_pool2d_with_indices(x, kernel, stride, padding)[1]
    backward = torch.ops.aten.max_pool2d_with_indices_backward
    return {
        "inference": lambda: torch.nn.functional.max_pool2d(x, kernel, stride, padding),
        "forward": lambda: torch.ops.aten.max_pool2d_with_indices(x, kernel, stride, padding)[0],
        "backward": lambda: backward(dy, x, kernel, stride, padding, [1, 1], False, positions),
    }


def normalisation(x, weight, bias, dy) -> dict:
    import torch

    forward = torch.ops.aten.native_batch_norm
    backward = torch.ops.aten.native_batch_norm_backward
    moments = forward(x, weight, bias, None, None, True, 0.1, 1e-5)[1:]
    return {
        "forward": lambda: forward(x, weight, bias, None, None, True, 0.1, 1e-5)[0],
        "backward": lambda: backward(dy, x, weight, None, None, *moments, True, 1e-5, [True] * 3)[0],
    }
