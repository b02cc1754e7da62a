"""bench/: the table from made-up measurements, and a small run of the program itself."""

import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference as ref

import fastcnn as fc
import fastcnn.functional as F
import fastcnn.graph.plan

BENCH = Path(__file__).resolve().parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("the benches are not beside the tests", allow_module_level=True)
MACHINE = {"cpu": "any", "cpus": 2, "peak": {"1": None}}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture
def reports(load):
    return load("report")


def table(load, *rows):
    report = {"machine": MACHINE, "rounds": 3, "quick": False, "versions": {}, "disturbed": 0, "rows": list(rows)}
    return load("table").markdown(report)


def measured(seconds, check=(1.0, 2.0), **more):
    return {"train b64": {"median": seconds, "best": seconds, "check": list(check), **more}}


def test_rows_keep_every_configuration_and_find_the_best_that_computed_the_same(reports, load):
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
    assert (row["target"], row["ratio"], row["verdict"]) == (">= 5 x torch, keras", 5.0, "met")
    text = table(load, row)
    assert "| 10.00 s nhwc; 12.00 s nchw |" in text
    assert "| 5.00 s jax (DIFFERENT NUMBERS); tensorflow: not installed (tensorflow) | not installed |" in text


@pytest.mark.parametrize("ours, torch, verdict", [(1.0, 4.9, "not met"), (1.0, 5.0, "met"), (1.0, None, None)])
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
    assert (row["target"], row["verdict"], row["ratio"]) == ("<= 0.6 x torch", "met", 0.6)


def test_without_fastcnn_there_is_no_row_but_its_error(reports, load):
    assert reports.rows("sgemm", 1, {("torch", "mkl"): [measured(1.0)]}, {}, MACHINE) == []
    (row,) = reports.rows("sgemm", 1, {}, {("fastcnn", "default"): "failed: it broke"}, MACHINE)
    assert "| failed: it broke |" in table(load, row)


@pytest.mark.parametrize(
    "task, thing, peers, factor",
    [
        ("keras_cnn_train", "train b64", ("torch", "keras"), 3.0),
        ("vgg16_infer", "infer b32", ("onnxruntime", "openvino", "torch"), 2.2),
        ("vgg16_infer", "infer b1", ("onnxruntime", "openvino", "torch"), 1.2),
        ("conv", "VGG 512->512 @14 data gradient", ("torch",), 1.8),
        ("conv", "VGG 512->512 @14 weight gradient", ("torch",), 1.4),
        ("conv", "ResNet 3x3/2 128->128 @56 forward", ("torch",), 1.0),
        ("sgemm", "sgemm n=4096", ("torch",), 1.1),
        ("streaming", "batch norm forward 32 @32 b1", ("copy",), 0.7),
        ("mnist_epoch", "epoch of MNIST", ("torch",), 6.0),
    ],
)
def test_targets(reports, task, thing, peers, factor):
    slow = lambda seconds: {thing: {"median": seconds, "best": seconds, "check": []}}
    found = {("fastcnn", "default"): [slow(1.0)], **{(peer, "any"): [slow(factor)] for peer in peers}}
    (row,) = reports.rows(task, 1, found, {}, MACHINE)
    assert (row["target"], row["verdict"]) == (f">= {factor:g} x {', '.join(peers)}", "met")
    (row,) = reports.rows(task, 1, {**found, (peers[-1], "better"): [slow(factor * 0.99)]}, {}, MACHINE)
    assert row["verdict"] == "not met"


def test_small_products_and_other_configurations_have_no_target(reports, load):
    for task, thing, config in (("sgemm", "sgemm n=64", "default"), ("conv", "VGG 64->64 @224 forward", "direct")):
        result = {thing: {"median": 1.0, "best": 1.0, "check": []}}
        (row,) = reports.rows(task, 1, {("fastcnn", config): [result], ("torch", "mkl"): [result]}, {}, MACHINE)
        assert "target" not in row and row["x best peer"] == 1.0
    assert "| conv VGG 64->64 @224 forward (direct) |" in table(load, row)


def test_a_yardstick_is_no_peer(reports):
    thing = lambda seconds, check: {"batch norm forward": {"median": seconds, "best": seconds, "check": check}}
    found = {
        ("fastcnn", "default"): [thing(2.0, [1.0])],
        ("torch", "nchw"): [thing(6.0, [1.0])],
        ("copy", "memcpy"): [thing(1.8, [])],
        ("copy", "loop"): [thing(1.5, [])],
    }
    (row,) = reports.rows("streaming", 1, found, {}, MACHINE)
    assert (row["best peer"], row["x best peer"], row["ratio"]) == ("torch nchw", 3.0, 0.75)


