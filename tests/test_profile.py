"""What plans say of their steps, what the machine can do, and `fastcnn profile`. No test depends on how long anything takes."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import _core, cli, config, models, nn, optim, profiling
from fastcnn.cli_profile import training
from fastcnn.data.download import cache_dir
from fastcnn.graph import describe, roofline
from fastcnn.graph.autograd import Call
from fastcnn.graph.roofline import Roofline

ISAS = [name for name, supported in _core.isas() if supported]
BOUNDS = Roofline("a CPU", "avx2", 2, gflops=200.0, cache_gbs=100.0, memory_gbs=20.0, cache_bytes=1_000_000)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of its own, short measurements, and the number of threads as it was."""
    monkeypatch.setenv("FASTCNN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(roofline, "_known", {})
    monkeypatch.setattr(roofline, "SECONDS", 0.001)
    monkeypatch.setattr(roofline, "MOST_MEMORY", 1 << 20)
    monkeypatch.setattr(profiling, "WARM_UP", 0.0)
    monkeypatch.setattr(config, "_threads", config.get_num_threads())
    return tmp_path / "home"


def lenet_step(optimizer=optim.Adam):
    model = models.lenet5()
    return fc.compile_step(model, nn.CrossEntropyLoss(), optimizer(model.parameters()))


def lenet_batch(n):
    return np.random.default_rng(n).standard_normal((n, 1, 28, 28)).astype(np.float32), np.arange(n) % 10


def program_of(model, *shapes):
    arrays = [np.zeros(shape, np.float32) for shape in shapes]
    return Call(model, arrays, {}, (False,) * len(arrays), False, _core.Arena()).program


# ---- the machine -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("isa", ISAS)
def test_multiply_adds(isa):
    _core.select_isa(isa)
    try:
        results = []
        for threads in (1, 3):
            y = _core.aligned_array((5, _core.isa()["vw"]))
            _core.run_kernel("multiply_adds", threads, y=y, count=5, rounds=7)
            results.append(y)
    finally:
        _core.select_isa(ISAS[-1])
    chain = np.arange(12.0)
    for _ in range(7):
        chain = 0.5 * chain - 1
    np.testing.assert_allclose(results[0], chain.sum(), rtol=1e-6)
    np.testing.assert_array_equal(*results)


def test_measured_bounds_are_numbers():
    found = roofline.roofline(2)
    assert (found.cpu, found.isa, found.threads) == (roofline.cpu_name(), _core.isa()["name"], 2)
    assert 0 < found.gflops < 1e6 and 0 < found.cache_gbs < 1e6 and 0 < found.memory_gbs < 1e6
    assert 1 << 16 < found.cache_bytes < 1 << 36


def test_bounds_are_measured_once_and_kept(home, monkeypatch):
    measured = []

    def measure(cpu, isa, threads):
        measured.append(threads)
        return Roofline(cpu, isa, threads, float(len(measured)), 1.0, 1.0, roofline.usable_cache_bytes(threads))

    monkeypatch.setattr(roofline, "measure", measure)
    assert [roofline.roofline(2).gflops, roofline.roofline(2).gflops, roofline.roofline(1).gflops] == [1, 1, 2]
    new_process = lambda: monkeypatch.setattr(roofline, "_known", {})
    new_process()
    assert [roofline.roofline(2).gflops, roofline.roofline(1).gflops] == [1, 2] and measured == [2, 1]
    files = sorted((home / "roofline").iterdir())
    assert len(files) == 2 and all(file.suffix == ".json" and _core.isa()["name"] in file.name for file in files)
    assert roofline.roofline(1, again=True).gflops == 3 and roofline.roofline(1).gflops == 3
    new_process()
    assert roofline.roofline(1).gflops == 3
    one = next(file for file in files if file.stem.endswith("-1"))
    good = one.read_text()
    for damaged in (
        "",
        "{",
        "[]",
        "{}",
        good.replace("3.0", "-3.0"),
        good.replace("3.0", '"3"'),
        good.replace(" 1,", " 9,"),
        good.replace('"cache_bytes": ', '"cache_bytes": 1'),
        "[" * 100_000,
    ):
        one.write_text(damaged)
        new_process()
        before = len(measured)
        assert roofline.roofline(1).gflops == before + 1 == len(measured), damaged


def test_bounds_need_no_folder(home, monkeypatch):
    home.write_text("in the way")
    assert roofline.roofline(1) == roofline.roofline(1)
    for name in ("FASTCNN_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert roofline.roofline(1, again=True).threads == 1
    with pytest.raises(OSError, match="FASTCNN_HOME"):
        cache_dir("weights")


def test_cpus_of_one_name_are_told_apart(tmp_path):
    file = tmp_path / "cpuinfo"
    one = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
    file.write_text(f"{one}\n{one.replace('25', '26')}")
    assert roofline.cpu_name(str(file)) == "AMD EPYC (cpu family 25, model 1, stepping 1)"
    file.write_text("model name : BCM2835\n")
    assert roofline.cpu_name(str(file)) == "BCM2835"
    assert roofline.cpu_name(str(tmp_path / "none"))


def test_nothing_is_measured_in_normal_use(monkeypatch, capsys):
    monkeypatch.setattr(roofline, "measure", lambda *key: pytest.fail("measured"))
    monkeypatch.setenv("FASTCNN_VERBOSE", "1")
    step = lenet_step()
    step(*lenet_batch(3))
    models.lenet5().eval()(lenet_batch(3)[0])
    text = capsys.readouterr().err
    assert "gemv" in text and "GB/s" in text and "predicted" not in text


def test_the_last_cache_is_that_of_the_threads(tmp_path):
    for index, (size, sharing) in enumerate([("32K", "1"), ("1024K", "3"), ("32768K", "ff")]):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "size").write_text(size)
        (folder / "shared_cpu_map").write_text(f"00000000,000000{sharing}\n")
    assert roofline.last_cache_bytes(8, str(tmp_path)) == 32 << 20
    assert roofline.last_cache_bytes(9, str(tmp_path)) == 64 << 20
    assert roofline.last_cache_bytes(9, str(tmp_path / "none")) == roofline.UNKNOWN_CACHE


def test_predictions():
    assert BOUNDS.compute_ms(2e8, 2) == pytest.approx(1.0) and BOUNDS.compute_ms(2e8, 1) == pytest.approx(2.0)
    assert BOUNDS.transfer_ms(1e6, 2) == pytest.approx(0.01) and BOUNDS.transfer_ms(1e6, 1) == pytest.approx(0.02)
    assert BOUNDS.transfer_ms(3e6, 2) == pytest.approx(0.01 + 0.1)


# ---- rows ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("algorithm", ["direct", "winograd"])
def test_work_is_that_of_the_definition(algorithm):
    """Strided, grouped, transposed and linear layers, forward and backward: 2 x the multiply-adds of each."""
    fc.set_conv_algorithm(algorithm)
    convolutions = [
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(16, 24, 1, stride=2),
        nn.Conv2d(24, 24, 3, padding=1, groups=24),
        nn.ConvTranspose2d(24, 8, 2, 2),
    ]
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 6 * 6, 5))
    x = np.zeros((3, 8, 12, 12), np.float32)
    per_image = [144 * 16 * 8 * 9, 36 * 16 * 16 * 9, 9 * 24 * 16, 9 * 24 * 9, 9 * 24 * 8 * 4, 288 * 5]
    forward = describe.rows(program_of(model, x.shape), BOUNDS)
    assert sum(row.gflop for row in forward) == pytest.approx(2e-9 * 3 * sum(per_image))
    assert any(row.algorithm == "winograd" for row in forward) == (algorithm == "winograd")
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
    rows = describe.rows(step.program(x, np.zeros(3, np.int64)), BOUNDS)
    whole = 2e-9 * 3 * (3 * sum(per_image) - per_image[0])  # the first layer's data gradient is not computed
    assert sum(row.gflop for row in rows) == pytest.approx(whole)
    kinds = {row.kind for row in rows}
    assert kinds >= {
        "conv 3x3",
        "conv 3x3/2",
        "conv 1x1/2 dw",
        "conv 3x3 depthwise dx",
        "conv 2x2/2 dx",
        "linear dw",
        "update",
    }
    for row in rows:
        if row.kind == "update":
            assert row.algorithm == "" and row.gflop == 0
        if row.algorithm == "direct":
            assert row.predicted_ms >= 1e3 * row.gflop / (200 / 2 * row.threads) * (1 - 1e-6)


