"""Subclassed models and layers of layers made functional: the same numbers, pruned, without their classes."""

import keras
import numpy as np
import pytest

import secateur
from secateur.__main__ import call
from secateur.pruning import compact, find_groups, make_plan, mask
from secateur.pruning.constrain.soft import soften
from secateur.runs.errors import UsageError
from secateur.runs.registry import import_file
from tests.helpers import transformers
from tests.helpers.subclassed import REFUSED, SHAPE, UNFOLDED, Weights
from tests.helpers.transformers import Tokens, Windows

L = keras.layers
RNG = np.random.default_rng(0)
MODELS = UNFOLDED | {Tokens: SHAPE, Windows: SHAPE}
WEIGHTED = (Weights, Tokens, Windows)  # whose operations with weights are layers
IMAGES = RNG.normal(size=(3, *SHAPE)).astype(np.float32)


def made(kind: type):
    """(Model with trained weights, what it reads, its shapes)."""
    shapes = MODELS[kind]
    batch = {name: IMAGES + i for i, name in enumerate(shapes)} if isinstance(shapes, dict) else IMAGES
    model = kind()
    model(batch)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            layer.moving_variance.assign(RNG.uniform(0.5, 2, layer.moving_variance.shape))
            layer.moving_mean.assign(RNG.normal(size=layer.moving_mean.shape))
    return model, batch, shapes


def outputs(model, batch, **mode):
    return np.concatenate([np.ravel(x) for x in keras.tree.flatten(model(batch, **mode))])


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_numbers_from_plain_layers_that_can_be_pruned(kind, tmp_path):
    model, batch, shapes = made(kind)
    records = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    before = outputs(model, batch)
    plain = secateur.functional(model, shapes)
    assert records == [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    difference = np.abs(before - outputs(plain, batch)).max()
    assert difference == 0 if kind not in WEIGHTED else difference <= 1e-6 * np.abs(before).max()
    plan = make_plan(plain, "random", keep=0.5)
    masked, small = outputs(mask(plain, plan), batch), compact(plain, plan)
    np.testing.assert_allclose(masked, outputs(small, batch), rtol=0, atol=2e-6 * np.abs(masked).max())
    assert small.count_params() < 0.6 * plain.count_params()
    small.save(tmp_path / "small.keras")
    assert np.array_equal(
        outputs(small, batch), outputs(keras.models.load_model(tmp_path / "small.keras"), batch)
    )


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_unfolded_says_why(kind):
    model = kind()
    model(IMAGES)
    with pytest.raises(
        UsageError, match=f"(?s)'{model.name}' cannot be unfolded: .*{REFUSED[kind]}.*keras.ops"
    ):
        secateur.functional(model, SHAPE)


def test_a_saved_one_is_pruned_from_the_shell(tmp_path, monkeypatch):
    """Its file is read with its classes; what is written needs none."""
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('mine')\n"
        "class Net(keras.Model):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__(**options)\n"
        "        self.conv, self.head = keras.layers.Conv2D(8, 3), keras.layers.Dense(3)\n"
        "    def call(self, x):\n"
        "        return self.head(keras.ops.mean(keras.ops.relu(self.conv(x)), (1, 2)))\n"
    )
    import_file(tmp_path / "mine.py")
    model = keras.saving.get_registered_object("mine>Net")()
    model(IMAGES)
    model.save(tmp_path / "net.keras")
    words = "net.keras --import mine.py --keep 0.5 -o small.keras"
    monkeypatch.chdir(tmp_path)
    call("prune", words.split(), "secateur")
    small = keras.models.load_model(tmp_path / "small.keras")
    assert {layer.name: type(layer).__name__ for layer in small.layers if layer.weights} == {
        "conv": "Conv2D", "head": "Dense",
    }  # fmt: skip
    assert small.get_layer("conv").filters == 4


def test_weights_that_operations_read_are_not_held_in_place():
    model = made(Weights)[0]
    images = keras.Input(SHAPE)
    around = keras.Model(images, model(images))
    with pytest.raises(UsageError, match="'weights/scaled/gamma'\ntake the model that secateur.functional"):
        soften(around, make_plan(around, keep=0.5))


