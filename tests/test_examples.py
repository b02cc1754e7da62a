"""The examples, run as programs on the embedded digits, and on MNIST where it is (FASTCNN_DATA, or fastcnn's cache)."""

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from fastcnn import datasets

FLOOR = {  # accuracy on the five classes: embedded digits, MNIST
    "finetune_mnist": (0.94, 0.98),
    "feature_extractor_svm": (0.97, 0.97),
}


@pytest.fixture
def examples(root, monkeypatch):
    """Imports an example by name."""
    monkeypatch.syspath_prepend(str(root / "examples"))
    for name in ("handwriting", *FLOOR):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load(name):
        if "svm" in name:
            pytest.importorskip("sklearn")
        return importlib.import_module(name)

    return load


@pytest.fixture
def no_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCNN_DATA", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("name", FLOOR)
def test_on_the_embedded_digits(examples, no_mnist, capsys, name):
    accuracy = examples(name).main(["--data-dir", no_mnist])
    text = capsys.readouterr().out
    assert FLOOR[name][0] < accuracy <= 1
    assert "Using the embedded digits" in text and text.strip().endswith(f"accuracy {accuracy:.4f}")


@pytest.mark.parametrize("name", FLOOR)
def test_on_mnist(examples, capsys, name):
    try:
        datasets.mnist(download=False)
    except FileNotFoundError:
        pytest.skip("MNIST is not on this machine (FASTCNN_DATA)")
    assert FLOOR[name][1] < examples(name).main([]) <= 1
    assert "mnist: 60000 images to train" in capsys.readouterr().out


def test_features_of_the_network_are_better_than_pixels(examples, no_mnist, capsys):
    examples("feature_extractor_svm").main(["--data-dir", no_mnist])
    pixels, features = (float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[-2:])
    assert features > pixels


def test_subset(examples, no_mnist):
    train, _ = datasets.digits()
    part = examples("handwriting").subset(train, (5, 7), per_class=3)
    assert len(part) == 6 and part.classes == ("5", "7") and sorted(part.labels) == [0, 0, 0, 1, 1, 1]
    first = np.flatnonzero(train.labels == 7)[0]
    np.testing.assert_array_equal(part[part.labels == 1][0][0], train[first][0])


def test_run_as_a_program(root, no_mnist):
    program = [sys.executable, str(root / "examples" / "finetune_mnist.py"), "--pretrain-epochs", "1", "--epochs", "1"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    if not list((root / "fastcnn").glob("_core*.so")):
        env = dict(os.environ)  # the installed package
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "five classes, fine-tuned on 500 images: accuracy 0." in done.stdout