def test_bytes_are_those_of_every_array_once():
    rows = describe.rows(program_of(lambda x: F.relu(x), (4, 100, 7)))
    (row,) = [row for row in rows if row.kernel == "map"]
    assert row.mb == pytest.approx(2 * 4 * 100 * 7 * 4e-6) and row.predicted_ms is None and row.gflop == 0
    vw = _core.isa()["vw"]
    rows = describe.rows(program_of(lambda x: F.max_pool2d(F.relu(x), 2), (1, vw, 8, 8)))
    assert sum(row.mb for row in rows if row.kernel == "max_pool") == pytest.approx(4e-6 * vw * (64 + 16))


def test_a_frame_counts_where_it_is_read_and_phases_count_once():
    vw = _core.isa()["vw"]
    weight = np.zeros((vw, vw, 3, 3), np.float32)

    def f(x):
        return F.conv2d(F.relu(x), weight, stride=2, padding=1)

    conv = next(row for row in describe.rows(program_of(f, (1, vw, 8, 8))) if row.algorithm)
    assert conv.mb >= 4e-6 * vw * (9 * 9 + 16) and conv.mb < 4e-6 * (vw * (10 * 10 + 16) + 9 * vw * vw) + 0.002
    back = describe.rows(program_of(lambda y: F.conv_transpose2d(y, weight, stride=2, padding=1), (1, vw, 5, 5)))
    phases = [row for row in back if row.algorithm]
    assert len(phases) == 4
    output = 4e-6 * vw * 9 * 9  # written once by all four together; each reads the input and some of the weights
    read = 4 * 4e-6 * vw * (6 * 6 + 25) + 4e-6 * 9 * vw * vw + 0.004
    assert output < sum(row.mb for row in phases) < output + read


