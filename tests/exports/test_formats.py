"""What each format computes is what the model computes; a file that does not is not left behind."""

import importlib.util
import itertools
import os

import keras
import numpy as np
import pytest

from secateur.exports import FORMATS, export, frozen_runner, litert_runner, require, to_int8, to_litert
from secateur.exports.checked import make_folder
from secateur.exports.frozen import in_float32
from secateur.exports.int8 import left_in_float
from secateur.exports.litert import converted
from secateur.exports.parity import compare
from secateur.exports.signature import outputs, sample_inputs
from secateur.runs.errors import OutOfMemoryError, RunFolderError, SecateurError, SnapshotError, UsageError
from tests.helpers import toys

FREE = [name for name in FORMATS if name != "onnx"]


BUILT = itertools.count(1)


@keras.saving.register_keras_serializable("test_formats")
class Noisy(keras.layers.Layer):
    """A layer that computes something else each time that it is built."""

    def __init__(self, size=1.0, **options):
        super().__init__(**options)
        self.size = size

    def get_config(self):
        return super().get_config() | {"size": self.size}

    def build(self, shape):
        self.offset = self.size * next(BUILT)

    def call(self, x):
        return x * (1 + self.offset)


@keras.saving.register_keras_serializable("test_formats")
class Forgetful(keras.layers.Dense):
    """A layer whose weight is read back a little different."""

    def load_own_variables(self, store):
        super().load_own_variables(store)
        self.kernel.assign(self.kernel * (1 + 1e-6))


def two_in_two_out() -> keras.Model:
    """Inputs of one shape whose exchange changes both outputs; outputs of one shape that differ."""
    a, b = keras.Input((6, 6, 2), name="zebra"), keras.Input((6, 6, 2), name="ape")
    x = keras.layers.Concatenate()([a, b])
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model([a, b], {"y": keras.layers.Dense(3)(x), "c": keras.layers.Dense(3)(x)})


def words() -> keras.Model:
    """Whole numbers in, through a Sequential model."""
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(7, 4), layers.Flatten(), layers.Dense(2)]
    )


def open_pair() -> keras.Model:
    """Two images of any one size, side by side: neither can change its size alone."""
    a, b = keras.Input((None, None, 2)), keras.Input((None, None, 1))
    return keras.Model([a, b], keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Concatenate()([a, b])))


def open_window() -> keras.Model:
    """Images of any size above 2 pixels, of which the convolution leaves 2 fewer."""
    x = keras.Input((None, None, 3))
    return keras.Model(x, keras.layers.Conv2D(4, 3)(x))


def one_at_a_time() -> keras.Model:
    """Recurrent, and for one sample at a time: what LiteRT needs of it."""
    x = keras.Input((7, 3), batch_size=1)
    return keras.Model(x, keras.layers.Dense(2)(keras.layers.LSTM(4)(x)))


def augmented() -> keras.Model:
    """Turns its images in training, which is what Keras records of the call."""
    x = keras.Input((8, 8, 3))
    turned = keras.layers.RandomRotation(0.2)(keras.layers.RandomFlip()(x))
    return keras.Model(x, keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(turned)))


def mixed() -> keras.Model:
    """Weights of 32 bits and products of 16, also in a layer inside of a layer."""
    policy, layers = keras.DTypePolicy("mixed_float16"), keras.layers
    x = keras.Input((8, 8, 3))
    made = layers.TimeDistributed(layers.Conv1D(3, 3, dtype=policy), dtype=policy)(
        layers.Conv2D(4, 3, activation="relu", dtype=policy)(x)
    )
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D(dtype=policy)(made)))


MAKES = [two_in_two_out, words, open_pair, open_window, one_at_a_time, augmented, mixed]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("name", FREE)
def test_every_format_computes_what_the_model_does(make, name, tmp_path):
    path = tmp_path / f"net{FORMATS[name].suffix}"
    parity = export(make(), path, name)
    assert parity.relative < 1e-5
    assert os.listdir(tmp_path) == [path.name]


def test_onnx_computes_what_the_model_does(tmp_path):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    assert export(two_in_two_out(), tmp_path / "net.onnx", "onnx").relative < 1e-5


@pytest.mark.skipif(importlib.util.find_spec("tf2onnx") is not None, reason="tf2onnx is installed")
def test_a_missing_package_is_named_before_the_work():
    with pytest.raises(UsageError, match="'onnx' needs tf2onnx.*\npip install tf2onnx"):
        require(["litert", "onnx"])


def test_an_unknown_format_gets_a_hint():
    with pytest.raises(UsageError, match="Received: export='tflite'.*Valid: keras, savedmodel, litert, onnx"):
        require(["tflite"])


@pytest.mark.parametrize("name", ["keras", "savedmodel"])
def test_what_was_there_is_replaced(name, tmp_path):
    path = tmp_path / f"net{FORMATS[name].suffix}"
    for _ in range(2):
        export(words(), path, name)
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_whose_successor_cannot_be_moved_there_stays(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "precious").write_text("weights")
    with pytest.raises(FileNotFoundError):  # the second of the two renames: nothing was written
        make_folder(tmp_path / "net", lambda temp: None)
    assert (tmp_path / "net" / "precious").read_text() == "weights"
    assert os.listdir(tmp_path) == ["net"]


