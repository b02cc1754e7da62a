"""The package as a user gets it: metadata, a light import, README's example, and a wheel that runs on any x86-64."""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastcnn

SOURCES = ["pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "csrc", "fastcnn"]
SMOKE = """
import numpy as np, fastcnn as fc
from fastcnn import nn, optim
fc.manual_seed(0)
x = np.random.default_rng(0).normal(size=(32, 1, 8, 8)).astype(np.float32)
y = (x.mean((1, 2, 3)) > 0).astype(np.int64)
model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2))
step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
losses = [float(step(x, y)) for _ in range(20)]
assert losses[-1] < losses[0], losses
fc.save(model, "model.safetensors")
model.eval()
np.testing.assert_array_equal(fc.load("model.safetensors").eval()(x), model(x))
train, test = fc.datasets.digits()
assert len(train) + len(test) == 1797
print(fc.__file__, fc.__version__)
"""


def run(*command, cwd=None, env=None):
    """The output of a command; its whole output in the failure."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean | (env or {}),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-6000:]}"
    return done.stdout


# ---- the installed package ------------------------------------------------------------------------------------------


def test_version_is_written_once():
    assert fastcnn.__version__ == importlib.metadata.version("fastcnn")


def test_hard_dependencies():
    hard = [r for r in importlib.metadata.requires("fastcnn") if "extra ==" not in r]
    assert {re.match(r"[\w.-]+", r).group() for r in hard} == {"numpy", "safetensors", "tqdm"}


def test_import_is_light(tmp_path):
    """Nothing optional or slow comes with `import fastcnn`."""
    code = "import sys, json, fastcnn; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = set(json.loads(run(sys.executable, "-c", code, cwd=tmp_path)))
    assert not loaded & {"PIL", "matplotlib", "torch", "IPython", "asyncio", "urllib3", "setuptools"}


def test_typed():
    package = Path(fastcnn.__file__).parent
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()


def test_no_pickle_or_eval():
    """Files never reach code: no pickle, eval, exec or import by a name that came from data."""
    banned = re.compile(
        r"\bimport pickle\b|\bfrom pickle\b|(?<![.\w])(?<!def )(?:eval|exec|__import__)\(|allow_pickle\s*=\s*True"
    )
    for path in Path(fastcnn.__file__).parent.rglob("*.py"):
        assert not banned.search(path.read_text(encoding="utf-8")), path


def test_readme_example_runs(root, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.S)
    example = next(block for block in blocks if "import fastcnn as fc" in block)
    run(sys.executable, "-c", example, cwd=tmp_path)


# ---- the wheel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """A wheel built from a copy of the sources."""
    if not importlib.util.find_spec("pip"):
        pytest.skip("pip is not installed")
    source = tmp_path_factory.mktemp("source")
    out = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (root / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.so", "_core.c")
            shutil.copytree(root / name, source / name, ignore=ignore)
        else:
            shutil.copy(root / name, source / name)
    ready = all(importlib.util.find_spec(name) for name in ("Cython", "setuptools", "numpy"))
    isolation = ["--no-build-isolation"] if ready and find_setuptools() >= 77 else []
    env = {"FASTCNN_EMULATE_AVX512": "", "FASTCNN_SANITIZE": "", "FASTCNN_DEBUG": ""}
    run(sys.executable, "-m", "pip", "wheel", "-q", ".", "--no-deps", "-w", out, *isolation, cwd=source, env=env)
    (path,) = out.glob("fastcnn-*.whl")
    return path


def find_setuptools():
    return int(importlib.metadata.version("setuptools").split(".")[0])


@pytest.mark.slow
def test_wheel_contents(wheel, root):
    assert wheel.stat().st_size < 5 << 20
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("fastcnn/py.typed", "fastcnn/_core.pyi", "fastcnn/data/digits.npz", "fastcnn/data/digits.txt"):
        assert name in names
    python = {p.relative_to(root).as_posix() for p in (root / "fastcnn").rglob("*.py")}
    assert python <= set(names)
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx", ".a", ".o", ".pyc"))]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastcnn"}


# Beyond x86-64's baseline: VEX and EVEX (v..., mask registers), BMI, popcnt, the commonest of SSE3 and later.
BEYOND = re.compile(
    r"^(?:v(?!er[rw]\b)\w+|k(?:mov|or|and|xor|test|shift|unpck|add|not)\w*"
    r"|andn|bextr|bls\w+|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|popcnt|lzcnt"
    r"|pshufb|round[ps][sd]|blendv?p[sd]|pblend\w+|dpp[sd]|insertps|extractps|pmulld|h(?:add|sub)p[sd]"
    r"|p(?:min|max)(?:sb|sd|uw|ud)|ptest|movs[hl]dup|movddup)\b"
)
SYMBOL = re.compile(r"^([0-9a-f]+) (.{7}) (\S+)\s+([0-9a-f]+)\s+(?:\.\w+ )?(\S*)$")


def dispatched_ranges(library):
    """{source file: [(first, last) addresses of its functions]} of isa/avx2.c and isa/avx512.c. A linker lists an
    object's local symbols behind the name of its source file, and every function of a kernel source is static."""
    ranges = {"avx2.c": [], "avx512.c": []}
    file = None
    for line in run("objdump", "-t", library).splitlines():
        match = SYMBOL.match(line)
        if not match:
            continue
        address, flags, _, size, name = match.groups()
        if "f" in flags:
            file = name
        elif "F" in flags and "l" in flags and file in ranges:
            ranges[file].append((int(address, 16), int(address, 16) + int(size, 16)))
    return ranges


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="objdump reads ELF files here")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the ISAs above the baseline are x86-64's")
@pytest.mark.skipif(not shutil.which("objdump"), reason="objdump is not installed")
def test_no_avx_outside_the_dispatched_objects(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".so")]
        library = archive.extract(name, tmp_path)
    ranges = dispatched_ranges(library)
    assert ranges["avx2.c"] and ranges["avx512.c"], "the library has no symbols to tell its objects apart"
    addresses = {file: set() for file in ranges}
    for file, parts in ranges.items():
        for first, last in parts:
            addresses[file].update(range(first, last))
    stray, seen, function = {}, dict.fromkeys(ranges, 0), "?"
    for line in run("objdump", "-d", "--no-show-raw-insn", library).splitlines():
        if line.endswith(">:"):
            function = line.split("<")[1][:-2]
        parts = line.split("\t")
        if len(parts) < 2 or not parts[0].strip().endswith(":"):
            continue
        text = parts[1]
        if not (BEYOND.match(text) or re.search(r"%[yz]mm|%xmm(?:1[6-9]|[23]\d)", text)):
            continue
        address = int(parts[0].strip()[:-1], 16)
        home = next((file for file in ranges if address in addresses[file]), None)
        if home is None:
            stray.setdefault(function, text)
        else:
            seen[home] += 1
            assert not (home == "avx2.c" and "%zmm" in text), f"AVX-512 in avx2.c: {function}: {text}"
    assert not stray, f"instructions above the baseline outside isa/avx2.c and isa/avx512.c: {stray}"
    assert min(seen.values()) > 100, f"no vector code found where it must be: {seen}"


@pytest.mark.slow
def test_wheel_works_in_a_fresh_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", wheel], cwd=tmp_path, text=True, capture_output=True)
    if "No matching distribution found" in done.stderr:
        pytest.skip("no package index to take NumPy and safetensors from")
    assert done.returncode == 0, done.stderr
    out = run(python, "-c", SMOKE, cwd=tmp_path)
    assert str(tmp_path / "venv") in out
    assert "fastcnn" in run(tmp_path / "venv" / "bin" / "fastcnn", "info", cwd=tmp_path)
