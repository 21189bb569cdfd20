"""Models and snapshots that say what cannot be: refused with code 4 before anything is computed or filled."""

import zipfile

import keras
import numpy as np
import pytest

import secateur
from secateur import coding, nets
from secateur.pruning import compact
from secateur.recipes.engine.compress import compress
from secateur.recipes.engine.inputs import load_fitting
from secateur.recipes.engine.subject import load_model
from secateur.runs import SecateurError, Snapshot, SnapshotError, UsageError, load_snapshot, save_snapshot
from secateur.runs.hdf5 import COLLECTION, check_heaps


@pytest.fixture(scope="module")
def model():
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(x))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "whole.keras"
    model.save(path)
    return path


NESTED = '{"module": "keras", "config": ' + 10**5 * '{"a": ' + "1" + 10**5 * "}" + "}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(None, NESTED, "recursion depth", id="nested objects"),
        pytest.param(None, 10**5 * "[" + 10**5 * "]", "recursion depth", id="nested lists"),
        (None, "[1, 2]", "cannot read this model"),
        (None, "null", "cannot read this model"),
        (None, "", "cannot read this model"),
        ('"filters": 4', '"filters": 3200000000', "filters=3200000000 in a file of"),
        ('"units": 2', '"units": 1000000000000', "units=1000000000000 in a file of"),
        ('"kernel_size": [3, 3]', '"kernel_size": [30000, 30000]', "in a file of"),
        ('"filters": 4', '"filters": -4', "cannot read this model"),
        ('"filters": 4', '"filters": "many"', "cannot read this model"),
        ('"filters": 4', '"filters": 5', "cannot read this model"),
        ('"padding": "valid"', '"padding": "sideways"', "cannot read this model"),
    ],
)
def test_a_keras_file_that_asks_for_what_cannot_be_is_refused(saved, tmp_path, old, new, said):
    path = tmp_path / "own.keras"
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(path, "w") as other:
        for name in whole.namelist():
            data = whole.read(name)
            if name == "config.json":
                text = data.decode()
                assert old is None or old in text
                data = (text.replace(old, new) if old else new).encode()
            other.writestr(name, data)
    with pytest.raises(SnapshotError, match=said) as refused:
        load_model(str(path))
    assert str(path) in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.fixture(scope="module")
def net():
    return nets.snapshot_of(nets.build("ResNet-8"))


@pytest.mark.parametrize(
    ("spec", "facts", "said"),
    [
        ({"num_classes": 10**12}, {}, "Received: num_classes of '1000000000000'"),
        ({"num_classes": "ten"}, {}, "Received: num_classes of 'ten'"),
        ({"num_classes": True}, {}, "Received: num_classes of 'True'"),
        ({"arch": "ResNet-1000000002"}, {}, "Received: arch of '1000000002'"),
        ({"widths": {"conv": 10**12}}, {}, "Received: widths of"),
        ({"widths": {"conv": 16.5}}, {}, "Received: widths of '16.5'"),
        ({"widths": 5}, {}, "its spec cannot be used"),
        ({"input_shape": [10**9, 10**9, 3]}, {}, r"whose input_shape is \(32, 32, 3\)"),
        ({"input_shape": ["a"]}, {}, "do not fit"),
        ({}, {"crop": "abc"}, "its facts make no sense. .*crop='abc'"),
        ({}, {"crop": 10**9}, "its facts make no sense. .*crop=1000000000"),
        ({}, {"resize": -1}, "its facts make no sense. .*resize=-1"),
        ({}, {"normalisation": 5}, "its facts make no sense. .*normalisation=5"),
        (
            {},
            {"normalisation": "given", "mean": [1.0], "std": [0.0]},
            r"its facts make no sense. .*std=\[0.0\]",
        ),
        ({}, {"mean": "x"}, "its facts make no sense. .*mean='x'"),
    ],
)
def test_a_snapshot_whose_description_cannot_be_is_refused(net, tmp_path, spec, facts, said):
    path = tmp_path / "net.pkl"
    save_snapshot(path, Snapshot(net.arrays, net.spec | spec, None, facts))
    with pytest.raises(SnapshotError, match=said) as refused:
        load_fitting(str(path), load_snapshot(path), "ResNet-8", "DIGITS")
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(net, model, tmp_path, value):
    arrays = {name: array.copy() for name, array in net.arrays.items()}
    name = list(arrays)[7]
    arrays[name].flat[3] = value
    save_snapshot(tmp_path / "net.pkl", Snapshot(arrays, net.spec, None, {}))
    with pytest.raises(
        SnapshotError, match=f"net.pkl: '{name}' is not finite, .* numbers of {arrays[name].size}"
    ):
        nets.load_params(None, tmp_path / "net.pkl")
    other = keras.models.clone_model(model)
    kernel, *rest = model.get_weights()
    kernel[0, 0, 0, 0] = value
    other.set_weights([kernel, *rest])
    other.save(tmp_path / "own.keras")
    save_snapshot(tmp_path / "own.pkl", nets.snapshot_of(other))
    for load in (load_model, lambda path: nets.load_params(None, path)):
        with pytest.raises(SnapshotError, match="'conv/kernel' is not finite"):
            load(str(tmp_path / ("own.keras" if load is load_model else "own.pkl")))


