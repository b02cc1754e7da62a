"""Keras: train_on_batch on each of its backends, and TensorFlow's own loop (a tf.function) on the same model."""

from __future__ import annotations

import os

import numpy as np

from . import common, measure

CONFIGS = {task: ["tensorflow", "tensorflow graph", "jax", "torch"] for task in ("lenet_train", "keras_cnn_train")}


def environment(config: str) -> dict[str, str]:
    return {"KERAS_BACKEND": config.split()[0], "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}


def versions() -> dict[str, str]:
    import keras

    backend = keras.config.backend()
    return {"keras": keras.__version__, backend: __import__(backend).__version__}


def run(task: str, config: str, threads: int, quick: bool) -> dict[str, dict]:
    pin(config, threads)
    import keras

    name, _ = common.network(task)
    model = build(name)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sgd = keras.optimizers.SGD(common.learning_rate(name), common.MOMENTUM)
    model.compile(sgd, loss_of, jit_compile=config == "jax")

    def prepare(x, y):
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        if config == "tensorflow graph":
            return graph_step(model, loss_of, sgd, x, y)
        return lambda: float(model.train_on_batch(x, y))

    return measure.time_training(name, quick, prepare)


def pin(config: str, threads: int) -> None:
    """Limit the backend to so many threads; it must not have been imported yet."""
    if config.startswith("tensorflow"):
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    elif config == "torch":
        import torch

        torch.set_num_threads(threads)
    else:  # XLA sizes its pool by the CPUs that the process may use, and has no setting for it
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def build(name: str):
    """The network in NHWC, Keras' own layout, with the shared weights turned into it."""
    import keras
    from keras import layers

    net, arrays, values, channels = [keras.Input((28, 28, 1))], iter(common.weights(name)), [], 0
    for kind, *a in common.MODELS[name]:
        if kind == "conv":
            channels = a[1]
            net.append(layers.Conv2D(channels, a[2], padding="same" if a[3] else "valid"))
            values += [next(arrays).transpose(2, 3, 1, 0), next(arrays)]
        elif kind == "linear":
            net.append(layers.Dense(a[1]))
            w = next(arrays)
            if channels:  # what the first one reads was flattened from C, H, W and is now from H, W, C
                side = round((a[0] / channels) ** 0.5)
                w = w.reshape(-1, channels, side, side).transpose(0, 2, 3, 1).reshape(a[1], a[0])
                channels = 0
            values += [w.T, next(arrays)]
        else:
            net.append({"relu": layers.ReLU, "pool": layers.MaxPooling2D, "flatten": layers.Flatten}[kind]())
    model = keras.Sequential(net)
    model.set_weights(values)
    return model


def graph_step(model, loss_of, sgd, x, y):
    import tensorflow as tf

    x, y = tf.constant(x), tf.constant(y)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        weights = model.trainable_variables
        sgd.apply(tape.gradient(loss, weights), weights)
        return loss

    return lambda: float(step(x, y))
