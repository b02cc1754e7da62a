"""A golden run: the same losses on every machine, to rounding, and the same bits at any thread count."""

import numpy as np
from test_ops import isa, use_threads  # noqa: F401 - a fixture

import fastcnn as fc
from fastcnn import nn, optim

# from PyTorch in float64
LOSSES = [1.4241518, 1.412269, 1.390568, 1.3625088, 1.3319838, 1.3005261, 1.2712993, 1.245923]


def losses():
    rng = np.random.default_rng(42)
    model = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3, stride=2),
                          nn.Tanh(), nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(28, 4))  # fmt: skip
    for p in model.parameters():
        p[...] = rng.uniform(-0.3, 0.3, p.shape)
    step = fc.compile_step(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.2, momentum=0.9))
    x, y = rng.standard_normal((18, 2, 12, 13)), rng.integers(0, 4, 18)
    return [step(x, y) for _ in range(8)]


def test_losses(isa, monkeypatch):  # noqa: F811
    found = losses()
    np.testing.assert_allclose(found, LOSSES, rtol=2e-5)
    for threads in (1, 2, 5):
        use_threads(monkeypatch, threads)
        assert losses() == found