def test_arguments_of_python_are_checked_as_options_are(model):
    images, labels = np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int32)
    with pytest.raises(UsageError, match="must name a file or a folder"):
        compress(model, (images, labels), folder="")
    with pytest.raises(UsageError, match="takes a Keras model. Received: str"):
        compress("model.keras", (images, labels))
    other = keras.models.clone_model(model)
    other.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    with pytest.raises(SnapshotError, match="the model: 'conv/kernel' is not finite"):
        compress(other, (images, labels))


@pytest.mark.parametrize(
    "words",
    [
        "prune own.keras --keep 0.5 -o small.keras",
        "encode own.keras -o own.kpz",
        "int8 own.keras --data . -o own.tflite",
        "train own.keras --data . --train_path run",
        "decode own.kpz -o back.keras",
        "encode net.pkl -o net.kpz",
        "test --arch ResNet-8 --dataset DIGITS --trained_param net.pkl",
        "train --arch ResNet-8 --dataset DIGITS --teacher net.pkl --train_path run",
    ],
)
def test_no_command_takes_weights_that_are_not_finite(secateur, model, net, tmp_path, words):
    other = keras.models.clone_model(model)
    other.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    other.save(tmp_path / "own.keras")
    coding.encode(compact(other), tmp_path / "own.kpz")
    arrays = {name: np.full_like(array, np.inf) for name, array in net.arrays.items()}
    save_snapshot(tmp_path / "net.pkl", Snapshot(arrays, net.spec, None, {}))
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SecateurError, match="is not finite") as refused:
        secateur(*words.split())
    assert refused.value.exit_code == 4 and len(str(refused.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("used", [False, True])
def test_a_heap_that_hdf5_would_read_for_ever_is_refused(tmp_path, used):
    """A mutation that was found by chance: the library stays at an object that takes no room."""
    images = keras.Input((4, 4, 1))
    keras.Model(images, keras.layers.Conv2D(1, 1)(images)).save(tmp_path / "sound.h5")
    check_heaps(tmp_path / "sound.h5")
    data = bytearray((tmp_path / "sound.h5").read_bytes())
    place = data.index(COLLECTION) + 16
    while not used and data[place]:
        place += 16 + -(-int.from_bytes(data[place + 8 : place + 16], "little") // 8) * 8
    data[place + 8 : place + 16] = (2**64 - 16 if used else 0).to_bytes(8, "little")
    (tmp_path / "evil.h5").write_bytes(data)
    with pytest.raises(SnapshotError, match="a heap of its attributes is damaged"):
        load_model(str(tmp_path / "evil.h5"))


def test_the_state_of_its_optimizer_is_not_missed(model, tmp_path, recwarn):
    model = keras.models.clone_model(model)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((4, 8, 8, 3)), np.zeros(4, int), verbose=0)
    model.get_layer("conv").trainable = False  # as in a second stage of training
    model.save(tmp_path / "tuned.keras")
    assert load_model(str(tmp_path / "tuned.keras")).optimizer
    assert not [str(one.message) for one in recwarn if "optimizer" in str(one.message)]


def test_a_lambda_in_a_file_is_answered_with_how_to_do_without(tmp_path):
    x = keras.Input((8, 8, 3))
    y = keras.layers.Lambda(lambda t: keras.ops.tanh(t) * 1.5)(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(x, keras.layers.GlobalAveragePooling2D()(y))
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(SnapshotError, match=r"a Lambda runs code.*\nsave secateur.functional\(model\)"):
        load_model(str(tmp_path / "lambda.keras"))
    secateur.functional(model).save(tmp_path / "plain.keras")
    batch = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(load_model(str(tmp_path / "plain.keras"))(batch), model(batch))