def test_predicted_is_the_larger_bound():
    fc.set_conv_algorithm("direct")  # Winograd's products are fewer than the convolution's
    rows = describe.rows(lenet_step().program(*lenet_batch(64)), BOUNDS)
    assert {row.bound for row in rows} == {"compute", "cache", "memory"}
    for row in rows:
        compute, transfer = (
            BOUNDS.compute_ms(1e9 * row.gflop, row.threads),
            BOUNDS.transfer_ms(1e6 * row.mb, row.threads),
        )
        assert row.predicted_ms == pytest.approx(max(compute, transfer))
        assert (row.bound == "memory") == (row.mb > 1 and transfer >= compute)


def test_updates_in_the_midst_of_backward_are_updates():
    model = nn.Sequential(nn.Conv2d(1, 100, 27), nn.Flatten(), nn.Linear(400, 300))
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()))
    rows = describe.rows(step.program(*lenet_batch(8)))
    updates = [row for row in rows if row.kernel == "adam"]
    assert len(updates) > 1 and all(row.kind == "update" and not row.gflop for row in updates)
    assert sum(row.mb for row in updates) == pytest.approx(4 * 4e-6 * (100 * 27 * 27 + 400), rel=0.01)  # p, g, m, v
    (fused,) = (row for row in rows if row.kernel == "gemm_update")  # the gradient and the update of a linear layer
    assert fused.algorithm == "gemm" and fused.gflop == pytest.approx(2e-9 * 8 * 400 * 300)
    assert fused.mb == pytest.approx(4e-6 * (3 * 400 * 300 + 8 * (400 + 300)), rel=0.01)  # p, m, v; x, dy


def test_describe_is_a_line_per_step_and_counts_no_step(monkeypatch):
    monkeypatch.setattr(roofline, "measure", lambda *key: dataclasses.replace(BOUNDS, gflops=1000.0))
    fc.set_conv_algorithm("direct")
    step, batch = lenet_step(), lenet_batch(64)
    text = step.describe(*batch)
    program = step.program(*batch, count=False)
    lines = text.splitlines()
    assert (
        lines[0] == f"LeNet5 training step: layout {program.layout}, {_core.isa()['name']}, {program.threads} threads"
    )
    assert "peak memory" in lines[1] and "GFLOP/s" in lines[2] and "GB/s" in lines[2]
    columns = "#  phase  layer  kind  kernel  algorithm  layout  threads  MFLOP  MB  predicted us  bound"
    assert lines[3].split() == columns.split() and len(lines) == 4 + len(program.steps)
    conv2 = next(line for line in lines if "conv2" in line and "conv 5x5 " in line).split()
    assert conv2[1:7] == ["forward", "conv2", "conv", "5x5", "conv_lanes_n", "direct"] and conv2[-1] in (
        "compute",
        "cache",
    )
    assert not step.optimizer.state_dict()["state"]