def test_errors_against_float64_are_shown_and_held_against_their_bound(reports, load):
    result = lambda error: {"VGG 64->64 @224 forward": {"median": 1.0, "best": 1.0, "check": [], "error": error}}
    for error, text in (
        (1.9e-5, "error 1.9e-05 |"),
        (2.1e-5, "(MORE THAN 2e-05)"),
        (float("nan"), "(MORE THAN 2e-05)"),
    ):
        (row,) = reports.rows("conv", 1, {("fastcnn", "default"): [result(error)]}, {}, MACHINE)
        assert text in table(load, row)


def test_threads(reports, load):
    """Two threads are compared with one, where both gave the same bits."""

    def compare(task, seconds, check=(1.0, 2.0)):
        found = {
            1: {("fastcnn", "default"): [measured(1.0)]},
            2: {("fastcnn", "default"): [measured(seconds, check=check)]},
        }
        rows = {n: reports.rows(task, n, found[n], {}, MACHINE) for n in found}
        reports.compare_threads(rows, found)
        assert "x one thread" not in rows[1][0]
        return rows[2][0]

    row = compare("lenet_train", 0.5)
    assert (row["x one thread"], row["threads verdict"]) == (2.0, "met")
    assert "| 2.00 (met: 1.85) |" in table(load, row)
    assert compare("lenet_train", 0.6)["threads verdict"] == "not met"
    assert "threads verdict" not in compare("lenet_infer", 0.6)
    assert compare("lenet_train", 0.5, check=(1.0, 2.0000002))["threads verdict"] == "DIFFERENT NUMBERS"


def test_table_of_scaling(reports, load):
    sizes = [load("frameworks.problems").Scaled("resnet18", "infer", "batch", batch, 224) for batch in (1, 2)]
    times = {size.name: {"median": 3.0, "best": 3.0, "check": [], "place": size.place} for size in sizes}
    theirs = {name: {**found, "median": 6.0} for name, found in times.items()}
    rows = reports.rows("scaling", 2, {("fastcnn", "default"): [times], ("torch", "any"): [theirs]}, {}, MACHINE)
    text = table(load, *rows)
    assert "| resnet18 infer @224 | 2 | 3.00 s (2.00) | 1.50 s (1.00) |\n| x best peer | 2 | 2.00 | 2.00 |" in text
    assert "| task |" not in text


def test_sizes_that_the_memory_is_too_small_for_are_left_out(load, monkeypatch):
    measure, problems = load("frameworks.measure"), load("frameworks.problems")
    monkeypatch.setattr(measure, "available_bytes", lambda: 1.1e9)
    found = measure.time_scaled(True, lambda model, what, x, y: lambda: np.zeros(3))
    assert set(found) == {size.name for size in problems.scaled(True) if size.bytes <= 1.1e9} and found
    assert len({size.name for size in problems.scaled()}) == len(problems.scaled())


@pytest.mark.parametrize("kernel, stride, padding, groups", [(3, 1, 1, 1), (5, 2, 2, 1), (3, 4, 0, 1), (3, 2, 1, 3)])
def test_exact_convolutions(load, kernel, stride, padding, groups):
    """The bench's own float64 elements against the tests' reference; and that a wrong one shows."""
    problems = load("frameworks.problems")
    p = problems.Conv("any", 6, 9, 12, kernel, stride, padding, groups, batch=2)
    x, w, dy = arrays = p.arrays()
    attrs = dict(stride=(stride,) * 2, pads=(padding,) * 4, dilation=(1, 1), groups=groups)
    exact = [a.astype(np.float64) for a in arrays]
    results = [ref.conv2d(*exact[:2], **attrs), *ref.conv2d_grads(*exact, **attrs)]
    for kind, result in zip(problems.PASSES, results):
        assert p.error(kind, arrays, result) < 1e-12
        assert p.error(kind, arrays, result * (1 + 1e-5)) == pytest.approx(1e-5, rel=1e-3)


