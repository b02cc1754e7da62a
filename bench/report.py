"""From measurements to rows of a table: the peers beside fastcnn, ratios, targets, Markdown."""

from __future__ import annotations

import statistics

from frameworks import common, measure, problems

EAGER, RUNTIMES = ("torch", "keras"), ("onnxruntime", "openvino", "torch")
# A training step is at least so many times as fast as the best of EAGER; inference of a batch and of one image, as the
# best of RUNTIMES.
NETWORKS = {
    "lenet": (5.0, 3.0, 1.8),
    "keras_cnn": (3.0, 1.7, 1.5),
    "alexnet": (1.5, 1.4, 1.0),
    "vgg16": (2.5, 2.2, 1.2),
    "googlenet": (2.0, 1.4, 1.3),
    "resnet18": (1.9, 1.6, 1.4),
    "resnet50": (1.6, 1.25, 1.2),
}
WINOGRAD = {"forward": 1.8, "data gradient": 1.8, "weight gradient": 1.4}  # 3x3 convolutions of stride 1, x oneDNN
OTHERS = {"mnist_epoch": ("torch", 6.0), "sgemm": ("torch", 1.1), "streaming": ("copy", 0.7)}
ABSOLUTE = {"import": (0.05, "s beyond NumPy"), "memory": (160.0, "MB")}
TRAINING_MEMORY = 0.6  # of PyTorch's smallest configuration, at most
TWO_THREADS = 1.85  # times as fast as one, at least: training steps
ERRORS = {"forward": 2e-5, "data gradient": 5e-5, "weight gradient": 5e-5}  # normwise, against float64, at most
YARDSTICKS = ("copy",)  # what computes nothing, so is no peer


def targets() -> dict[str, tuple[tuple[str, ...], float]]:
    """{task, or task and thing: (peers of the target, times as fast as the best of them at least)}."""
    found = {task: ((peer,), factor) for task, (peer, factor) in OTHERS.items()}
    for name, (train, batch, one) in NETWORKS.items():
        found |= {f"{name}_train": (EAGER, train), f"{name}_infer": (RUNTIMES, batch)}
        found[f"{name}_infer infer b1"] = (RUNTIMES, one)
    for p in problems.convolutions():
        for kind in problems.PASSES:
            factor = WINOGRAD[kind] if (p.kernel, p.stride, p.groups) == (3, 1, 1) else 1.0
            found[f"conv {p.name} {kind}"] = (("torch",), factor)
    found["sgemm sgemm n=64"] = ((), 0.0)  # the target begins at 256
    return found


TARGETS = targets()


def rows(task: str, threads: int, measured: dict, missing: dict, machine: dict) -> list[dict]:
    """One row per measured thing: fastcnn, every peer with all its configurations, ratios, target.

    measured: {(framework, configuration): a list of {thing: result}, one per round}; missing: {...: why}. What another
    configuration of fastcnn than "default" measured is a row of its own, without a target."""
    out = []
    for (framework, config), ours in measured.items():
        if framework == "fastcnn":
            for thing in ours[0]:
                row = {"task": task, "what": thing, "threads": threads, **mine(thing, ours, threads, machine)}
                row["peers"] = peers_of(thing, ours[0][thing], measured, missing)
                if found := best(row["peers"]):
                    row["best peer"] = found[0]
                    row["x best peer"] = ratio(row, found[1])
                if config == "default":
                    row.update(verdict(row))
                else:
                    row["config"] = config
                out.append(row)
    for (framework, config), why in missing.items():
        if framework == "fastcnn":
            out.append({"task": task, "what": "", "config": config, "threads": threads, "peers": {}, "missing": why})
    return out


def mine(thing: str, ours: list[dict], threads: int, machine: dict) -> dict:
    """What a row says of fastcnn's own measurement."""
    first, seconds = ours[0][thing], statistics.median(r[thing]["median"] for r in ours)
    found = {"seconds": seconds} | {key: first[key] for key in ("error", "stated", "imported", "place") if key in first}
    if first.get("flops") and machine["peak"].get(str(threads)):
        found["gflops"] = first["flops"] / seconds * 1e-9
        found["of peak"] = found["gflops"] / machine["peak"][str(threads)]
    return found