# ---- profile ---------------------------------------------------------------------------------------------------------
def test_profile_of_a_step_adds_up():
    step, (x, y) = lenet_step(), lenet_batch(64)
    found = fc.profile(step, x, y, runs=3)
    assert all(entry["step"] == 4 for entry in step.optimizer.state_dict()["state"].values())  # one to warm up, three
    numbers = json.loads(json.dumps(found.numbers(), allow_nan=False))
    assert len(numbers["steps"]) == len(found.program.steps) and numbers["runs"] == 3
    assert numbers["memory_bytes"]["peak"] == found.program.peak_bytes
    for name in ("gflop", "mb", "ms", "predicted_ms"):
        for part in ("steps", "kinds", "phases"):
            assert sum(item[name] for item in numbers[part]) == pytest.approx(numbers["total"][name]), (name, part)
    total = numbers["total"]
    assert total["steps"] == len(numbers["steps"])
    assert total["share_of_roofline"] == pytest.approx(total["predicted_ms"] / total["ms"])
    assert [item["phase"] for item in numbers["phases"]].count("backward") == 1
    times = [item["ms"] for item in numbers["kinds"]]
    assert times == sorted(times, reverse=True) and min(item["ms"] for item in numbers["steps"]) >= 0
    text = str(found)
    assert all(
        word in text for word in ("roofline", "conv 5x5 dw", "peak memory", "GB/s", "% of time", "medians of 3 runs")
    )
    assert found.program.timings is None  # later runs are not timed
    assert len(found.text(top=2).splitlines()) == len(text.splitlines()) - len(found.rows) + 2
    assert "ms  GFLOP/s" in found.program.describe(np.ones(len(found.rows)))


def test_profile_of_a_module_leaves_packing_out_of_the_sums():
    model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1)).eval()
    found = fc.profile(model, np.ones((1, 16, 20, 20), np.float32), runs=2)
    prepared = [row for row in found.rows if row.phase == "prepare"]
    assert prepared and found.total.steps == len(found.rows) - len(prepared)
    assert {total.phase for total in found.phases} == {"forward"}
    assert all(row.ms > 0 for row in found.rows) and found.total.ms > 0


def test_profile_refuses(monkeypatch):
    step, (x, y) = lenet_step(), lenet_batch(2)
    for target, arrays, options, error, words in [
        (F.relu, (x,), {}, TypeError, "Module or what compile_step"),
        (step, (x,), {}, ValueError, "takes x and y, got 1"),
        (step, (x, y), {"runs": 0}, ValueError, "runs"),
        (models.lenet5(), (x[:, :, :5],), {}, ValueError, "conv2"),
    ]:
        with pytest.raises(error, match=words):
            fc.profile(target, *arrays, **options)
    monkeypatch.setenv("FASTCNN_EAGER", "1")
    with pytest.raises(ValueError, match="FASTCNN_EAGER"):
        fc.profile(lenet_step(), x, y)


def test_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("fastcnn.viz.roofline._BARS", 2)
    monkeypatch.setattr("fastcnn.viz.roofline._COLORS", 1)
    fc.set_conv_algorithm("winograd")
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(288, 10))
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
    found = fc.profile(step, np.ones((2, 8, 8, 8), np.float32), np.array([1, 2]), runs=1)
    found.plot(tmp_path / "a.png")
    found.plot(str(tmp_path / "a.svg"))
    fc.profile(nn.ReLU(), np.ones((2, 3), np.float32), runs=1).plot(tmp_path / "b.png")  # nothing to compute
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<svg" in (tmp_path / "a.svg").read_text()
    for path, error, words in [("a.bmp", ValueError, ".png, .svg, .pdf"), ("no/a.png", FileNotFoundError, "no folder")]:
        with pytest.raises(error, match=words):
            found.plot(tmp_path / path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"fastcnn\[plot\]"):
        found.plot(tmp_path / "a.png")


