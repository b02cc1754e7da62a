"""From measurements to rows of a table: the peers beside fastcnn, ratios, targets, Markdown."""

from __future__ import annotations

import statistics

from frameworks import common

# task, or task and measured thing -> (peer of the target, times as fast as its best configuration at least)
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
ABSOLUTE = {"import": (0.05, "s beyond NumPy"), "memory": (160.0, "MB")}
TRAINING_MEMORY = 0.7  # of PyTorch's smallest configuration, at most


def rows(task: str, threads: int, measured: dict, missing: dict, machine: dict) -> list[dict]:
    """One row per measured thing: fastcnn, every peer with all its configurations, ratios, target.

    measured: {(framework, configuration): a list of {thing: result}, one per round}; missing: {...: why}."""
    if ("fastcnn", "default") not in measured:
        return []
    ours, out = measured["fastcnn", "default"], []
    for thing in ours[0]:
        seconds = statistics.median(r[thing]["median"] for r in ours)
        row = {"task": task, "what": thing, "threads": threads, "seconds": seconds, "peers": {}}
        for (framework, config), results in measured.items():
            if framework != "fastcnn" and thing in results[0]:
                row["peers"].setdefault(framework, {})[config] = {
                    "seconds": statistics.median(r[thing]["median"] for r in results),
                    "same numbers": common.agree(ours[0][thing]["check"], results[0][thing]["check"]),
                }
        for (framework, config), why in missing.items():
            row["peers"].setdefault(framework, {})[config] = {"missing": why}
        flops = ours[0][thing].get("flops")
        if flops and machine["peak"].get(str(threads)):
            row["gflops"] = flops / seconds * 1e-9
            row["of peak"] = row["gflops"] / machine["peak"][str(threads)]
        if found := best(row["peers"]):
            row["best peer"] = found[0]
            row["x best peer"] = ratio(row, found[1])
        row.update(verdict(row))
        out.append(row)
    return out


def best(peers: dict[str, dict]) -> tuple[str, float] | None:
    """("torch nhwc malloc", its seconds): the fastest (or smallest) of the peers that computed fastcnn's numbers."""
    same = [
        (f"{framework} {config}", found["seconds"])
        for framework, configs in peers.items()
        for config, found in configs.items()
        if found.get("same numbers")
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
        peer, wanted = ("torch", TRAINING_MEMORY) if task in common.TRAIN else (None, 0)
    else:
        peer, wanted = TARGETS.get(f"{task} {thing}") or TARGETS.get(task) or (None, 0)
    configs = row["peers"].get(peer, {})
    if all("missing" in found for found in configs.values()):
        return {}
    target = f"<= {wanted:g} x {peer}" if "MB" in thing else f">= {wanted:g} x {peer}"
    found = best({peer: configs})
    if found is None:
        return {"target": target, "verdict": "DIFFERENT NUMBERS"}
    x = ratio(row, found[1])
    met = x <= wanted if "MB" in thing else x >= wanted
    return {"target": target, "ratio": x, "verdict": "met" if met else "not met"}


def markdown(report: dict) -> str:
    m = report["machine"]
    peaks = ", ".join(f"{v:.0f} GFLOP/s at {k}" for k, v in m["peak"].items() if v)
    names = list(dict.fromkeys(name for row in report["rows"] for name in row["peers"]))
    lines = [
        f"{m['cpu']}, {m['cpus']} CPUs; float32 multiply-add peak {peaks} thread(s).",
        f"Medians of {report['rounds']} interleaved rounds. "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items()),
        "",
        f"| task | threads | fastcnn |{''.join(f' {name} |' for name in names)} x best peer | target | |",
        f"|---|--:|--:|{'---|' * len(names)}---|---|---|",
    ]
    for row in report["rows"]:
        ours = figure(row["what"], row["seconds"])
        if "gflops" in row:
            ours += f" ({row['gflops']:.0f} GFLOP/s, {row['of peak']:.0%})"
        peers = [cell(row["what"], row["peers"].get(name, {})) for name in names]
        beside = f"{row['x best peer']:.2f} ({row['best peer']})" if "best peer" in row else ""
        reached = f"{row['verdict']}: {row['ratio']:.2f}" if "ratio" in row else row.get("verdict", "")
        entries = [f"{row['task']} {row['what']}", row["threads"], ours, *peers, beside, row.get("target", ""), reached]
        lines.append("".join(f"| {entry} " for entry in entries) + "|")
    return "\n".join(lines) + "\n"


def cell(what: str, configs: dict[str, dict]) -> str:
    """One peer's configurations, the best first; what could not run and what computed other numbers says so."""
    ran = sorted((c for c in configs.items() if "seconds" in c[1]), key=lambda c: c[1]["seconds"])
    parts = [
        f"{figure(what, found['seconds'])} {config}{'' if found['same numbers'] else ' (DIFFERENT NUMBERS)'}"
        for config, found in ran
    ]
    absent: dict[str, list[str]] = {}
    for config, found in configs.items():
        if "missing" in found:
            absent.setdefault(found["missing"], []).append(config)
    if not parts and len(absent) == 1:
        return next(iter(absent))
    return "; ".join(parts + [f"{', '.join(names)}: {why}" for why, names in absent.items()])


def figure(what: str, value: float) -> str:
    if "MB" in what:
        return f"{value:.0f} MB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"
