"""Ready-made networks."""

from fastcnn.models.lenet import KerasCNN, LeNet5, keras_cnn, lenet5

__all__ = ["KerasCNN", "LeNet5", "keras_cnn", "lenet5"]
