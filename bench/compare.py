"""fastcnn beside its peers: python bench/compare.py [--tasks lenet_train,conv] [--threads 1,2] [--rounds 3] [--quick]

Each framework, configuration and number of threads runs in a process of its own, one after the other, round after
round, so that a drift of the machine's speed meets all of them; where it gives less than 85 % of its multiply-add peak
before or after a process, that runs again, twice at most. A figure is the median over rounds of each round's median; a
ratio is to a peer's best configuration in the same run. Results that differ from fastcnn's numbers are not compared but
reported.
Writes bench/results.md and bench/results.json (--out for another name).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import report as reports  # noqa: E402
import table  # noqa: E402
from frameworks import common  # noqa: E402

FRAMEWORKS = ["fastcnn", "torch", "onnxruntime", "openvino", "keras", "tinygrad", "copy"]
TASKS = {
    **dict.fromkeys(common.TRAIN, "a training step, and the peak of memory"),
    **dict.fromkeys(common.INFER, "inference of a batch and of one image, and the peak of memory"),
    "mnist_epoch": "one epoch of LeNet-5 through Trainer.fit",
    "conv": "every pass of the layers in problems/conv.txt",
    "sgemm": "square matrix products",
    "streaming": "pooling and batch normalisation, beside a copy of as many bytes",
    "scaling": "time over batch 1 to 256 and images of side 32 to 448",
    "import": "seconds of the import",
    "memory": "peak memory of training LeNet-5 on MNIST",
}
GROUPS = {"train": common.TRAIN, "infer": common.INFER}
ONE_THREAD_ONLY = {"import", "memory"}
STEADY = 0.85  # of the highest peak seen: on a shared machine two CPUs may for a while be halves of one core
TRIES, WAIT = 3, 10.0  # runs of a process at most, and seconds that each waits for a steady machine
FIRST_LOOKS = 10  # at the peak, before it is known


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    report: dict = {"machine": machine(args.threads), "rounds": args.rounds, "quick": args.quick, "versions": {}}
    report |= {"disturbed": 0, "rows": []}
    with tempfile.TemporaryDirectory() as folder:  # where peers find the networks as ONNX
        os.environ["FASTCNN_BENCH_MODELS"] = folder
        for task in args.tasks:
            counts = [1] if task in ONE_THREAD_ONLY else args.threads
            measured, missing = measure(task, counts, args, report)
            by_threads = {n: reports.rows(task, n, measured[n], missing[n], report["machine"]) for n in counts}
            reports.compare_threads(by_threads, measured)
            report["rows"] += [row for n in counts for row in by_threads[n]]
            Path(args.out + ".json").write_text(json.dumps(report, indent=1))
            Path(args.out + ".md").write_text(table.markdown(report))  # what is measured survives an interrupt
            for model in Path(folder).iterdir():
                model.unlink()
    print(table.markdown(report))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    tasks = "\n".join(f"  {name:16} {what}" for name, what in TASKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"tasks:\n{tasks}\n\nframeworks: {', '.join(FRAMEWORKS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = "names, comma between, train or infer for all networks (default: all)"
    parser.add_argument("--tasks", type=choices(TASKS, GROUPS), default=list(TASKS), help=names)
    parser.add_argument("--frameworks", type=choices(FRAMEWORKS), default=FRAMEWORKS, help="only these, and fastcnn")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--data", help="folder with MNIST's IDX files (default: $FASTCNN_DATA, else random images)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smaller batches and shorter runs")
    parser.add_argument("--out", default=str(HERE / "results"))
    args = parser.parse_args(argv)
    if args.data and not common.mnist_files(args.data):
        parser.error(f"--data: MNIST's train-images and train-labels files are not in {args.data}")
    if data := args.data or os.environ.get("FASTCNN_DATA"):
        os.environ["FASTCNN_DATA"] = str(Path(data).resolve())  # workers run in another folder
    return args


def choices(allowed, groups=None):
    """A parser of names from `allowed`, separated by commas; a name in `groups` stands for several."""

    def parse(text: str) -> list[str]:
        names = [name for part in text.split(",") for name in (groups or {}).get(part, [part])]
        if unknown := [name for name in names if name not in allowed]:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return names

    return parse


def machine(counts: list[int]) -> dict:
    """CPU, cores and the peak at each number of threads, the highest measured so far."""
    from fastcnn.graph.roofline import cpu_name

    found: dict = {"cpu": cpu_name(), "cpus": os.cpu_count(), "peak": {}}
    for threads in counts:
        is_steady(found["peak"], threads)
    return found


def is_steady(peaks: dict[str, float], threads: int) -> bool:
    """Whether the machine gives what it can; `peaks` keeps the most that it gave."""
    from fastcnn.graph.roofline import peak_gflops

    now = peak_gflops(threads)
    if str(threads) not in peaks:
        peaks[str(threads)] = max(peak_gflops(threads) for _ in range(FIRST_LOOKS))
    peaks[str(threads)] = max(now, peaks[str(threads)])
    return now >= STEADY * peaks[str(threads)]


def measure(task: str, counts: list[int], args, report: dict) -> tuple[dict, dict]:
    """For each number of threads {(framework, configuration): the results of each round}, and {(framework,
    configuration): why there are none}. Writes to the report's versions, peaks and number of disturbed runs."""
    jobs = []
    for framework in FRAMEWORKS:
        if framework in ("fastcnn", *args.frameworks):
            module = importlib.import_module(f"frameworks.{framework}_")
            jobs += [(framework, config, module.environment(config)) for config in module.CONFIGS.get(task, [])]
    measured: dict[int, dict[tuple[str, str], list[dict]]] = {n: {} for n in counts}
    missing: dict[int, dict[tuple[str, str], str]] = {n: {} for n in counts}
    for number in range(args.rounds):
        for framework, config, environment in jobs:
            for threads in counts:
                if (framework, config) in missing[threads]:
                    continue
                job = f"{task}, {threads} threads, round {number + 1}: {framework} {config}"
                print(job, file=sys.stderr, flush=True)
                found = undisturbed(
                    report, threads, lambda: work(framework, task, config, threads, args.quick, environment)
                )
                if "results" in found:
                    measured[threads].setdefault((framework, config), []).append(found["results"])
                    report["versions"].update(found["versions"])
                else:
                    missing[threads][framework, config] = found["missing"]
                    print(f"  {found['missing']}", file=sys.stderr)
    return measured, missing


