"""Small networks in `fit`; as a program, on one and two logical CPUs under MirroredStrategy.

TensorFlow divides the CPU only before it is first used. `python fitting.py OUT.npz`; keys are
"replicas/what".
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from secateur import callbacks, pruning
from tests.helpers.toys import images, plain_net, randomised

L = keras.layers
ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gated() -> keras.Model:
    """Convolutions, BN, and a gate: a sigmoid, whose zero channels are one half. Four classes."""
    x = keras.Input((8, 8, 3))
    y = L.Conv2D(8, 3, padding="same", name="stem")(x)
    y = L.ReLU()(L.BatchNormalization(name="bn")(y))
    y = L.Conv2D(8, 3, padding="same", activation="relu", name="wide")(y)
    gate = L.Dense(8, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D()(y))
    gate = L.Dense(8, activation="sigmoid", name="open")(gate)
    y = L.Multiply()([y, L.Reshape((1, 1, 8))(gate)])
    return randomised(keras.Model(x, L.Dense(4, name="logits")(L.GlobalAveragePooling2D()(y))))


def data(n: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 8, 8, 3) and labels (n,) of four classes."""
    return images(n), np.random.default_rng(0).integers(0, 4, n)


def gap(model: keras.Model, plan: pruning.Plan) -> float:
    """Largest difference between the outputs of a network and of its compact one, of the largest output."""
    expected = pruning.compact(model, plan)(images(8, seed=1)).numpy()
    return float(np.abs(model(images(8, seed=1)) - expected).max() / np.abs(expected).max())


def frozen_norm(seed: int) -> keras.Model:
    """`plain_net` with BN that does not train, so that a batch may be divided."""
    model = randomised(plain_net(), seed)
    model.get_layer("stem_bn").trainable = False
    return model


def found(strategy, eagerly: bool) -> dict[str, object]:
    """What is compared."""
    with strategy.scope():
        model = gated()
        model.compile("adam", ENTROPY, run_eagerly=eagerly)
    gradual = callbacks.GradualPruning(keep_macs=0.5, begin=1, end=3)
    model.fit(*data(), epochs=4, verbose=0, callbacks=[gradual])
    result = {"gradual": gap(model, gradual.plan), "widths": list(gradual.plan.widths().values())}
    plan = pruning.make_plan(model, keep=0.3, within=gradual.plan)
    model.fit(*data(), epochs=1, verbose=0, callbacks=[callbacks.HoldPruned(plan)])
    result["held"] = gap(model, plan)
    with strategy.scope():
        student, teacher = frozen_norm(1), frozen_norm(2)
        distiller = callbacks.Distiller(student, teacher, ["kd", ("at", 3.0)], label_weight=0.5)
        distiller.compile(keras.optimizers.SGD(0.01), ENTROPY, metrics=["accuracy"], run_eagerly=eagerly)
    history = distiller.fit(*data(), epochs=2, shuffle=False, batch_size=16, verbose=0).history
    result |= {f"history {name}": values for name, values in history.items()}
    return result | {f"weights {i}": v.numpy() for i, v in enumerate(student.trainable_variables)}


def main(path: str) -> None:
    """Writes what was found on one and on two replicas."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    ways = {1: found(tf.distribute.get_strategy(), eagerly=True), 2: found(two, eagerly=False)}
    np.savez(path, **{f"{n}/{name}": value for n, way in ways.items() for name, value in way.items()})


if __name__ == "__main__":
    main(sys.argv[1])