def test_a_file_in_the_place_of_a_folder_leaves_no_rest(tmp_path):
    (tmp_path / "net").write_text("a file")
    make_folder(tmp_path / "net", lambda temp: temp.mkdir())
    assert (tmp_path / "net").is_dir() and os.listdir(tmp_path) == ["net"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    for name in ("savedmodel", "litert"):
        folder = tmp_path / f"net{FORMATS[name].suffix}"
        folder.mkdir()
        (folder / "saved_model.pb").touch()
        (folder / "thesis.txt").write_text("precious")
        with pytest.raises(RunFolderError, match="is not replaced. Received: path="):
            export(words(), folder, name)
        assert (folder / "thesis.txt").read_text() == "precious"


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path):
    path = tmp_path / "net.keras"
    path.write_bytes(b"what was there")
    x = keras.Input((3,))
    with pytest.raises(SnapshotError, match="computes something else .*Received: a difference of"):
        export(keras.Model(x, Noisy()(x)), path, "keras")
    assert path.read_bytes() == b"what was there"
    assert os.listdir(tmp_path) == [path.name]


def test_a_keras_file_may_add_in_another_order_but_keeps_every_weight(tmp_path):
    x = keras.Input((3,))
    parity = export(keras.Model(x, Noisy(size=1e-5)(x)), tmp_path / "net.keras", "keras")
    assert 0 < parity.relative < 1e-4
    with pytest.raises(SnapshotError, match="reads other weights"):
        export(keras.Model(x, Forgetful(2)(x)), tmp_path / "other.keras", "keras")
    assert os.listdir(tmp_path) == ["net.keras"]


@pytest.mark.parametrize("name", FREE)
def test_a_missing_folder_is_an_error_that_names_it(name, tmp_path):
    with pytest.raises(RunFolderError, match="does not exist"):
        export(words(), tmp_path / "nowhere" / f"net{FORMATS[name].suffix}", name)


def test_an_operation_that_litert_lacks_is_named():
    x = keras.Input((4, 4))
    model = keras.Model(x, keras.ops.slogdet(x)[1])
    with pytest.raises(SecateurError, match="operations that LiteRT lacks. Received: .*[Dd]eterminant"):
        to_litert(model)


def test_a_type_of_numbers_that_litert_lacks_is_named():
    x = keras.Input((4,), dtype="bfloat16")
    with pytest.raises(UsageError, match="that LiteRT lacks. Received: .*bfloat16"):
        to_litert(keras.Model(x, keras.layers.Dense(2, dtype="bfloat16")(x)))


def test_runners_take_whole_numbers_as_floats_too():
    words = keras.Input((5,), dtype="int32")
    model = keras.Model(
        words, keras.layers.Dense(2)(keras.layers.Flatten()(keras.layers.Embedding(9, 4)(words)))
    )
    given = np.arange(10, dtype=np.int32).reshape(2, 5) % 9
    for run in (frozen_runner(model, 2), litert_runner(to_litert(model), 2)):
        assert compare([run(given)], [run(given.astype(np.float32))]).exact


@pytest.mark.parametrize("count", [1, 3])
def test_runners_take_one_array_per_input_and_give_the_models_outputs(count):
    model = two_in_two_out()
    inputs = sample_inputs(model, count)
    expected = outputs(model, inputs)
    for run in (frozen_runner(model, count), litert_runner(to_litert(model), count)):
        assert compare(expected, run(*inputs)).relative < 1e-5
        assert compare(expected, run(*inputs[::-1])).relative > 1e-2


def test_a_file_for_one_sample_is_run_on_several_one_by_one():
    model = one_at_a_time()
    inputs = sample_inputs(model, 3)
    for run in (frozen_runner(model, 3), litert_runner(to_litert(model), 3)):
        assert compare(outputs(model, inputs), [run(*inputs)]).relative < 1e-5


def test_mixed_precision_becomes_float32_of_the_same_weights():
    model, inputs = mixed(), sample_inputs(mixed(), 3)
    assert (
        1e-5 < compare(outputs(model, inputs), [litert_runner(to_litert(model), 3)(*inputs)]).relative < 1e-2
    )
    assert in_float32(twin := in_float32(model)) is twin is not model
    for one, other in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert left_in_float(to_int8(model, [inputs])) == []


@pytest.mark.parametrize("make", [open_pair, open_window])
def test_one_litert_file_takes_images_of_any_size(make):
    model, rng = make(), np.random.default_rng(0)
    run = litert_runner(to_litert(model), 2)
    for shape in ((2, 5, 8), (2, 9, 4), (3, 9, 4), (2, 5, 8)):
        inputs = [rng.normal(size=(*shape, x.shape[-1])).astype(np.float32) for x in model.inputs]
        assert compare(outputs(model, inputs), [run(*inputs)]).relative < 1e-5


def test_parity_by_hand():
    assert compare([np.array([4.0, -2.0])], [np.array([4.0, -1.0])]).relative == 0.25
    boxes, share = np.array([640.0, 480.0]), np.array([0.5, 0.25])
    apart = compare([boxes, share], [boxes + 0.64, share - 0.25])  # every output has its own scale
    assert np.isclose(apart.absolute, 0.64) and apart.relative == 0.5
    assert compare([np.zeros(2)], [np.array([0.0, 0.125])]).relative == 0.125
    assert compare([], []).exact
    assert compare([np.array([1.0, np.nan])], [np.array([1.0, np.nan])]).exact
    for other in ([np.array([1.0])], [np.array([1.0, np.nan])], []):
        assert compare([np.array([1.0, 2.0])], other).relative == np.inf


def test_threads_that_run_out_are_no_fault_of_the_model():
    class Converter:
        def convert(self):
            raise RuntimeError("Resource temporarily unavailable")

    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        converted(Converter(), toys.plain_net(), "none")