# ---- the command -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["--train", "--infer"])
def test_command(mode, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["profile", "lenet5", mode, "--batch", "5", "--runs", "2", "--threads", "1"]
    assert cli.main([*common, "--recalibrate", "--no-plot"]) == 0
    text = capsys.readouterr().out
    assert "lenet5" in text and "5 x 1 x 28 x 28" in text and "items/s" in text and "1 thread:" in text
    assert ("sgd" in text and "cross-entropy" in text) == (mode == "--train")
    assert all(word in text for word in ("conv2", "roofline", "peak memory", "conv 5x5"))
    assert cli.main([*common, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["mode"], found["input"]) == ("lenet5", mode[2:], [5, 1, 28, 28])
    assert found["threads"] == found["roofline"]["threads"] == 1 and found["steps"]
    assert not list(tmp_path.glob("*.*"))


def test_command_writes_a_picture_where_it_can(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["profile", "mlp", "--batch", "2", "--runs", "1"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main(command) == 0
    assert "fastcnn[plot]" in capsys.readouterr().err and not list(tmp_path.glob("*.*"))
    monkeypatch.undo()
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 0
    assert "profile-mlp.png" in capsys.readouterr().err
    assert (tmp_path / "profile-mlp.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_command_with_another_size_and_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.svg"
    command = ["profile", "cifar_resnet20", "--size", "16x24", "--batch", "2", "--runs", "1", "--top", "3"]
    assert cli.main([*command, "--plot", str(picture)]) == 0
    out = capsys.readouterr()
    assert "2 x 3 x 16 x 24" in out.out and "inference" in out.out and str(picture) in out.err and picture.exists()


@pytest.mark.parametrize("arguments, words", [
    (["resnet9000"], "there are alexnet"), (["mlp", "--size", "9"], "no height and width"), (["lenet5", "--size", "6"], "conv2"),
    (["lenet5", "--plot", "a.txt"], ".png, .svg, .pdf"), (["lenet5", "--plot", "no/a.png"], "no folder"),
])  # fmt: skip
def test_command_refuses(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["profile", *arguments]) == 2
    out = capsys.readouterr()
    assert words in out.err and not out.out
    for wrong in (["--size", "axb"], ["--runs", "0"], ["--train", "--infer"]):
        with pytest.raises(SystemExit):
            cli.main(["profile", "lenet5", *wrong])


class TwoMaps(nn.Module):
    """Logits of pixels, and auxiliary ones, as FCN gives them."""

    def __init__(self):
        super().__init__()
        self.main, self.auxiliary = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.main(x), self.auxiliary(x)


def small_detector():
    cut = models.SSDFeatureExtractor(models.squeezenet1_1(), ["features.7"], (32, 16, 8))
    return models.SSD(cut, models.DefaultBoxGenerator([[2], [2], [], []]), (48, 48), 3)


@pytest.mark.parametrize("make, shape, targets, what", [
    (models.googlenet, (2, 3, 64, 64), (2,), "cross-entropy + 0.4 of 2 auxiliary"),
    (models.perceptron, (3, 2), (3, 1), "squared error"),
    (models.lenet5_1998, (2, 1, 32, 32), (2,), "cross-entropy, SGD"),
    (lambda: models.UNet(1, 3, width=4, depth=1), (2, 1, 8, 8), (2, 8, 8), "cross-entropy, SGD"),
    (TwoMaps, (1, 3, 6, 6), (1, 6, 6), "cross-entropy + 0.4 of 1 auxiliary"),
    (small_detector, (2, 3, 48, 48), None, "the detector's loss"),
])  # fmt: skip
def test_losses_of_all_kinds_of_models(make, shape, targets, what):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    step, y, said = training(make(), x)
    assert what in said and (isinstance(y, tuple) if targets is None else y.shape == targets)
    found = fc.profile(step, x, y, runs=1)
    assert np.isfinite(step(x, y)) and {total.phase for total in found.phases} >= {"forward", "backward", "update"}
