"""OpenVINO's CPU device, on the network as fastcnn.onnx.export writes it."""

from __future__ import annotations

from . import common, measure

CONFIGS = {**{task: ["cpu"] for task in common.INFER}, "import": ["plain"]}


def environment(config: str) -> dict[str, str]:
    return {}


def versions() -> dict[str, str]:
    import openvino

    return {"openvino": openvino.__version__.split("-")[0]}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    if task == "import":
        return {"import": measure.result(measure.import_seconds("openvino", quick))}
    import openvino

    name, _ = common.network(task)
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it
    }

    def prepare(x):
        compiled = openvino.Core().compile_model(common.exported(name, len(x)), "CPU", settings)
        request, output = compiled.create_infer_request(), compiled.output(0)
        return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)[output]

    return measure.time_inference(name, quick, prepare)
