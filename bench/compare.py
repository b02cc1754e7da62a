"""fastcnn beside its peers: python bench/compare.py [--tasks lenet_train,conv] [--threads 1,2] [--rounds 3] [--quick]

Each framework and configuration runs in a process of its own, one after the other, round after round, so that a drift
of the machine's speed meets all of them. A figure is the median over rounds of each round's median; the ratio is to the
peer's best configuration in the same run. Results that differ from the peer's numbers are not compared but reported.
Writes bench/results.md and bench/results.json (--out for another name).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import peak  # noqa: E402
from frameworks import common  # noqa: E402

FRAMEWORKS = ["fastcnn", "torch", "onnxruntime"]
# task -> (peer of the target, times as fast as its best configuration at least)
TARGETS = {
    "lenet_train": ("torch", 4.0),
    "keras_cnn_train": ("torch", 2.0),
    "mnist_epoch": ("torch", 4.0),
    "lenet_infer infer b64": ("onnxruntime", 2.0),
    "lenet_infer infer b1": ("onnxruntime", 1.2),
    "conv": ("torch", 0.9),
    "sgemm": ("torch", 1.0),
    **{f"{name}_{what}": ("torch", 1.0) for name in common.LARGE for what in ("train", "infer")},
}
LARGE_TASKS = ",".join(f"{name}_{what}" for name in common.LARGE for what in ("train", "infer"))
ABSOLUTE = {"import": (0.05, "s beyond NumPy"), "memory": (160.0, "MB")}
ONE_THREAD_ONLY = {"import", "memory"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        default=f"lenet_train,keras_cnn_train,lenet_infer,mnist_epoch,conv,sgemm,import,memory,{LARGE_TASKS}",
    )
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smaller batches and shorter runs")
    parser.add_argument("--out", default=str(HERE / "results"))
    args = parser.parse_args()
    report: dict = {"machine": machine(), "rounds": args.rounds, "quick": args.quick, "versions": {}, "rows": []}
    for task in args.tasks.split(","):
        for threads in [1] if task in ONE_THREAD_ONLY else map(int, args.threads.split(",")):
            measured = measure(task, threads, args, report["versions"])
            report["rows"] += rows(task, threads, measured, report["machine"])
            Path(args.out + ".json").write_text(json.dumps(report, indent=1))
            Path(args.out + ".md").write_text(markdown(report))  # after every task: an interrupted run keeps its rows
    print(markdown(report))


def machine() -> dict:
    """CPU, cores and the measured peak."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {"cpu": name, "cpus": os.cpu_count(), "peak": {str(n): peak.measure(n) for n in (1, 2)}}


def measure(task: str, threads: int, args, versions: dict) -> dict[tuple[str, str], list[dict]]:
    """{(framework, configuration): the results of each round}."""
    jobs = []
    for framework in FRAMEWORKS:
        module = importlib.import_module(f"frameworks.{framework}_")
        jobs += [(framework, config, module.environment(config)) for config in module.CONFIGS.get(task, [])]
    measured: dict[tuple[str, str], list[dict]] = {}
    for number in range(args.rounds):
        for framework, config, environment in jobs:
            print(f"{task}, {threads} threads, round {number + 1}: {framework} {config}", file=sys.stderr, flush=True)
            found = work(framework, task, config, threads, args.quick, environment)
            if found:
                measured.setdefault((framework, config), []).append(found["results"])
                versions.update(found["versions"])
    return measured


def work(framework: str, task: str, config: str, threads: int, quick: bool, environment: dict) -> dict | None:
    """One worker process; None (and its error on stderr) if it failed, as when the framework is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        job = dict(
            framework=framework, task=task, config=config, threads=threads, quick=quick, out=f"{folder}/out.json"
        )
        env = {**os.environ, **environment, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, HERE / "worker.py", json.dumps(job)], env=env, cwd=HERE, capture_output=True, text=True
        )
        if done.returncode:
            print(f"  failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        return json.loads(Path(job["out"]).read_text())


def rows(task: str, threads: int, measured: dict, machine: dict) -> list[dict]:
    """One row per measured thing: fastcnn, the peers' best configurations, ratio, target."""
    if not any(framework == "fastcnn" for framework, _ in measured):
        return []
    ours = measured["fastcnn", "default"]
    out = []
    for thing in ours[0]:
        row = {
            "task": task,
            "what": thing,
            "threads": threads,
            "seconds": statistics.median(r[thing]["median"] for r in ours),
            "peers": {},
        }
        for (framework, config), results in measured.items():
            if framework == "fastcnn" or thing not in results[0]:
                continue
            seconds = statistics.median(r[thing]["median"] for r in results)
            old = row["peers"].get(framework)
            if old is None or seconds < old["seconds"]:
                same = common.agree(ours[0][thing]["check"], results[0][thing]["check"])
                row["peers"][framework] = {"seconds": seconds, "config": config, "same numbers": same}
        flops = ours[0][thing].get("flops")
        if flops and machine["peak"].get(str(threads)):
            row["gflops"] = flops / row["seconds"] * 1e-9
            row["of peak"] = row["gflops"] / machine["peak"][str(threads)]
        row.update(verdict(task, thing, row))
        out.append(row)
    return out


def verdict(task: str, thing: str, row: dict) -> dict:
    if task in ABSOLUTE:
        bound, unit = ABSOLUTE[task]
        return {"target": f"<= {bound:g} {unit}", "verdict": "met" if row["seconds"] <= bound else "not met"}
    peer, wanted = TARGETS.get(f"{task} {thing}") or TARGETS.get(task) or (None, 0)
    if peer not in row["peers"]:
        return {}
    found = row["peers"][peer]
    if "MB" in thing:
        ratio = row["seconds"] / found["seconds"]
        return {"target": "<= 0.7 x torch", "ratio": ratio, "verdict": "met" if ratio <= 0.7 else "not met"}
    if task not in ("mnist_epoch", "memory") and not found["same numbers"]:
        return {"target": f">= {wanted:g} x {peer}", "verdict": "DIFFERENT NUMBERS"}
    ratio = found["seconds"] / row["seconds"]
    return {"target": f">= {wanted:g} x {peer}", "ratio": ratio, "verdict": "met" if ratio >= wanted else "not met"}


def markdown(report: dict) -> str:
    m = report["machine"]
    peaks = ", ".join(f"{v:.0f} GFLOP/s at {k}" for k, v in m["peak"].items() if v)
    lines = [
        f"{m['cpu']}, {m['cpus']} CPUs; float32 multiply-add peak {peaks} thread(s).",
        f"Medians of {report['rounds']} interleaved rounds. "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items()),
        "",
        "| task | threads | fastcnn | peers (best configuration) | x peer | target | |",
        "|---|--:|--:|---|--:|---|---|",
    ]
    for row in report["rows"]:
        ours = figure(row["what"], row["seconds"])
        if "gflops" in row:
            ours += f" ({row['gflops']:.0f} GFLOP/s, {row['of peak']:.0%})"
        peers = "; ".join(
            f"{name} {figure(row['what'], p['seconds'])} ({p['config']})" for name, p in row["peers"].items()
        )
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        lines.append(
            f"| {row['task']} {row['what']} | {row['threads']} | {ours} | {peers} | {ratio} | "
            f"{row.get('target', '')} | {row.get('verdict', '')} |"
        )
    return "\n".join(lines) + "\n"


def figure(what: str, value: float) -> str:
    if "MB" in what:
        return f"{value:.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"


if __name__ == "__main__":
    main()
