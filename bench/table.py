"""The rows of report.py as Markdown."""

from __future__ import annotations

import report as reports


def markdown(report: dict) -> str:
    m = report["machine"]
    peaks = ", ".join(f"{v:.0f} GFLOP/s at {k}" for k, v in m["peak"].items() if v)
    rows = [row for row in report["rows"] if "place" not in row]
    lines = [
        f"{m['cpu']}, {m['cpus']} CPUs; float32 multiply-add peak {peaks} thread(s).",
        f"Medians of {report['rounds']} interleaved rounds{', smaller problems (--quick)' if report['quick'] else ''}. "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        + (f". Runs that others disturbed to the last try: {report['disturbed']}" if report["disturbed"] else ""),
        *(comparison(rows) if rows else []),
        *scaling([row for row in report["rows"] if "place" in row]),
    ]
    return "\n".join(lines) + "\n"


def comparison(rows: list[dict]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    several = any("x one thread" in row or "threads verdict" in row for row in rows)
    head = ["task", "threads", "fastcnn", *names, "x best peer", "target", "", *["x 1 thread"] * several]
    lines = ["", "".join(f"| {title} " for title in head) + "|", "|---|--:|--:|" + "---|" * (len(head) - 3)]
    for row in rows:
        peers = [cell(row["what"], row["peers"].get(name, {})) for name in names]
        beside = f"{row['x best peer']:.2f} ({row['best peer']})" if "best peer" in row else ""
        reached = f"{row['verdict']}: {row['ratio']:.2f}" if "ratio" in row else row.get("verdict", "")
        what = " ".join(filter(None, (row["task"], row["what"], f"({row['config']})" if "config" in row else "")))
        entries = [what, row["threads"], ours(row), *peers, beside, row.get("target", ""), reached]
        if several:
            entries.append(of_threads(row))
        lines.append("".join(f"| {entry} " for entry in entries) + "|")
    return lines


def ours(row: dict) -> str:
    """fastcnn's own cell."""
    if "missing" in row:
        return row["missing"]
    text = figure(row["what"], row["seconds"])
    if "gflops" in row:
        text += f" ({row['gflops']:.0f} GFLOP/s, {row['of peak']:.0%})"
    if "stated" in row:
        text += f" (stated {row['stated']:.0f}, and {row['imported']:.0f} of Python and packages)"
    if "error" in row:
        text += f", error {row['error']:.1e}"
        bound = next(bound for kind, bound in reports.ERRORS.items() if row["what"].endswith(kind))
        text += f" (MORE THAN {bound:g})" if not row["error"] <= bound else ""
    return text


def of_threads(row: dict) -> str:
    verdict = row.get("threads verdict")
    if "x one thread" not in row:
        return verdict or ""
    return f"{row['x one thread']:.2f}" + (f" ({verdict}: {reports.TWO_THREADS})" if verdict else "")


def cell(what: str, configs: dict[str, dict]) -> str:
    """One peer's configurations, the best first; what could not run and what computed other numbers says so."""
    ran = sorted((c for c in configs.items() if "seconds" in c[1]), key=lambda c: c[1]["seconds"])
    parts = [
        f"{figure(what, found['seconds'])} {config}"
        + (f" (primitive {figure(what, found['primitive'])})" if "primitive" in found else "")
        + ("" if found["same numbers"] else " (DIFFERENT NUMBERS)")
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


def scaling(rows: list[dict]) -> list[str]:
    """A table for each axis: time per image (per 1000 pixels), and x the least of its row: the deviation from linear.
    Below each row the best peer's times over it."""
    lines = []
    for axis, unit in (("batch", "an image"), ("side", "1000 pixels")):
        here = [row for row in rows if row["place"]["axis"] == axis]
        columns = sorted({row["place"]["column"] for row in here})
        series: dict[tuple[str, int], dict[int, dict]] = {}
        for row in here:
            series.setdefault((row["place"]["row"], row["threads"]), {})[row["place"]["column"]] = row
        if here:
            lines += ["", f"Time of {unit} by {axis}, and x the least of its row:", ""]
            lines += [f"| | threads |{''.join(f' {axis} {column} |' for column in columns)}"]
            lines += ["|---|--:|" + "--:|" * len(columns)]
        for (name, threads), found in series.items():
            each = {column: row["seconds"] / row["place"]["count"] for column, row in found.items()}
            least = min(each.values())
            cells = [f"{figure('', each[c])} ({each[c] / least:.2f})" if c in each else "-" for c in columns]
            lines.append(f"| {name} | {threads} | {' | '.join(cells)} |")
            if any("x best peer" in row for row in found.values()):
                ratios = [found.get(column, {}).get("x best peer") for column in columns]
                cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
                lines.append(f"| x best peer | {threads} | {' | '.join(cells)} |")
    return lines
