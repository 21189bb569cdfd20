"""`train_cifar.py` on two logical CPUs, as on two GPUs of a machine: a program with its words."""

import sys

import tensorflow as tf

from secateur.__main__ import alone
from secateur.recipes.engine import run


def mirrored(*args, **options) -> tf.distribute.Strategy:
    """In the place of `make_strategy`."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


if __name__ == "__main__":
    run.make_strategy = mirrored
    sys.exit(alone("train", "two_devices.py"))
