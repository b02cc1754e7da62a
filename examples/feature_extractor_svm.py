"""A network as a fixed feature extractor: a LeNet-5 trained on the digits 0 to 4 sees 5 to 9, for a linear SVM.

The network never saw these classes and is not trained further. Needs scikit-learn: pip install 'fastcnn[sklearn]'.
"""

from __future__ import annotations

from collections.abc import Sequence

import handwriting
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import fastcnn as fc
from fastcnn import models

KNOWN, NEW = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)


def svm_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int) -> float:
    """Of a linear SVM on these features [N, ...]."""
    svm = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=seed))
    svm.fit(train.reshape(len(train), -1), labels)
    return float(svm.score(test.reshape(len(test), -1), test_labels))


def main(argv: Sequence[str] | None = None) -> float:
    """Print and return the accuracy on the test images of the five new classes."""
    parser = handwriting.parser(__doc__)
    parser.add_argument("--layer", default="pool2", help="whose output is the features")
    parser.add_argument("--pretrain-epochs", type=int, default=2, help="on the other five digits")
    parser.add_argument("--per-class", type=int, default=500, help="images of each class for the SVM")
    args = parser.parse_args(argv)
    fc.manual_seed(args.seed)
    train, test = handwriting.load(args.data_dir)
    (x, y), (x_test, y_test) = handwriting.subset(train, NEW, args.per_class), handwriting.subset(test, NEW)

    model = models.lenet5(num_classes=len(KNOWN))
    epochs = args.pretrain_epochs if len(train) > 10_000 else 5 * args.pretrain_epochs
    fc.Trainer(model).fit(handwriting.subset(train, KNOWN), epochs=epochs, seed=args.seed, progress=False)
    features, features_test = (fc.extract_features(model, part, args.layer) for part in (x, x_test))

    print(f"linear SVM on {x[0].size} pixels: accuracy {svm_accuracy(x, y, x_test, y_test, args.seed):.4f}")
    accuracy = svm_accuracy(features, y, features_test, y_test, args.seed)
    print(f"linear SVM on {features[0].size} features of {args.layer}: accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
