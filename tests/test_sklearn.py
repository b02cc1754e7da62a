"""CNNClassifier as scikit-learn uses it: its own checks, pipelines, searches, pickles, repeatable fits."""

import functools
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fastcnn as fc
from fastcnn import nn
from fastcnn.sklearn import CNNClassifier


@parametrize_with_checks([CNNClassifier(random_state=0)])
def test_check_estimator(estimator, check):
    check(estimator)  # none is expected to fail


@pytest.fixture(scope="module")
def digits():
    """x_train, x_test [N, 64], y_train, y_test of scikit-learn's digits."""
    return train_test_split(
        *load_digits(return_X_y=True), test_size=0.25, random_state=0, stratify=load_digits().target
    )


@pytest.fixture(scope="module")
def easy():
    """60 samples of 3 named classes that are far apart, 4 features."""
    rng = np.random.default_rng(0)
    y = np.repeat(["ash", "beech", "cedar"], 20)
    return rng.standard_normal((60, 4)) + 4 * np.eye(4)[np.repeat([0, 1, 2], 20)], y


@pytest.mark.parametrize("image_shape", [None, (1, 8, 8)])
def test_digits(digits, image_shape):
    x, x_test, y, y_test = digits
    model = CNNClassifier(image_shape=image_shape, epochs=8, random_state=0).fit(x, y)
    assert model.score(x_test, y_test) > (0.97 if image_shape else 0.95)
    assert any(isinstance(m, nn.Conv2d) for m in model.model_.modules()) == (image_shape is not None)
    assert model.input_shape_ == (image_shape or (64,)) and model.n_features_in_ == 64
    assert len(model.loss_curve_) == model.n_iter_ == 8 and model.loss_curve_[-1] < 0.2 * model.loss_curve_[0]


def test_images_of_four_dimensions(digits):
    x, x_test, y, y_test = digits
    images, test = x.reshape(-1, 1, 8, 8).astype(np.uint8), x_test.reshape(-1, 1, 8, 8).astype(np.uint8)
    model = CNNClassifier(epochs=4, random_state=0).fit(images, y)
    assert model.score(test, y_test) > 0.95 and model.mean_.shape == (1, 1, 1)
    rows = CNNClassifier(image_shape=(1, 8, 8), epochs=4, random_state=0).fit(x.astype(np.float32), y)
    np.testing.assert_array_equal(model.predict_proba(test), rows.predict_proba(x_test.astype(np.float32)))
    with pytest.raises(ValueError, match=r"samples must have shape \(1, 8, 8\), got \(1, 8, 4\)"):
        model.predict(test[..., :4])


def test_a_random_state_repeats_and_leaves_fastcnns_numbers_alone(easy):
    x, y = easy
    dropout = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    for model in (None, dropout):
        fc.manual_seed(5)
        expected = fc.random.generator().random(2)
        fc.manual_seed(5)
        first = CNNClassifier(model, epochs=3, random_state=1).fit(x, y)
        np.testing.assert_array_equal(fc.random.generator().random(2), expected)
        threads = fc.get_num_threads()
        fc.set_num_threads(3)
        try:
            again = CNNClassifier(model, epochs=3, random_state=1).fit(x, y)
        finally:
            fc.set_num_threads(threads)
        other = CNNClassifier(model, epochs=3, random_state=2).fit(x, y)
        assert first.loss_curve_ == again.loss_curve_ != other.loss_curve_
        np.testing.assert_array_equal(first.predict_proba(x), again.predict_proba(x))


def test_a_prediction_does_not_depend_on_the_others(digits):
    x, x_test, y, _ = digits
    model = CNNClassifier(image_shape=(1, 8, 8), epochs=1, random_state=0).fit(x[:200], y[:200])
    whole = model.predict_proba(x_test)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(
        np.concatenate([model.predict_proba(x_test[i : i + 1]) for i in range(40)]), whole[:40]
    )
    np.testing.assert_array_equal(model.classes_[whole.argmax(axis=1)], model.predict(x_test))


