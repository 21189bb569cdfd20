"""Small real networks for the tests of this folder, with weights and BN statistics as of a trained net."""

from __future__ import annotations

import keras
import numpy as np

from secateur import nets
from secateur.nets.families.resnet_cifar import resnet
from secateur.nets.spec import NetSpec
from secateur.pruning.plan import Plan


def small_resnet(shortcut: str = "B", depth: int = 8, side: int = 8, seed: int = 0) -> keras.Model:
    """A CIFAR ResNet of any depth 6n+2 (ResNet-8 has one block per stage), randomised."""
    spec = NetSpec(f"ResNet-{depth}", input_shape=(side, side, 3), shortcut=shortcut)
    model = resnet(spec)
    model.spec = spec
    return randomised(model, seed)


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Every weight and BN statistic different from its initial value; no block is the identity."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.variables:
            shape = tuple(variable.shape)
            if variable.name == "kernel":
                variable.assign(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))
            elif variable.name in ("gamma", "moving_variance"):
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif variable.name in ("bias", "beta", "moving_mean"):
                variable.assign(rng.normal(0, 0.3, shape))
    return model


def plain_net() -> keras.Model:
    """Stock layers only: two branches that are added, biases, pooling, flatten, two dense layers."""
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(images)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.Conv2D(5, 3, padding="same", activation="relu", name="inner")(x)
    y = layers.Conv2D(6, 1, name="outer")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.MaxPooling2D(name="pool")(layers.Activation("relu", name="act")(x))
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(7, activation="relu", name="hidden")(x)
    return randomised(keras.Model(images, layers.Dense(4, name="logits")(x), name="plain"))


def random_plan(groups, rng: np.random.Generator) -> Plan:
    """Any number of any channels in every group, and of each layer at least one."""
    keep = {}
    for group in groups:
        width = int(rng.integers(1, group.size + 1))
        keep[group.name] = tuple(group.best(rng.permutation(group.size), width).tolist())
    return Plan(keep, {group.name: group.size for group in groups})


def images(n: int, side: int = 8, seed: int = 0) -> np.ndarray:
    """Normalised images (n, side, side, 3) with some structure: smooth waves plus noise."""
    rng = np.random.default_rng(seed)
    grid = np.arange(side) / side * 2 * np.pi
    phase, speed = rng.uniform(0, 6, (2, n, 3)), rng.integers(1, 3, (2, n, 3))
    rows, columns = (np.sin(speed[i][:, None] * grid[:, None] + phase[i][:, None]) for i in (0, 1))
    waves = rows[:, :, None] * columns[:, None]
    return (waves + rng.normal(0, 0.3, waves.shape)).astype(np.float32)


def resnet20(shortcut: str = "B", side: int = 16) -> keras.Model:
    """A real ResNet-20 at a small resolution, randomised."""
    return randomised(nets.build("ResNet-20", shortcut=shortcut, input_shape=(side, side, 3)))