def test_single_operations_of_fastcnn(load, monkeypatch):
    """Small ones; direct convolutions are timed where the default takes another algorithm, and compute the same."""
    problems, measure, ops = (load(f"frameworks.{name}") for name in ("problems", "measure", "fastcnn_ops"))
    convolutions = [problems.Conv("a", 64, 14, 64, 3, 1, 1, batch=2), problems.Conv("b", 8, 6, 8, 1, 1, 0, 2, batch=2)]
    monkeypatch.setattr(problems, "convolutions", lambda quick: convolutions)
    default, direct = (ops.conv(config, 1, True) for config in ("default", "direct"))
    assert set(direct) == {"a forward", "a data gradient", "a weight gradient"} and len(default) == 6
    for thing in direct:
        assert measure.agree(default[thing]["check"], direct[thing]["check"]) and direct[thing]["error"] < 2e-6

    layers = [("max pool 3x3/2", "forward"), ("max pool 3x3/2", "backward"), ("batch norm", "backward")]
    tiny = [problems.Streaming(*layer, channels=8, size=6, batch=2) for layer in layers]
    assert [p.moved for p in tiny] == [4 * 2 * 8 * n for n in (36 + 9, 36 + 9, 5 * 36)]
    monkeypatch.setattr(problems, "streaming", lambda quick: tiny)
    monkeypatch.setattr(fc.graph.plan, "SERIAL_PROGRAM", 0)
    found = ops.streaming("default", 2, True)
    for p in tiny:
        x, weight, bias, dy = p.arrays()
        if p.layer == "batch norm":
            _, pullback = fc.vjp(lambda x: F.batch_norm(x, None, None, weight, bias, training=True), x)
        else:
            _, pullback = fc.vjp(lambda x: F.max_pool2d(x, 3, 2, 1), x)
        want = F.max_pool2d(x, 3, 2, 1) if p.what == "forward" else pullback(dy)
        assert measure.agree(found[p.name]["check"], measure.fingerprint(want), 1e-6)
    if load("frameworks.copy_").compiled("int any;") is not None:
        copied = load("frameworks.copy_").run("streaming", "loop", 2, True)
        assert all(copied[p.name]["median"] > 0 for p in tiny)


def test_mnist_is_found_in_a_folder_or_said_to_be_random(load, monkeypatch, tmp_path):
    common = load("frameworks.common")
    monkeypatch.setenv("FASTCNN_DATA", str(tmp_path))
    assert common.mnist()[2] == "random images"
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(bytes(16 + 2 * 784))
    assert common.mnist()[2] == "random images"
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + b"\x03\x04"))
    images, labels, source = common.mnist()
    assert (images.shape, labels.tolist(), source) == ((2, 1, 28, 28), [3, 4], "MNIST")


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
    measure = importlib.import_module("frameworks.measure")
    np.ones(40_000_000, np.float32)  # 160 MB, gone again
    measure.reset_peak()
    start = measure.resident_mb()
    array = np.ones(20_000_000, np.float32)
    assert 70 < measure.resident_mb() - start < 120 and array.size


def program(*arguments):
    command = [sys.executable, str(BENCH / "compare.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_names_of_tasks(load):
    compare = load("compare")
    assert compare.arguments(["--tasks", "train,conv"]).tasks == [*compare.common.TRAIN, "conv"]


@pytest.mark.parametrize(
    "peaks, runs, disturbed",
    [([90, 100], 1, 0), ([90, 60, 95, 99], 2, 0), ([70, 80, 99, 98], 1, 0), ([99, 50] * 3, 3, 1), ([70] * 8, 1, 1)],
)
def test_a_disturbed_run_is_made_again(load, monkeypatch, peaks, runs, disturbed):
    compare, now, made, clock = load("compare"), iter(peaks), [], iter(range(99))
    monkeypatch.setattr(compare, "WAIT", 8.0)
    monkeypatch.setattr(compare.time, "sleep", lambda _: None)
    monkeypatch.setattr(compare.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr("fastcnn.graph.roofline.peak_gflops", lambda threads: next(now))
    report = {"machine": {"peak": {"2": 100.0}}, "disturbed": 0}
    found = compare.undisturbed(report, 2, lambda: made.append(1) or {"results": len(made)})
    assert (found["results"], report["disturbed"], next(now, None)) == (runs, disturbed, None)
    assert report["machine"]["peak"]["2"] == 100.0


def test_help_lists_the_tasks_and_unknown_ones_are_named():
    text = program("--help").stdout
    assert all(word in text for word in ("resnet50_train", "lenet_infer", "sgemm", "openvino"))
    nowhere = program("--data", "/no/such/folder")
    assert nowhere.returncode == 2 and "/no/such/folder" in nowhere.stderr
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
