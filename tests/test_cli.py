"""The command line, run as a user runs it."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest


def run(*args, cwd, code=0, **kwargs):
    env = {**os.environ, "CI": "1"}
    done = subprocess.run([sys.executable, "-m", "fastcnn", *args], cwd=cwd, env=env, capture_output=True, text=True,
                          timeout=120, **kwargs)  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, run("train", "lenet5", "--seed", "1", cwd=folder)


def test_train_reaches_98_percent_and_says_how_to_use_the_file(trained):
    folder, text = trained
    accuracy = float(text.split("test accuracy")[1].split("%")[0])
    assert accuracy >= 98
    model = folder / "runs" / "lenet5-digits.safetensors"
    assert model.exists() and (folder / "runs" / "lenet5-digits.svg").exists()
    assert "fastcnn predict" in text and "fastcnn.load" in text


def test_evaluate_and_predict(trained):
    folder, _ = trained
    model = str(folder / "runs" / "lenet5-digits.safetensors")
    assert "accuracy" in run("evaluate", model, cwd=folder)
    image = pytest.importorskip("PIL.Image")
    from fastcnn import datasets

    test = datasets.digits()[1]
    names = []
    for i in range(5):
        picture = 255 - np.clip(test.images[i, 0].astype(float) * 255 / test.images.max(), 0, 255).astype(np.uint8)
        names.append(str(folder / f"{i}.png"))
        image.fromarray(picture).save(names[-1])
    lines = run("predict", model, *names, cwd=folder).strip().splitlines()
    right = sum(str(test.labels[i]) in lines[i].split(".png", 1)[1][:6] for i in range(5))
    assert len(lines) == 5 and right >= 4


def test_summary_info_and_help(tmp_path):
    assert "61,706 parameters" in run("summary", "lenet5", cwd=tmp_path)
    text = run("info", cwd=tmp_path)
    assert "instruction set" in text and "threads" in text and text.count("kernels") == 1
    for command in ([], ["train"], ["evaluate"], ["predict"], ["summary"], ["profile"], ["info"], ["bench"]):
        assert "usage" in run(*command, "--help", cwd=tmp_path)


@pytest.mark.parametrize("args", [
    ["train", "resnet9000"], ["train", "lenet5", "--epochs", "0"], ["evaluate", "missing.safetensors"],
    ["train", "lenet5", "--clip-grad-norm", "0"],
    ["predict", "missing.safetensors", "a.png"], ["nonsense"], ["train", "lenet5", "--data", "mnist", "--data-dir", "."],
])  # fmt: skip
def test_mistakes_are_one_line_and_exit_2(args, tmp_path):
    done = subprocess.run([sys.executable, "-m", "fastcnn", *args], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9",
                               "FASTCNN_DATA": str(tmp_path)}, timeout=120)  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr and "error" in done.stderr


def test_clipping_is_kept_in_the_checkpoint(tmp_path):
    from fastcnn.io import read_info

    checkpoint = "runs/lenet5-digits.checkpoint.safetensors"
    run("train", "lenet5", "--epochs", "1", cwd=tmp_path)
    assert "clip_grad_norm" not in read_info(tmp_path / checkpoint)["training"]
    run("train", "lenet5", "--epochs", "2", "--clip-grad-norm", "0.5", "--resume", checkpoint, cwd=tmp_path)
    run("train", "lenet5", "--epochs", "3", "--resume", checkpoint, cwd=tmp_path)
    assert read_info(tmp_path / checkpoint)["training"]["clip_grad_norm"] == 0.5


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_keeps_the_last_checkpoint(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "fastcnn", "train", "lenet5", "--epochs", "5000"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    runs = tmp_path / "runs"
    end = time.monotonic() + 60
    while not list(runs.glob("*checkpoint*")) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=30)[0]
    assert process.returncode == 130 and "Traceback" not in text, text
    assert list(runs.glob("*checkpoint.safetensors"))


def test_summary_of_a_large_model_and_training_it_on_digits(tmp_path):
    text = run("summary", "resnet18", cwd=tmp_path)
    assert "11,689,512 parameters" in text and "1,814,073,344 multiply-adds" in text and "layer4.1.conv2" in text
    assert "resnet18 takes items of shape (3, 224, 224)" in run("train", "resnet18", cwd=tmp_path, code=2)