def test_pipeline_grid_search_and_clone(easy):
    x, y = easy
    pipe = make_pipeline(MinMaxScaler(), CNNClassifier(epochs=10, batch_size=8, random_state=0))
    assert cross_val_score(pipe, x, y, cv=3).min() > 0.9
    search = GridSearchCV(pipe, {"cnnclassifier__lr": [1e-9, 1e-2]}, cv=3).fit(x, y)
    assert search.best_params_ == {"cnnclassifier__lr": 1e-2} and search.best_score_ > 0.9
    given = CNNClassifier(nn.Linear(4, 3), epochs=2)
    copy = clone(given)
    assert copy.model is not given.model and copy.get_params()["epochs"] == 2
    np.testing.assert_array_equal(copy.model.weight.numpy(), given.model.weight.numpy())


def test_pickle_and_joblib(easy, tmp_path):
    joblib = pytest.importorskip("joblib")
    x, y = easy
    model = CNNClassifier(epochs=2, random_state=0).fit(x, y)
    joblib.dump(model, tmp_path / "model")
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model")):
        np.testing.assert_array_equal(copy.predict_proba(x), model.predict_proba(x))
        np.testing.assert_array_equal(copy.predict(x), model.predict(x))


def test_a_given_model_is_copied_and_trained_further(easy):
    x, y = easy
    given = nn.Linear(4, 3)
    before = given.weight.numpy()
    still = CNNClassifier(given, lr=0.0, epochs=1, standardize=False, random_state=0).fit(x, y)
    np.testing.assert_array_equal(still.model_.weight.numpy(), before)
    moved = CNNClassifier(given, epochs=1, random_state=0).fit(x, y)
    assert not np.array_equal(moved.model_.weight.numpy(), before) and not moved.model_.training
    np.testing.assert_array_equal(given.weight.numpy(), before)
    body = nn.Linear(4, 8).requires_grad_(False)
    frozen = CNNClassifier(nn.Sequential(body, nn.Linear(8, 3)), epochs=1).fit(x, y)
    np.testing.assert_array_equal(frozen.model_[0].weight.numpy(), body.weight.numpy())


def test_factories(easy):
    x, y = easy
    seen = []

    def make(shape, num_classes):
        seen.append((shape, num_classes))
        return nn.Linear(shape[0], num_classes)

    sgd = functools.partial(fc.optim.SGD, momentum=0.5, nesterov=True)
    model = CNNClassifier(make, optimizer=sgd, lr=0.1, weight_decay=1e-4, epochs=10, random_state=0).fit(x, y)
    assert seen == [((4,), 3)] and model.score(x, y) > 0.9
    for name in ("adam", "adamw", "rmsprop", "sgd"):
        assert CNNClassifier(optimizer=name, lr=0.01, epochs=10, random_state=0).fit(x, y).score(x, y) > 0.9
    series = CNNClassifier(
        lambda shape, n: nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 3, n)), epochs=1
    )
    assert series.fit(np.ones((60, 2, 5)) * x[:, :1, None], y).predict(np.ones((2, 2, 5))).shape == (2,)


def test_early_stopping_keeps_the_best_epoch(easy):
    x, y = easy
    noise = np.random.default_rng(0).permutation(y)  # nothing to learn: the held-out loss soon rises
    model = CNNClassifier(epochs=60, lr=0.01, validation_fraction=0.25, patience=3, random_state=0).fit(x, noise)
    assert 4 <= model.n_iter_ < 60 and len(model.validation_scores_) == model.n_iter_
    longer = CNNClassifier(epochs=60, lr=0.01, random_state=0).fit(x, noise)
    assert longer.validation_scores_ is None and longer.n_iter_ == 60