@pytest.fixture(scope="module")
def tokens():
    """A vision transformer, and the same of plain layers."""
    model, _, shapes = made(Tokens)
    return model, secateur.functional(model, shapes)


def test_tokens_and_positions_are_one_bias_among_zeros_that_training_moves(tokens):
    model, plain = tokens
    (places,) = (layer for layer in plain.layers if isinstance(layer, L.EinsumDense))
    embedded = model.embedded
    in_front = np.concatenate([np.ravel(embedded.first), np.ravel(embedded.second)]).reshape(2, -1)
    expected = np.array(embedded.places.embeddings)
    expected[:2] += in_front
    np.testing.assert_allclose(places.bias, expected, atol=1e-7)
    assert places.trainable


def test_a_dropped_path_is_a_dropout_of_whole_images(tokens):
    drops = [x for x in tokens[1].layers if isinstance(x, L.Dropout)]
    assert {(x.rate, x.noise_shape) for x in drops} == {(transformers.RATE, (None, 1, 1))}


def test_a_norm_by_hand_is_that_of_keras(tokens):
    norms = [x for x in tokens[1].layers if isinstance(x, L.RMSNormalization)]
    assert [x.epsilon for x in norms] == [1e-6] * 4


def test_heads_and_widths_of_stacked_queries_go():
    model, _, shapes = made(Windows)
    groups = find_groups(secateur.functional(model, shapes))
    assert [(group.name, group.size) for group in groups] == [("stem", 8), ("qkv", 4), ("qkv:heads", 2)]


def test_a_function_that_keras_does_not_know_is_written_as_operations(tokens):
    model, plain = tokens
    small = compact(plain)
    assert "fast_gelu" not in small.to_json()
    np.testing.assert_allclose(outputs(small, IMAGES), outputs(model, IMAGES), atol=1e-5)


def test_a_model_of_open_size_is_unfolded_at_a_fixed_one():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, L.Dense(3)(transformers.Rows()(L.Conv2D(8, 3)(images))))
    assert any(isinstance(layer, transformers.Rows) for layer in secateur.functional(model).layers)
    plain = secateur.functional(model, SHAPE)
    assert plain.input_shape == (None, *SHAPE)
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    assert np.array_equal(outputs(plain, IMAGES), outputs(model, IMAGES))


def test_a_copy_with_other_weights_is_refused_by_name():
    images = keras.Input(SHAPE)
    model = keras.Model(images, L.Dense(3)(L.Flatten()(transformers.Parts(1)(L.Conv2D(8, 3)(images)))))
    with pytest.raises(UsageError, match="'parts' cannot be copied: a new one has other weights.*'gain1'"):
        compact(model)


def test_what_no_output_comes_from_is_left_out():
    class Two(L.Layer):
        def __init__(self):
            super().__init__()
            self.used, self.unused = L.Conv2D(4, 1), L.Conv2D(5, 1)

        def call(self, x):
            return self.used(x), self.unused(x)

    images = keras.Input(SHAPE)
    model = keras.Model(images, Two()(images)[0])
    small = secateur.functional(model)
    assert [layer.name for layer in small.layers if layer.weights] == ["used"]
    assert secateur.pruning.complexity(model).params == small.count_params() == 3 * 4 + 4


def test_a_backbone_of_any_size_has_the_sizes_of_the_model_around_it():
    images, fixed = keras.Input((None, None, 3)), keras.Input(SHAPE)
    backbone = keras.Model(images, L.BatchNormalization()(L.Conv2D(8, 3)(images)))
    model = keras.Model(fixed, L.Dense(3)(L.Flatten()(backbone(fixed))))
    calls = [len(layer._inbound_nodes) for layer in backbone.layers]
    assert secateur.pruning.complexity(model).macs == 36 * (27 * 8) + 36 * 8 * 3
    plan = make_plan(model, keep_macs=0.5)
    small = compact(model, plan)
    np.testing.assert_allclose(mask(model, plan)(IMAGES), small(IMAGES), atol=1e-6)
    assert small.layers[-2].input.shape == (None, 6, 6, 4)
    assert calls == [len(layer._inbound_nodes) for layer in backbone.layers]
