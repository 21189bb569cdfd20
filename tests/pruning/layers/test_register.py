"""Layers that the project does not know: cut, counted, timed, searched, coded, saved, used from a shell."""

import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import secateur
from secateur.coding.sharing.kernels import kernels_of
from secateur.nets.kernels import convolution_kernels
from secateur.pruning import Plan, compact, complexity, find_groups, make_plan, mask
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.latency.predict import Predictor
from secateur.pruning.latency.table import Table
from secateur.pruning.layers import find, find_installed
from secateur.pruning.search.chain import Chain
from secateur.pruning.shrink.surgery import narrow
from secateur.pruning.shrink.weights import weights_of
from secateur.runs import read_json
from secateur.runs.errors import UsageError
from tests.helpers import foreign_layers, random_nets
from tests.helpers.foreign_layers import Bounded, Gain, Turned

BATCH = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
L = keras.layers


def made() -> keras.Model:
    model = foreign_layers.net()
    random_nets.randomise(model, np.random.default_rng(1))
    return model


def assert_same(a, b) -> None:
    assert np.max(np.abs(np.subtract(a, b))) <= 1e-6 * np.max(np.abs(a))


def test_its_channels_are_found_and_what_stays_says_why():
    analysis = analyse(made())
    assert [(g.name, g.size) for g in analysis.groups] == [("first", 6), ("second", 8)]
    first = {(m.layer, m.role): m.axes for m in analysis.groups[0].members}
    assert first == {
        ("first", "producer"): {"filters": 0, "shift": 0},
        ("gain", "follower"): {"gain": 0},
        ("second", "consumer"): {"filters": 3},
    }
    reasons = {row.layers: row.reason for row in analysis.untouched}
    assert reasons["whole",] == "mixer: it mixes channels"
    shown = {call.outputs[0]: call.name for call in analysis.calls}
    assert [shown[t] for g in analysis.groups for t in g.sites] == ["gain", "bounded"]


def test_masked_is_compact_is_counted_is_reloaded(tmp_path):
    model = made()
    for keep in (0.3, 0.5, 0.8):
        plan = make_plan(model, "random", keep=keep)
        small, masked = compact(model, plan), mask(model, plan)(BATCH)
        assert_same(masked, small(BATCH))
        assert_same(masked, narrow(model, plan)(BATCH))
        assert complexity(model, "ekg", plan).params == small.count_params() < model.count_params()
        assert complexity(model, plan=plan).macs == complexity(small).macs
        small.save(tmp_path / "small.keras")
        assert_same(masked, keras.models.load_model(tmp_path / "small.keras")(BATCH))


def test_it_costs_what_a_convolution_of_keras_costs():
    images = keras.Input((8, 8, 3))
    ours = keras.Model(images, Turned(6)(images))
    keras_own = keras.Model(images, L.Conv2D(6, 3, padding="same")(images))
    for convention in ("mac", "ekg", "rethinking", "ptflops"):
        a, b = complexity(ours, convention), complexity(keras_own, convention)
        assert (a.params, a.macs) == (b.params, b.macs)


def test_a_plain_twin_needs_no_class_of_ones_own():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, L.Conv2D(2, 1)(Bounded(name="bounded")(L.Conv2D(4, 1, name="conv")(images))))
    small = compact(model, make_plan(model, keep=0.5))
    assert type(small.get_layer("bounded")) is L.ReLU
    assert_same(compact(model)(BATCH), model(BATCH))


def test_ekgs_search_runs_it_at_any_width():
    model = made()
    analysis = analyse(model)
    chain, weights = Chain(model, analysis), weights_of(model)
    assert_same(model(BATCH), chain.forward(chain.tensors(weights), chain.inputs(BATCH)))
    plan = make_plan(model, keep=0.5)
    narrower = weights_of(narrow(model, plan))
    assert_same(compact(model, plan)(BATCH), chain.forward(chain.tensors(narrower), chain.inputs(BATCH)))


class Device:
    """A clock that counts what it is asked for."""

    backend, threads, batch = "litert", 1, 1

    def milliseconds(self, models, seconds=1.0):
        return {name: float(model.count_params()) for name, model in models.items()}


def test_its_milliseconds_are_measured_at_other_widths(tmp_path):
    analysis = analyse(made())
    predict = Predictor(analysis, Table(Device(), tmp_path))
    assert predict({"first": 6, "second": 8}) > predict({"first": 6, "second": 4}) > 0
    assert set(predict.touching) == {"first", "second"}


def test_its_kernels_are_those_of_a_convolution():
    model = made()
    kernels = {kernel.name: kernel for kernel in convolution_kernels(model)}
    assert kernels["first/filters"].filters == (-4,) and kernels["first/filters"].inside == (1, 2, 3)
    assert "first/filters" in {name for _, name, _ in kernels_of(model, "conv")}


