"""ONNX Runtime's CPU provider, on the network as fastcnn.onnx.export writes it."""

from __future__ import annotations

from . import common, measure

CONFIGS = {**{task: ["cpu"] for task in common.INFER}, "import": ["plain"]}


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    import onnxruntime

    return {"onnxruntime": onnxruntime.__version__}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": measure.result(measure.import_seconds("onnxruntime", quick))}
    import onnxruntime

    name, _ = common.network(task)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1

    def prepare(x):
        path = common.exported(name, len(x))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"input": x})[0]

    return measure.time_inference(name, quick, prepare)