def undisturbed(report: dict, threads: int, run) -> dict:
    """What `run` finds with a steady machine before and after it; else, counted as disturbed, the last of TRIES."""
    peaks = report["machine"]["peak"]
    for _ in range(TRIES):
        end = time.monotonic() + WAIT
        while not (steady := is_steady(peaks, threads)) and time.monotonic() < end:
            time.sleep(WAIT / 20)
        found = run()
        if "missing" in found or (steady and is_steady(peaks, threads)):
            return found
        print("  the machine was disturbed", file=sys.stderr)
        if not steady:
            break
    report["disturbed"] += 1
    return found


def work(framework: str, task: str, config: str, threads: int, quick: bool, environment: dict) -> dict:
    """What one worker process found: {"results", "versions"}, or {"missing": why it could not}."""
    with tempfile.TemporaryDirectory() as folder:
        job = dict(
            framework=framework, task=task, config=config, threads=threads, quick=quick, out=f"{folder}/out.json"
        )
        env = {**os.environ, **environment, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [sys.executable, HERE / "worker.py", json.dumps(job)], env=env, cwd=HERE, capture_output=True, text=True
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return {"missing": "failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1]}
        found = json.loads(Path(job["out"]).read_text())
        if "missing" in found:
            package = found["missing"]
            return {"missing": "not installed" + ("" if package == framework else f" ({package})")}
        return found


if __name__ == "__main__":
    main()
