"""Snapshots of models that nobody here built: graph and weights, and nothing that runs code."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import nets
from secateur.runs import SnapshotError, UsageError, load_snapshot, save_snapshot


def inception() -> keras.Model:
    x = inputs = keras.Input((12, 12, 3))
    inner = keras.Sequential(
        [keras.Input((12, 12, 4)), keras.layers.Conv2D(4, 3, padding="same", name="conv")]
    )
    x = keras.layers.Conv2D(4, 1, name="conv")(x)
    x = keras.ops.relu(x + inner(x))
    x = keras.layers.BatchNormalization()(keras.layers.Concatenate()([x, keras.ops.tanh(x)]))
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(x)))


@pytest.fixture
def file(tmp_path):
    model = inception()
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) ** 2 for w in model.get_weights()])
    save_snapshot(tmp_path / "own.pkl", nets.snapshot_of(model, {"note": 1}))
    return model, tmp_path / "own.pkl"


def test_a_model_comes_back_bit_for_bit(file):
    model, path = file
    back = nets.load_params(None, path)
    x = np.random.default_rng(1).normal(size=(4, 12, 12, 3)).astype("float32")
    assert np.array_equal(model(x), back(x))


def test_weights_go_by_name_into_a_model_that_is_there(file):
    model, path = file
    other = keras.models.clone_model(model)
    nets.load_params(other, path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), other.get_weights(), strict=True))
    with pytest.raises(SnapshotError, match=r"missing|does not fit|has no weight"):
        nets.load_params(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), path)


def test_a_class_of_ones_own_must_be_registered_where_it_is_read(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Shy(keras.layers.Layer):
        def call(self, x):
            return tf.abs(x)  # keras.ops would be unfolded

    model = keras.Sequential([keras.Input((3,)), Shy(), keras.layers.Dense(2)])
    save_snapshot(tmp_path / "shy.pkl", nets.snapshot_of(model))
    assert type(nets.load_params(None, tmp_path / "shy.pkl").layers[0]) is Shy
    del keras.saving.get_custom_objects()["tests>Shy"]
    with pytest.raises(SnapshotError, match=r"--import FILE\.py.*Shy"):
        nets.load_params(None, tmp_path / "shy.pkl")


def test_code_is_neither_written_nor_read(file, tmp_path):
    anything = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(tf.nn.relu)])
    with pytest.raises(UsageError, match="runs code.*Lambda"):
        nets.snapshot_of(anything)
    snapshot = load_snapshot(file[1])
    snapshot.spec["keras"]["config"]["layers"][1]["class_name"] = "Lambda"
    save_snapshot(tmp_path / "bad.pkl", dataclasses.replace(snapshot, spec=snapshot.spec))
    with pytest.raises(SnapshotError, match="Lambda"):
        nets.load_params(None, tmp_path / "bad.pkl")
