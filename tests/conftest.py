"""What every test shares: the right fastcnn on sys.path, markers, hypothesis settings."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# `python -m pytest` puts the source tree first on sys.path. Unless it was built in place, it has no compiled module
# and would hide the installed package.
if not list((ROOT / "fastcnn").glob("_core*.so")):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

try:
    import hypothesis
except ImportError:
    pass
else:
    hypothesis.settings.register_profile("fastcnn", deadline=None, derandomize=bool(os.environ.get("CI")))
    hypothesis.settings.load_profile("fastcnn")


def pytest_collection_modifyitems(items):
    """test_tiny.py is the quick set; slow tests run last."""
    for item in items:
        if item.path.name == "test_tiny.py":
            item.add_marker(pytest.mark.quick)
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def root():
    """The source tree."""
    return ROOT


@pytest.fixture(scope="session")
def torchvision():
    """torchvision.models; its plain Python part where its compiled one is for another build of torch."""
    torch = pytest.importorskip("torch")
    try:
        import torchvision.models as theirs
    except RuntimeError:  # the networks need no more than the names of the compiled operators
        library = torch.library.Library("torchvision", "DEF")
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.models as theirs
    except ImportError:
        pytest.skip("torchvision is not installed")
    return theirs


@pytest.fixture(autouse=True)
def default_algorithm():
    """What a test chooses for convolutions ends with it."""
    yield
    config = sys.modules.get("fastcnn.config")
    if config is not None and config.get_conv_algorithm() != "auto":
        config.set_conv_algorithm("auto")
