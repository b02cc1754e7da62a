"""ONNX Runtime's CPU provider, on a model written with the onnx package."""

from __future__ import annotations

import numpy as np

from . import common

CONFIGS = {"lenet_infer": ["cpu"], "keras_cnn_infer": ["cpu"], "import": ["plain"]}


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": common.result(common.import_seconds("onnxruntime", quick))}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    name = {"lenet": "lenet5"}.get(task.removesuffix("_infer"), task.removesuffix("_infer"))
    session = onnxruntime.InferenceSession(model(name), options, providers=["CPUExecutionProvider"])
    out = {}
    for batch in (common.BATCH, 1):
        feed = {"x": common.images(batch)[0]}
        check = session.run(None, feed)[0]
        times = common.timed(lambda feed=feed: session.run(None, feed), 0.3 if quick else 1.5, warm=20)
        out[f"infer b{batch}"] = common.result(times, check, images=batch)
    return out


def model(name: str) -> bytes:
    """The network as ONNX, with a free batch dimension."""
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants, value, arrays = [], [], "x", iter(common.weights(name))
    for i, (kind, *a) in enumerate(common.MODELS[name]):
        out = f"v{i}"
        if kind in ("conv", "linear"):
            names = [f"w{i}", f"b{i}"]
            constants += [numpy_helper.from_array(np.ascontiguousarray(next(arrays)), n) for n in names]
            if kind == "conv":
                nodes.append(helper.make_node("Conv", [value, *names], [out], pads=[a[3]] * 4))
            else:
                nodes.append(helper.make_node("Gemm", [value, *names], [out], transB=1))
        elif kind == "pool":
            nodes.append(helper.make_node("MaxPool", [value], [out], kernel_shape=[2, 2], strides=[2, 2]))
        else:
            nodes.append(helper.make_node({"relu": "Relu", "flatten": "Flatten"}[kind], [value], [out]))
        value = out
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 28, 28])
    y = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, name, [x], [y], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(proto)
    return proto.SerializeToString()
