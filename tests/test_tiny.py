"""The few-second check that touches every room."""

import numpy as np

import fastcnn as fc
import fastcnn.functional as F
from fastcnn import datasets, models, nn, optim


def test_convolution():
    y = F.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), np.array([0.5]))
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), 4.5))


def test_learns_digits_and_survives_a_file(tmp_path):
    fc.manual_seed(0)
    train, test = datasets.digits()
    model = models.lenet5()
    trainer = fc.Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), 2e-3))
    history = trainer.fit(train, epochs=3, batch_size=32, progress=False)
    assert history["loss"][-1] < history["loss"][0] / 3
    score = trainer.evaluate(test)
    assert score["accuracy"] > 0.9
    fc.save(model, tmp_path / "model.safetensors")
    again = fc.load(tmp_path / "model.safetensors")
    x, y = test[:50]
    np.testing.assert_array_equal(again.eval()(x), model.eval()(x))
    assert (trainer.predict(x).argmax(1) == y).mean() > 0.8