def test_several_inputs_meet_as_in_a_sum():
    class Blend(L.Layer):
        def call(self, inputs):
            return 0.3 * inputs[0] + 0.7 * inputs[1]

    secateur.register_layer(Blend)
    images = keras.Input((8, 8, 3))
    x = Blend()([L.Conv2D(6, 1, name="a")(images), L.Conv2D(6, 3, padding="same", name="b")(images)])
    model = keras.Model(images, L.Conv2D(2, 1, name="last")(x))
    assert [group.layers("producer") for group in find_groups(model)] == [["a", "b"]]
    plan = make_plan(model, keep=0.5)
    assert_same(mask(model, plan)(BATCH), compact(model, plan)(BATCH))


WRONG = {
    "register_layer takes a class.*Received: 3": (3, {}),
    "This class is known.*Received: Conv2D": (L.Conv2D, {"stays": "so"}),
    "needs reads, makes and size. Received: no size": (Turned, {"reads": {"k": 0}, "makes": {"k": 1}}),
    "needs reads, makes and size. Received: no makes": (Turned, {"reads": {"k": 0}}),
    "give one of these. Received: follows, stays": (Gain, {"follows": {"gain": 0}, "stays": "so"}),
    "no such option. Received: size='widht'.*width": (
        Turned, {"reads": {"k": 0}, "makes": {"k": 1}, "size": "widht"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused(message):
    layer, options = WRONG[message]
    with pytest.raises(UsageError, match=message):
        secateur.register_layer(layer, **options)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"gian": 0}, "Layer 'own' has none of these weights. Received: gian; it has gain"),
        ({"gain": 0}, "Weight 'gain' of layer 'own' needs 6 entries along axis 0.*Received: shape \\(1,\\)"),
    ],
)
def test_weights_that_are_not_there_are_named(axes, message):
    class Own(Gain):
        def build(self, shape):
            super().build((1,))

    secateur.register_layer(Own, follows=axes)
    images = keras.Input((8, 8, 3))
    x = Own(name="own")(L.Conv2D(6, 1)(images))
    with pytest.raises(UsageError, match=message):
        find_groups(keras.Model(images, L.Conv2D(2, 1)(x)))


def test_a_weight_that_the_rule_does_not_name_is_named():
    class Forgetful(Turned):
        pass

    secateur.register_layer(Forgetful, reads={"filters": -1}, makes={"filters": 0}, size="width")
    images = keras.Input((8, 8, 3))
    x = L.GlobalMaxPooling2D()(Forgetful(6, name="own")(images))
    model = keras.Model(images, L.Dense(2)(x))
    found = (
        r"'shift' of layer 'own' \(Forgetful\) needs the shape \(3,\).*\(6,\)\n.*register_layer.*'shift': 0"
    )
    with pytest.raises(UsageError, match=found):
        compact(model, make_plan(model, keep=0.5))


def test_a_class_that_is_not_registered_is_left_whole():
    class Stranger(Gain):
        def call(self, x):
            return tf.tanh(x)

    images = keras.Input((8, 8, 3))
    model = keras.Model(images, L.Conv2D(2, 1)(Stranger(name="odd")(L.Conv2D(6, 1, name="conv")(images))))
    assert find_groups(model) == []
    assert "Stranger is not understood" in analyse(model).untouched[0].reason


def test_an_installed_package_teaches_its_layer(tmp_path, monkeypatch):
    shutil.copy(foreign_layers.__file__, tmp_path / "my_layers.py")
    about = tmp_path / "my_layers-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-layers\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[secateur.layers]\nmy_layers.Gain = my_layers:Gain\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    find.cache_clear()
    find_installed()
    assert find("my_layers.Gain").activation and "my_layers" in sys.modules


def test_a_file_teaches_layers_to_the_command(programs, tmp_path):
    model = made()
    model.save(tmp_path / "net.keras")
    shutil.copy(foreign_layers.__file__, tmp_path / "my_layers.py")
    words = "net.keras --keep 0.5 --save_plan plan.json -o small.keras"
    command = ("pruning/__main__.py", *words.split())
    done = programs.run(*command, "--import", "my_layers.py", cwd=tmp_path)
    assert done.code == 0, done.err
    plan = Plan.from_json(read_json(tmp_path / "plan.json"))
    assert plan.widths() == {"first": 3, "second": 4}
    assert_same(mask(model, plan)(BATCH), keras.models.load_model(tmp_path / "small.keras")(BATCH))
    without = programs.run(*command, cwd=tmp_path)
    assert without.code == 4 and "give --import FILE.py" in without.err
