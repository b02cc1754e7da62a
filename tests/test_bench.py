"""bench/: the table from made-up measurements, and a small run of the program itself."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("the benches are not beside the tests", allow_module_level=True)
MACHINE = {"cpu": "any", "cpus": 2, "peak": {"1": None}}


@pytest.fixture
def reports(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("report")


def measured(seconds, check=(1.0, 2.0), **more):
    return {"train b64": {"median": seconds, "best": seconds, "check": list(check), **more}}


def test_rows_keep_every_configuration_and_find_the_best_that_computed_the_same(reports):
    found = {
        ("fastcnn", "default"): [measured(1.0), measured(3.0), measured(2.0)],
        ("torch", "nchw"): [measured(12.0)],
        ("torch", "nhwc"): [measured(10.0)],
        ("keras", "jax"): [measured(5.0, check=(1.0, 2.1))],
    }
    absent = {("keras", "tensorflow"): "not installed (tensorflow)", ("tinygrad", "jit"): "not installed"}
    (row,) = reports.rows("lenet_train", 1, found, absent, MACHINE)
    assert row["seconds"] == 2.0
    assert (row["best peer"], row["x best peer"]) == ("torch nhwc", 5.0)
    assert (row["target"], row["ratio"], row["verdict"]) == (">= 4 x torch", 5.0, "met")
    table = reports.markdown({"machine": MACHINE, "rounds": 3, "versions": {}, "rows": [row]})
    assert "| 10.00 s nhwc; 12.00 s nchw |" in table
    assert "| 5.00 s jax (DIFFERENT NUMBERS); tensorflow: not installed (tensorflow) | not installed |" in table


@pytest.mark.parametrize("ours, torch, verdict", [(1.0, 3.9, "not met"), (1.0, 4.0, "met"), (1.0, None, None)])
def test_verdict(reports, ours, torch, verdict):
    found = {("fastcnn", "default"): [measured(ours)]}
    absent = {}
    if torch is None:
        absent["torch", "nchw"] = "not installed"
    else:
        found["torch", "nchw"] = [measured(torch)]
    (row,) = reports.rows("lenet_train", 1, found, absent, MACHINE)
    assert row.get("verdict") == verdict


def test_other_numbers_are_no_record(reports):
    found = {("fastcnn", "default"): [measured(1.0)], ("torch", "nchw"): [measured(9.0, check=(1.0, 2.1))]}
    (row,) = reports.rows("lenet_train", 1, found, {}, MACHINE)
    assert row["verdict"] == "DIFFERENT NUMBERS" and "best peer" not in row


def test_memory_is_a_share_of_the_smallest(reports):
    memory = lambda mb: [{"train b16 peak MB": {"median": mb, "best": mb, "check": []}}]
    found = {
        ("fastcnn", "default"): memory(600.0),
        ("torch", "nchw"): memory(1200.0),
        ("torch", "nhwc"): memory(1000.0),
    }
    (row,) = reports.rows("resnet18_train", 1, found, {}, MACHINE)
    assert (row["target"], row["verdict"], row["ratio"]) == ("<= 0.7 x torch", "met", 0.6)


def test_without_fastcnn_there_is_no_row(reports):
    assert reports.rows("sgemm", 1, {("torch", "mkl"): [measured(1.0)]}, {}, MACHINE) == []


def test_every_peer_names_known_tasks(reports):
    compare = importlib.import_module("compare")
    for name in compare.FRAMEWORKS:
        module = importlib.import_module(f"frameworks.{name}_")
        assert set(module.CONFIGS) <= set(compare.TASKS)
        for configs in module.CONFIGS.values():
            assert all(isinstance(module.environment(config), dict) for config in configs)
    assert set(importlib.import_module("frameworks.fastcnn_").CONFIGS) == set(compare.TASKS)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak can be reset on Linux only")
def test_peak_of_memory_counts_from_the_reset(reports):
    common = importlib.import_module("frameworks.common")
    np.ones(40_000_000, np.float32)  # 160 MB, gone again
    common.reset_peak()
    start = common.resident_mb()
    array = np.ones(20_000_000, np.float32)
    assert 70 < common.resident_mb() - start < 120 and array.size


def program(*arguments):
    command = [sys.executable, str(BENCH / "compare.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_help_lists_the_tasks_and_unknown_ones_are_named():
    text = program("--help").stdout
    assert all(word in text for word in ("resnet50_train", "lenet_infer", "sgemm", "openvino"))
    wrong = program("--tasks", "lenet_trian")
    assert wrong.returncode == 2 and "unknown lenet_trian; allowed: lenet_train" in wrong.stderr


def test_a_small_run(tmp_path):
    """Peers that are not installed say so; those that are agree with fastcnn."""
    done = program(
        *("--tasks", "lenet_infer", "--frameworks", "onnxruntime,openvino", "--threads", "1", "--rounds", "1"),
        *("--quick", "--out", str(tmp_path / "r")),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["infer b64", "infer b64 peak MB", "infer b1"]
    for row in rows:
        for found in (row["peers"][name]["cpu"] for name in ("onnxruntime", "openvino")):
            assert found.get("same numbers") or found["missing"].startswith("not installed"), found
