"""Keras models as files: the same graph, every bit, and nothing that runs code."""

import json
import lzma
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from secateur import coding, functional, nets
from secateur.coding.file import container
from secateur.coding.file.array_file import equal
from secateur.coding.file.array_reader import INDEX, packed
from secateur.exports.signature import outputs, sample_inputs
from secateur.nets import keras_json
from secateur.pruning import compact
from secateur.runs.errors import SnapshotError, UsageError
from tests.helpers.transformers import Windows


def shaken(model: keras.Model, seed: int = 1) -> keras.Model:
    """Every weight random; variances stay positive."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = np.abs(rng.normal(0.5, 0.3, variable.shape)) + 0.1
        if "float" in variable.dtype:
            variable.assign(
                values if "variance" in variable.name else values * rng.choice([-1, 1], values.shape)
            )
    return model


def same_bits(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.weights, other.weights, strict=True)
    return all(equal(np.asarray(a.numpy()), np.asarray(b.numpy())) for a, b in pairs)


def round_trip(model: keras.Model, path: Path) -> keras.Model:
    """Through a file: same weights, same graph, same outputs."""
    coding.encode(model, path)
    back = coding.decode(path)
    assert same_bits(model, back)
    assert keras_json.config_of(back) == keras_json.config_of(model)
    assert [v.name for v in back.weights] == [v.name for v in model.weights]
    assert {type(layer).__module__.partition(".")[0] for layer in back.layers} <= {"keras"}
    inputs = sample_inputs(model, 2)
    for mine, theirs in zip(outputs(model, inputs), outputs(back, inputs), strict=True):
        assert np.array_equal(mine, theirs, equal_nan=True)
    return back


def test_a_compact_resnet20_is_bit_exact_and_smaller(tmp_path):
    model = compact(shaken(nets.build("ResNet-20")))
    kernel = model.weights[0]
    special = kernel.numpy()
    special.reshape(-1)[:4] = np.array([0x80000000, 1, 0x7FC12345, 0xFF800000], np.uint32).view(np.float32)
    kernel.assign(special)
    summary = coding.encode(model, tmp_path / "net.kpz")
    assert same_bits(model, coding.decode(tmp_path / "net.kpz"))
    assert summary.file == (tmp_path / "net.kpz").stat().st_size < 0.9 * summary.arrays


@pytest.mark.slow
@pytest.mark.parametrize("arch", nets.list_nets())
def test_every_net_is_bit_exact(arch, tmp_path):
    model = compact(shaken(nets.build(arch)))
    coding.encode(model, tmp_path / "net.kpz")
    assert same_bits(model, coding.decode(tmp_path / "net.kpz"))


def with_operations() -> keras.Model:
    """Operators and keras.ops between layers, a regularizer, a constraint; compiled, which is not kept."""
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1))(x)
    x = keras.layers.Flatten()((x * 2 + keras.ops.relu(x))[:, 1:])
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_constraint=keras.constraints.MaxNorm(2))(x))
    model.compile("adam", "mse")
    return model


def nested() -> keras.Model:
    """Two uses of one inner model, two inputs, two outputs."""
    inner = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)], name="inner"
    )
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)], name="other")
    one, two = keras.Input((5,), name="one"), keras.Input((5,), name="two")
    return keras.Model([one, two], [inner(one) + inner(two), other(two)])


def adapted() -> keras.Model:
    """Weights that are no floats, and a layer that computes with copies of its weights."""
    normal = keras.layers.Normalization()
    normal.adapt(np.random.default_rng(2).normal(3, 2, (50, 4)).astype(np.float32))
    return keras.Sequential([keras.Input((4,)), normal, keras.layers.Dense(2, dtype="float16")])


def with_constants() -> keras.Model:
    """Attention in windows: a mask, places of a table, and attention as a layer of layers."""
    model = compact(functional(Windows(), (8, 8, 3)))
    x = keras.ops.reshape(model.layers[-2].output, (-1, 1, 8))
    return keras.Model(model.input, keras.layers.MultiHeadAttention(2, 3)(x, x))


@pytest.mark.parametrize("make", [with_operations, nested, adapted, with_constants])
def test_models_of_users_are_bit_exact(make, tmp_path):
    keras.utils.set_random_seed(1)
    round_trip(make(), tmp_path / "model.kpz")


# --- sharing ----------------------------------------------------------------------------------------------


def test_bits_share_weights_of_the_file_and_leave_the_model_alone(tmp_path):
    model = compact(shaken(nets.build("ResNet-20")))
    before = [v.numpy() for v in model.weights]
    plain = coding.encode(model, tmp_path / "plain.kpz").file
    small = coding.encode(model, tmp_path / "small.kpz", bits=4).file
    assert all(equal(a, v.numpy()) for a, v in zip(before, model.weights, strict=True))
    coding.share(model, 4)
    assert same_bits(model, coding.decode(tmp_path / "small.kpz"))
    rows = {layer.name: layer for layer in coding.inspect(tmp_path / "small.kpz").layers}
    assert rows["conv"].distinct <= 16 and rows["conv"].entropy <= 4
    assert small < 4.6 / 26 * plain


# --- what is refused --------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize("layer", [lambda: keras.layers.Lambda(lambda x: x), Twice])
def test_layers_with_code_of_their_own_are_not_encoded(layer, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layer()])
    with pytest.raises(UsageError, match="only Keras' own layers"):
        coding.encode(model, tmp_path / "model.kpz")
    assert not list(tmp_path.iterdir())


def test_layers_that_keep_more_than_weights_are_not_encoded(tmp_path):
    words = keras.layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input((4,), dtype="string"), words])
    with pytest.raises(UsageError, match="keeps more than weights. Received: StringLookup"):
        coding.encode(model, tmp_path / "model.kpz")


def test_masked_nets_and_models_without_a_graph_are_not_encoded(tmp_path):
    with pytest.raises(UsageError, match="Received: secateur.nets.layers.Masked"):
        coding.encode(nets.build("ResNet-20"), tmp_path / "model.kpz")
    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(3)])):
        with pytest.raises(UsageError, match="Received: .* without inputs"):
            coding.encode(model, tmp_path / "model.kpz")


def forged(path: Path, source: Path, change) -> None:
    """A copy whose graph went through `change`; all digests are right."""
    with container.opened(source) as found:
        sections = [(section.name, found.read(section)) for section in found.sections]
        facts = found.facts
    index = json.loads(lzma.decompress(sections[0][1]))
    index["extra"]["keras"] = change(index["extra"]["keras"])
    text = json.dumps(index).encode()
    with open(path, "wb") as file:
        container.write(file, facts | {"index": len(text)}, [(INDEX, packed(text)), *sections[1:]])


def dense(config: dict) -> dict:
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Dense")


def with_dense(**entries):
    """The graph with another layer in the place of its dense one."""

    def change(config: dict) -> dict:
        dense(config).update(entries)
        return config

    return change


def with_units(units) -> dict:
    def change(config: dict) -> dict:
        dense(config)["config"]["units"] = units
        return config

    return change


def with_a_call_of_constants(config: dict) -> dict:
    """Keras computes at once what reads no tensor of the graph: here 256 MiB."""
    functional = keras_json.config_of(keras.Model(x := keras.Input((4,)), keras.layers.Dense(3)(x)))
    node = {"args": [[[1.0]]], "kwargs": {}}
    functional["config"]["layers"].append(
        {
            "module": "keras.src.ops.numpy", "class_name": "Tile", "registered_name": "Tile", "name": "tile",
            "config": {"name": "tile", "repeats": [1, 2**26]}, "inbound_nodes": [node],
        }
    )  # fmt: skip
    return functional


def with_constants_as_large_as_its_input(config: dict) -> dict:
    """Two scalars, each spread over 2²⁷ numbers."""
    inputs = keras.Input((8,))
    spread = keras.layers.Normalization(mean=0.0, variance=1.0)(inputs)
    text = json.dumps(keras_json.config_of(keras.Model(inputs, spread)))
    return json.loads(text.replace("[null, 8]", f"[null, {2**27}]"))


CODE = {"class_name": "__lambda__", "config": {"value": ["4wAAAA==", None, None]}}
HOSTILE = {
    "a Lambda": with_dense(class_name="Lambda", config={"name": "x", "function": CODE}),
    "a lambda in a layer": lambda c: with_dense(config=dense(c)["config"] | {"activation": CODE})(c),
    "a function of Python": with_dense(module="os", class_name="system", config={"command": "touch ran"}),
    "a function by name": with_dense(module="builtins", class_name="function", config="exec"),
    "a file that Keras fetches": with_dense(module="keras.utils", class_name="get_file"),
    "a file to read": with_dense(class_name="StringLookup", config={"vocabulary": "forged.kpz"}),
    "a saved model": with_dense(class_name="TFSMLayer", config={"filepath": "ran"}),
    "a class of somebody": with_dense(module="somebody", class_name="Twice", registered_name="tests>Twice"),
    "a registered name": with_dense(registered_name="tests>Twice"),
    "no layer": with_dense(class_name="deserialize"),
    "a legacy class": with_dense(module=None, registered_name=None),
    "a class that is no text": with_dense(class_name=["Dense"]),
    "an unhashable module": with_dense(module={}),
    "a training configuration": lambda c: c | {"compile_config": {"optimizer": "adam"}},
    "other weights": with_units(7),
    "terabytes of weights": with_units(2**40),
    "no size": with_units("many"),
    "a missing layer": lambda c: c["config"]["layers"].pop() and c,
    "no model": lambda c: dense(c),
    "no graph": lambda c: {},
    "text": lambda c: "graph",
    "a module without a name for it": with_dense(module="os", class_name="__class__"),
    "calls that are no list": with_dense(inbound_nodes=5),
    "a call of constants": with_a_call_of_constants,
    "constants as large as its input": with_constants_as_large_as_its_input,
    "text of a stated length": with_dense(
        module=None, class_name="__numpy__", registered_name=None,
        config={"value": ["a"] * 99, "dtype": "U1000000"},
    ),
    "no configuration": lambda c: c | {"config": None},
}  # fmt: skip


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.kpz"
    model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU(), keras.layers.Dense(3)])
    coding.encode(model, path)
    return path


def peak() -> int:
    """The most bytes of memory that this process has had."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_graphs_are_refused_and_nothing_is_executed(case, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    forged(tmp_path / "forged.kpz", model_file, HOSTILE[case])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    with pytest.raises(SnapshotError, match="forged.kpz is not a usable .kpz file"):
        coding.decode("forged.kpz")
    assert peak() - before < 100 * 2**20
    assert [path.name for path in tmp_path.iterdir()] == ["forged.kpz"]
    with keras.StatelessScope():
        pass  # on leaving it Keras makes the values of all variables that wait for them: none of this file's


def test_an_unchanged_graph_passes_the_forger(model_file, tmp_path):
    forged(tmp_path / "forged.kpz", model_file, lambda config: config)
    assert same_bits(coding.decode(tmp_path / "forged.kpz"), coding.decode(model_file))