def test_partial_fit(easy):
    x, y = easy
    order = np.random.default_rng(0).permutation(60)
    x, y = x[order], y[order]
    model = CNNClassifier(lr=0.01, batch_size=10, random_state=0)
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        model.partial_fit(x, y)
    for i in range(10):
        model.partial_fit(x[i % 2 :: 2], y[i % 2 :: 2], classes=["ash", "beech", "cedar", "yew"])
        if i == 4:
            copy = pickle.loads(pickle.dumps(model))
    for i in range(5, 10):
        copy.partial_fit(x[i % 2 :: 2], y[i % 2 :: 2])
    assert model.score(x, y) > 0.9 and model.predict_proba(x).shape == (60, 4) and model.n_iter_ == 10
    np.testing.assert_array_equal(copy.predict_proba(x), model.predict_proba(x))  # the optimizer's state travelled
    with pytest.raises(ValueError, match=r"labels \['oak'\] that are not among the classes"):
        model.partial_fit(x[:2], ["oak", "ash"])
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(x, y, classes=["ash", "beech"])
    fitted = CNNClassifier(epochs=3, random_state=0).fit(x, y)
    before = fitted.model_
    assert len(fitted.partial_fit(x, y).loss_curve_) == 4 and fitted.model_ is before


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"epochs": 0}, ValueError, "CNNClassifier: epochs must be at least 1"),
    ({"epochs": "3"}, TypeError, "epochs must be an integer"),
    ({"batch_size": 2.5}, TypeError, "batch_size must be an integer"),
    ({"lr": -1}, ValueError, "lr must be at least 0"),
    ({"weight_decay": float("nan")}, ValueError, "weight_decay"),
    ({"optimizer": "newton"}, ValueError, "optimizer must be one of 'adam'"),
    ({"patience": 0}, ValueError, "patience must be at least 1"),
    ({"patience": 2, "validation_fraction": 1.0}, ValueError, "validation_fraction must be between 0 and 1"),
    ({"image_shape": (1, 4)}, TypeError, "image_shape must be an integer or a sequence of 3"),
    ({"image_shape": (1, 3, 3)}, ValueError, r"samples of shape \(4,\) do not fit image_shape=\(1, 3, 3\), which has 9"),
    ({"model": "lenet5"}, TypeError, "model must be None, a Module or a function"),
    ({"model": lambda shape, n: None}, TypeError, "model must return a Module, got NoneType"),
    ({"model": nn.Linear(4, 5)}, ValueError, r"the model gives \(1, 5\) for one sample.* \(1, 3\).*replace_head"),
])  # fmt: skip
def test_bad_arguments(easy, arguments, error, message):
    with pytest.raises(error, match=message):
        CNNClassifier(**arguments).fit(*easy)


def test_bad_data(easy):
    x, y = easy
    with pytest.raises(NotFittedError):
        CNNClassifier().predict(x)
    with pytest.raises(ValueError, match="at least 2 classes, got 1 class"):
        CNNClassifier().fit(x, np.zeros(60))
    with pytest.raises(ValueError, match=r"samples of shape \(4, 1\) need a model, or an image_shape"):
        CNNClassifier().fit(x[:, :, None], y)
    with pytest.raises(ValueError, match=r"[Uu]nknown label type"):
        CNNClassifier().fit(x, np.linspace(0, 1, 60))


def test_ctrl_c_is_not_swallowed(easy):
    def interrupt(shape, n):
        class Interrupting(nn.Linear):
            def forward(self, x):
                if self.training:
                    raise KeyboardInterrupt
                return super().forward(x)

        return Interrupting(shape[0], n)

    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        CNNClassifier(interrupt).fit(*easy)


def test_fastcnn_does_not_import_scikit_learn(tmp_path):
    code = (
        "import sys, fastcnn as fc; from fastcnn import *; fc.Trainer, fc.models\n"
        "assert 'sklearn' not in sys.modules and 'sklearn' in dir(fc)\n"
        "sys.modules['sklearn'] = None\n"
        "try: fc.sklearn\n"
        "except ImportError as error: assert \"pip install 'fastcnn[sklearn]'\" in str(error), error\n"
        "else: raise AssertionError\n"
        "del sys.modules['sklearn']; fc.sklearn.CNNClassifier"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
