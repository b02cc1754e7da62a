"""A scikit-learn estimator around fastcnn's networks. Needs scikit-learn: pip install 'fastcnn[sklearn]'."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    raise ImportError(
        f"fastcnn.sklearn needs scikit-learn 1.6 or newer: pip install 'fastcnn[sklearn]' ({error})"
    ) from error

from fastcnn import nn, optim
from fastcnn.callbacks import EarlyStopping
from fastcnn.nn import check
from fastcnn.optim.lr_scheduler import CosineAnnealingLR
from fastcnn.random import seeded
from fastcnn.train import Trainer

_OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "rmsprop": optim.RMSprop,
    "sgd": lambda params, **options: optim.SGD(params, momentum=0.9, **options),
}
_BATCH = 16  # of prediction: the lanes of a vector


class CNNClassifier(ClassifierMixin, BaseEstimator):
    """A network as a scikit-learn classifier, trained with cross-entropy.

    X: (N, features), (N, C, H, W), or any (N, ...) that image_shape fits; integers are read as float32. y: N labels.

    model: None for a small network that fits X (convolutions for images, one hidden layer else); a Module, of which a
        copy is trained further from the weights it has; or a function (input_shape, num_classes) -> Module, where
        input_shape leaves out N. Its outputs are logits, one per class.
    image_shape: (C, H, W) to which every sample is reshaped, for images that come as rows.
    standardize: subtract the training data's mean and divide by its standard deviation, of each feature, or of each
        channel of images. partial_fit takes them from its first call.
    optimizer: "adam", "adamw", "rmsprop", "sgd" (momentum 0.9), or a function (params, lr=, weight_decay=).
    lr: learning rate, which falls to 0 along a cosine over `epochs` (partial_fit: constant).
    validation_fraction, patience: with a patience, this share of the samples (stratified) is held out, training ends
        when their loss has not improved for `patience` epochs, and the best epoch's weights are kept.
    random_state: an int makes fit repeat itself to the last bit; fastcnn's own random numbers are left alone.
    verbose: show progress.

    After fit: classes_, n_features_in_ (X.shape[1]), input_shape_ (of a sample, as the model gets it), model_ (the
    Module, in evaluation mode), mean_ and scale_ (None without standardize), n_iter_ (epochs), loss_curve_ (mean loss
    of each epoch), validation_scores_ (accuracy of the held-out part after each epoch, None without patience).
    """

    def __init__(
        self,
        model: Any = None,
        *,
        image_shape: tuple[int, int, int] | None = None,
        standardize: bool = True,
        optimizer: Any = "adam",
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        epochs: int = 20,
        batch_size: int = 32,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.standardize = standardize
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> CNNClassifier:
        """Train a fresh model (or a copy of the given one) on X and y."""
        self._check_arguments()
        x, y = self._read(X, y)
        random = check_random_state(self.random_state)
        with seeded(int(random.randint(2**31 - 1))):
            self._begin(x, np.unique(y))
            target = np.searchsorted(self.classes_, y)
            x, held_out = self._scaled(x), None
            if self.patience is not None:
                x, x_out, target, target_out = train_test_split(
                    x, target, test_size=self.validation_fraction, stratify=target, random_state=random
                )
                held_out = (x_out, target_out)
            optimizer = self._make_optimizer()
            trainer = Trainer(
                self.model_, optimizer=optimizer, scheduler=CosineAnnealingLR(optimizer, T_max=self.epochs)
            )
            stop = [] if self.patience is None else [EarlyStopping(patience=self.patience, restore_best_weights=True)]
            history = self._train(trainer, (x, target), held_out, self.epochs, stop)
        self.loss_curve_ = history["loss"]
        self.validation_scores_ = history.get("val_accuracy")
        self.n_iter_ = len(self.loss_curve_)
        self._optimizer: Any = None
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> CNNClassifier:
        """One epoch on X and y. classes: all labels there will be, needed in the first call, with the samples' scale.

        The optimizer's state is kept from call to call; after a fit it starts anew.
        """
        self._check_arguments()
        first = not hasattr(self, "model_")
        x, y = self._read(X, y, reset=first)
        random = check_random_state(self.random_state)
        with seeded(int(random.randint(2**31 - 1)) + getattr(self, "n_iter_", 0)):
            if first:
                if classes is None:
                    raise ValueError("CNNClassifier.partial_fit: classes must be given in the first call")
                self._begin(x, np.unique(classes))
                self.loss_curve_, self.validation_scores_, self._optimizer = [], None, None
            elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"CNNClassifier.partial_fit: classes must be those of the first call, {self.classes_}, "
                    f"got {np.unique(classes)}"
                )
            unknown = np.setdiff1d(y, self.classes_)
            if len(unknown):
                raise ValueError(f"CNNClassifier.partial_fit: y has labels {unknown} that are not among the classes")
            if self._optimizer is None:
                self._optimizer = self._make_optimizer()
            elif isinstance(self._optimizer, dict):  # from a pickle
                state, self._optimizer = self._optimizer, self._make_optimizer()
                self._optimizer.load_state_dict(state)
            trainer = Trainer(self.model_, optimizer=self._optimizer)
            data = (self._scaled(x), np.searchsorted(self.classes_, y))
            self.loss_curve_ += self._train(trainer, data, None, 1, [])["loss"]
        self.n_iter_ = len(self.loss_curve_)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The network's logits: (N, classes), or for two classes (N,), the second one's minus the first one's."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, classes), float64, in the order of classes_."""
        logits = self._logits(X)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each sample."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    # ---- inside --------------------------------------------------------------------------------
    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "loss_curve_")

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the optimizer, which lives on the model's memory, by its state."""
        state = dict(super().__getstate__())
        if isinstance(state.get("_optimizer"), optim.Optimizer):
            state["_optimizer"] = state["_optimizer"].state_dict()
        return state

    def _check_arguments(self) -> None:
        name = "CNNClassifier"
        check.integer(name, "epochs", self.epochs, 1)
        check.integer(name, "batch_size", self.batch_size, 1)
        check.number(name, "lr", self.lr, 0.0)
        check.number(name, "weight_decay", self.weight_decay, 0.0)
        check.flag(name, "standardize", self.standardize)
        if self.patience is not None:
            check.integer(name, "patience", self.patience, 1)
            fraction = check.number(name, "validation_fraction", self.validation_fraction, 0.0, 1.0)
            if not 0 < fraction < 1:
                raise ValueError(f"{name}: validation_fraction must be between 0 and 1, got {fraction}")
        if self.image_shape is not None:
            check.integers(name, "image_shape", tuple(self.image_shape), 3, 1)
        if not callable(self.optimizer):
            check.choice(name, "optimizer", self.optimizer, list(_OPTIMIZERS))
        if not (self.model is None or callable(self.model)):
            raise TypeError(
                f"{name}: model must be None, a Module or a function (input_shape, num_classes), got {self.model!r}"
            )

    def _read(self, X: Any, y: Any, reset: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """X and y as arrays that scikit-learn's rules allow, X in the shape that the model gets."""
        X, y = validate_data(self, X, y, reset=reset, allow_nd=True, dtype=[np.float32, np.float64])
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return self._shaped(X), y

    def _shaped(self, x: np.ndarray) -> np.ndarray:
        if self.image_shape is None:
            return x
        shape = tuple(self.image_shape)
        if math.prod(x.shape[1:]) != math.prod(shape):
            raise ValueError(
                f"CNNClassifier: samples of shape {x.shape[1:]} do not fit image_shape={shape}, "
                f"which has {math.prod(shape)} values"
            )
        return x.reshape(len(x), *shape)

    def _begin(self, x: np.ndarray, classes: np.ndarray) -> None:
        """Everything that is learned from the shapes of the data: classes, scale, a model that fits."""
        if len(classes) < 2:
            raise ValueError(f"CNNClassifier: y must have at least 2 classes, got {len(classes)} class: {classes}")
        self.classes_ = classes
        self.input_shape_ = x.shape[1:]
        self.mean_ = self.scale_ = None
        if self.standardize:
            axes = (0, *range(2, x.ndim))
            self.mean_ = x.mean(axis=axes, keepdims=True, dtype=np.float64)[0]
            scale = x.std(axis=axes, keepdims=True, dtype=np.float64)[0]
            self.scale_ = np.where(scale > 0, scale, 1.0)
        if isinstance(self.model, nn.Module):
            self.model_ = copy.deepcopy(self.model)
        else:
            self.model_ = (self.model or _network)(self.input_shape_, len(classes))
            if not isinstance(self.model_, nn.Module):
                raise TypeError(f"CNNClassifier: model must return a Module, got {type(self.model_).__name__}")
        output = np.shape(self.model_.eval()(self._scaled(x[:1])))
        if output != (1, len(classes)):
            raise ValueError(
                f"CNNClassifier: the model gives {output} for one sample, and should give (1, {len(classes)}), a logit "
                "for each class; see fastcnn.models.replace_head"
            )

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        if self.mean_ is None or self.scale_ is None:
            return np.ascontiguousarray(x, np.float32)
        return ((x - self.mean_.astype(x.dtype)) / self.scale_.astype(x.dtype)).astype(np.float32, copy=False)

    def _make_optimizer(self) -> Any:
        make = self.optimizer if callable(self.optimizer) else _OPTIMIZERS[self.optimizer]
        return make(self.model_.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    def _train(self, trainer: Trainer, data: Any, held_out: Any, epochs: int, callbacks: Any) -> Any:
        """Trainer.fit; Ctrl-C is not swallowed, so that it ends a grid search too."""
        verbose = bool(self.verbose)
        history = trainer.fit(data, held_out, epochs, self.batch_size, callbacks, progress=verbose)
        self.model_.eval()
        if history.interrupted:
            raise KeyboardInterrupt
        return history

    def _logits(self, X: Any) -> np.ndarray:
        """[N, classes] in float64. Every batch has the same size, the last one filled up: what a sample gives
        does not depend, to the last bit, on how many others came with it."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype=[np.float32, np.float64])
        x = self._shaped(X)
        if x.shape[1:] != self.input_shape_:
            raise ValueError(f"CNNClassifier: samples must have shape {self.input_shape_}, got {x.shape[1:]}")
        result = np.empty((len(x), len(self.classes_)))
        batch = np.zeros((_BATCH, *self.input_shape_), np.float32)
        for start in range(0, len(x), _BATCH):
            part = self._scaled(x[start : start + _BATCH])
            batch[: len(part)] = part
            result[start : start + _BATCH] = self.model_(batch)[: len(part)]
        return result


def _network(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A small network for samples of this shape: (features,) or (C, H, W).

    Images: blocks of a 3x3 convolution, ReLU and 2x2 pooling down to some 4 to 7 pixels a side, then two linear layers.
    """
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], 128), nn.ReLU(), nn.Linear(128, num_classes))
    if len(shape) != 3:
        raise ValueError(
            f"CNNClassifier: samples of shape {shape} need a model, or an image_shape=(C, H, W); without them X must "
            "be (N, features) or (N, C, H, W)"
        )
    channels, height, width = shape
    layers: list[nn.Module] = []
    following = 32
    while not layers or min(height, width) >= 8:
        layers += [nn.Conv2d(channels, following, 3, padding=1), nn.ReLU()]
        if min(height, width) >= 4:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels, following = following, min(2 * following, 128)
    layers += [nn.Flatten(), nn.Linear(channels * height * width, 128), nn.ReLU(), nn.Linear(128, num_classes)]
    return nn.Sequential(*layers)
