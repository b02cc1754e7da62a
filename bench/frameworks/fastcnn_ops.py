"""fastcnn's single operations: convolutions, matrix products, pooling and batch normalisation."""

from __future__ import annotations

import numpy as np

from . import measure, problems

EDGE = ("pack_lanes_c", "pack_lanes_n", "unpack_lanes_c", "unpack_lanes_n", "halo", "copy")


def conv_program(kind: str, p: problems.Conv, arrays):
    """(program, its inputs) of one pass of a convolution; kind: one of problems.PASSES, arrays: p.arrays(). Further
    outputs read its input again (`map`), so that no result takes its place and the pass alone can be repeated."""
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol, add_node
    from fastcnn.ops import OPS

    attrs = dict(stride=(p.stride,) * 2, pads=(p.padding,) * 4, dilation=(1, 1), groups=p.groups)
    x, w, dy = arrays
    if kind == "forward":
        arrays, op, extra = [x, w], "conv2d", {}
    elif kind == "data gradient":
        arrays, op, extra = [dy, w], "conv2d_data", {"shape": p.x_shape}
    else:
        arrays, op, extra = [x, dy], "conv2d_weight", {"shape": p.w_shape}
    inputs = [Symbol(a.shape) for a in arrays]
    y = add_node(OPS[op], inputs, **attrs, **extra)
    read = inputs if kind == "weight gradient" else inputs[:1]
    return Program(inputs, [y, *(add_node(OPS["map"], [s], kind="relu", alpha=0.0) for s in read)]), arrays


def spans_of(program) -> list[tuple[int, int]]:
    """The steps [first, end) that are the pass itself."""
    inside = [step.kernel not in (*EDGE, "map") for step in program.steps]
    ends = np.flatnonzero(np.diff([False, *inside, False]))
    return [(int(first), int(end)) for first, end in ends.reshape(-1, 2)]


def conv(config: str, threads: int, quick: bool) -> dict[str, dict]:
    """Every pass of every layer: the convolution and its weight packing, again and again from the same input, as
    inside a network; the conversion between NCHW and the internal layout, which a network does at its edges, is given
    apart (`edges`).

    config direct: the passes that the default would compute by Winograd's algorithm, without it."""
    import fastcnn as fc

    out = {}
    for p in problems.convolutions(quick):
        given = p.arrays()
        for kind in problems.PASSES:
            program, arrays = conv_program(kind, p, given)
            if config == "direct":
                if not any("winograd" in step.kernel for step in program.steps):
                    continue
                fc.set_conv_algorithm("direct")
                program, arrays = conv_program(kind, p, given)
                fc.set_conv_algorithm("auto")
            io = (*arrays, *program.forward(arrays))
            spans, timings, times = spans_of(program), np.zeros(len(program.plan)), []

            def call(program=program, io=io, spans=spans, timings=timings, times=times):
                for first, end in spans:
                    program.plan.run(io, first, end, threads, timings)
                times.append(sum(timings[first:end].sum() for first, end in spans) * 1e-3)

            program.plan.run(io, 0, spans[-1][1], threads, timings)
            measure.timed(call, 0.2 if quick else 0.6, least=3, warm=1)
            program.plan.run(io, spans[-1][1], len(program.plan), threads, timings)  # what the last call left
            y, edges = io[len(arrays)], [step.kernel in EDGE for step in program.steps]
            more = {"flops": p.flops, "error": p.error(kind, given, y), "edges": timings[edges].sum() * 1e-3}
            out[f"{p.name} {kind}"] = measure.result(times[1:], y, **more)
    return out


def sgemm(config: str, threads: int, quick: bool) -> dict[str, dict]:
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol, add_node
    from fastcnn.ops import OPS

    out = {}
    for name, n in problems.sgemm_sizes(quick):
        a, b = problems.matrices(n)
        inputs = [Symbol(a.shape), Symbol(b.shape)]
        program = Program(inputs, [add_node(OPS["matmul"], inputs)])
        c = np.empty((n, n), np.float32)
        call = lambda program=program, io=(a, b, c): program.plan.run(io, 0, len(program.plan), threads)
        program.forward([a, b])
        times = measure.timed(call, 0.3 if quick else 1, warm=3)
        out[name] = measure.result(times, c, flops=2.0 * n**3)
    return out


def streaming_program(p: problems.Streaming):
    """(program, the arrays of its slots, the one that gets what the pass computes)."""
    import fastcnn.functional as F
    from fastcnn.graph.plan import Program
    from fastcnn.graph.trace import Symbol

    x, weight, bias, dy = p.arrays()
    window = problems.STREAMED[p.layer]
    arrays = [x] if window else [x, weight, bias]
    inputs = [Symbol(a.shape) for a in arrays]
    y = F.max_pool2d(inputs[0], *window) if window else F.batch_norm(inputs[0], None, None, *inputs[1:], training=True)
    program = Program(inputs, [y], [] if p.what == "inference" else inputs)
    out, grads = np.empty(p.y_shape, np.float32), [np.empty(s.shape, np.float32) for s in program.wrt]
    return program, (*arrays, *([dy] if grads else []), out, *grads), grads[0] if p.what == "backward" else out


def streaming(config: str, threads: int, quick: bool) -> dict[str, dict]:
    """Pooling and batch normalisation between arrays in the internal layout, as inside a network."""
    from fastcnn.graph import plan

    plan.SERIAL_PROGRAM = 0  # a network's other layers make its program large enough for all threads
    out = {}
    for p in problems.streaming(quick):
        program, io, result = streaming_program(p)
        first, last = program.bounds["backward" if p.what == "backward" else "forward"]
        inside = [i for i in range(first, last) if program.steps[i].kernel not in EDGE]
        times, timings = [], np.zeros(len(program.steps))

        def call(program=program, io=io, inside=inside, timings=timings, times=times):
            program.plan.run(io, inside[0], inside[-1] + 1, threads, timings)
            times.append(timings[inside].sum() * 1e-3)

        program.plan.run(io, 0, last, threads)
        check = result.copy()
        # Steps that run again find some vectors of a number per channel overwritten (the arena has given their place
        # away), so compute other numbers, as fast: what they read last, all large arrays among it, is still there.
        measure.timed(call, 0.1 if quick else 0.5, warm=3)
        out[p.name] = measure.result(times[3:], check)
    return out