def peers_of(thing: str, ours: dict, measured: dict, missing: dict) -> dict[str, dict]:
    """{framework: {configuration: {"seconds", "same numbers", ...} or {"missing": why}}}."""
    peers: dict[str, dict] = {}
    for (framework, config), results in measured.items():
        if framework != "fastcnn" and thing in results[0]:
            theirs = results[0][thing]
            found = peers.setdefault(framework, {})[config] = {
                "seconds": statistics.median(r[thing]["median"] for r in results),
                "same numbers": framework in YARDSTICKS
                or measure.agree(ours["check"], theirs["check"], ours.get("tolerance", measure.TOLERANCE)),
            }
            if "primitive" in theirs:
                found["primitive"] = statistics.median(r[thing]["primitive"] for r in results)
    for (framework, config), why in missing.items():
        if framework != "fastcnn":
            peers.setdefault(framework, {})[config] = {"missing": why}
    return peers


def best(peers: dict[str, dict], yardsticks: bool = False) -> tuple[str, float] | None:
    """("torch nhwc malloc", its seconds): the fastest (or smallest) of the peers that computed fastcnn's numbers."""
    same = [
        (f"{framework} {config}", found["seconds"])
        for framework, configs in peers.items()
        for config, found in configs.items()
        if found.get("same numbers") and (yardsticks or framework not in YARDSTICKS)
    ]
    return min(same, key=lambda pair: pair[1], default=None)


def ratio(row: dict, theirs: float) -> float:
    """How many times as fast fastcnn is; of memory, its share of theirs."""
    return row["seconds"] / theirs if "MB" in row["what"] else theirs / row["seconds"]


def verdict(row: dict) -> dict:
    task, thing = row["task"], row["what"]
    if task in ABSOLUTE:
        bound, unit = ABSOLUTE[task]
        return {"target": f"<= {bound:g} {unit}", "verdict": "met" if row["seconds"] <= bound else "not met"}
    if "MB" in thing:
        names, wanted = (("torch",), TRAINING_MEMORY) if task in common.TRAIN else ((), 0)
    else:
        names, wanted = TARGETS.get(f"{task} {thing}") or TARGETS.get(task) or ((), 0)
    peers = {name: row["peers"][name] for name in names if name in row["peers"]}
    if all("missing" in found for configs in peers.values() for found in configs.values()):
        return {}
    target = f"{'<=' if 'MB' in thing else '>='} {wanted:g} x {', '.join(names)}"
    found = best(peers, yardsticks=True)
    if found is None:
        return {"target": target, "verdict": "DIFFERENT NUMBERS"}
    x = ratio(row, found[1])
    met = x <= wanted if "MB" in thing else x >= wanted
    return {"target": target, "ratio": x, "verdict": "met" if met else "not met"}


def compare_threads(by_threads: dict[int, list[dict]], measured: dict[int, dict]) -> None:
    """Give the rows of several threads how many times as fast they are as with one, where both ran."""
    single = {(row["what"], row.get("config")): row for row in by_threads.get(1, []) if "missing" not in row}
    for threads, some in by_threads.items():
        for row in some:
            one = single.get((row["what"], row.get("config")))
            if threads == 1 or one is None or "missing" in row or "MB" in row["what"]:
                continue
            checks = [measured[n]["fastcnn", row.get("config", "default")][0][row["what"]] for n in (1, threads)]
            if not measure.agree(*(c["check"] for c in checks), checks[0].get("tolerance", 0.0)):
                row["threads verdict"] = "DIFFERENT NUMBERS"
                continue
            row["x one thread"] = one["seconds"] / row["seconds"]
            if threads == 2 and row["task"] in common.TRAIN:
                row["threads verdict"] = "met" if row["x one thread"] >= TWO_THREADS else "not met"
