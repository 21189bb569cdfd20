"""Subclassed models and layers of layers made functional: the same numbers, pruned, without their classes."""

import keras
import numpy as np
import pytest

import secateur
from secateur.__main__ import call
from secateur.pruning import compact, make_plan, mask
from secateur.pruning.constrain.soft import soften
from secateur.runs.errors import UsageError
from secateur.runs.registry import import_file
from tests.helpers.subclassed import REFUSED, SHAPE, UNFOLDED, Weights

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, *SHAPE)).astype(np.float32)


def made(kind: type):
    """(Model with trained weights, what it reads, its shapes)."""
    shapes = UNFOLDED[kind]
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


@pytest.mark.parametrize("kind", UNFOLDED)
def test_the_same_numbers_from_plain_layers_that_can_be_pruned(kind, tmp_path):
    model, batch, shapes = made(kind)
    records = [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    before = outputs(model, batch)
    plain = secateur.functional(model, shapes)
    assert records == [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert all(type(layer).__module__.startswith("keras.") for layer in plain.layers)
    difference = np.abs(before - outputs(plain, batch)).max()
    assert difference == 0 if kind is not Weights else difference <= 1e-6 * np.abs(before).max()
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
