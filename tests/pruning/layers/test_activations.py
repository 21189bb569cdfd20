"""Activations are known in every form: as a layer, as an operation, as an option of another layer."""

import keras
import pytest

from secateur.pruning.groups.analysis import analyse
from secateur.pruning.layers import is_activation
from secateur.pruning.layers.activations import FUNCTIONS

L = keras.layers
OPTIONS = {"clip": {"x_min": 0, "x_max": 6}, "threshold": {"threshold": 0, "default_value": 0}}
LAYERS = {"relu": L.ReLU, "leaky_relu": L.LeakyReLU, "elu": L.ELU, "prelu": L.PReLU}


def shown(form) -> list:
    """Calls behind which the one group of a network with this activation shows itself."""
    images = keras.Input((4, 4, 3))
    x = form(images)
    model = keras.Model(images, L.Conv2D(2, 1, name="last")(x))
    (group,) = (analysis := analyse(model)).groups
    made = {tensor: call for call in analysis.calls for tensor in call.outputs}
    return [made[tensor] for tensor in group.sites]


FOUND = [(room, name) for room in (keras.ops, keras.activations) for name in FUNCTIONS if hasattr(room, name)]


def test_every_name_is_one_of_keras():
    assert {name for _, name in FOUND} == set(FUNCTIONS)


@pytest.mark.parametrize(("room", "name"), FOUND)
def test_a_function_is_an_operation_a_layer_and_an_option(name, room):
    function, forms = getattr(room, name), []
    if room is keras.ops or name == "relu":  # of `keras.activations` not all take symbolic tensors
        forms.append(lambda x: function(L.Conv2D(4, 1)(x), **OPTIONS.get(name, {})))
    if name not in OPTIONS:
        forms.append(lambda x: L.Activation(function)(L.Conv2D(4, 1)(x)))
        forms.append(lambda x: L.Conv2D(4, 1, activation=function)(x))
    for form in forms:
        assert len(shown(form)) == 1


@pytest.mark.parametrize("name", LAYERS)
def test_an_activation_that_is_a_layer(name):
    (call,) = shown(lambda x: LAYERS[name]()(L.Conv2D(4, 1)(x)))
    assert call.kind == LAYERS[name].__name__


def test_what_is_linear_shows_itself_where_it_is_read():
    for last in (L.Activation("linear"), L.Dropout(0.5), keras.ops.negative, keras.ops.copy):
        (call,) = shown(lambda x, last=last: last(L.Conv2D(4, 1)(x)))
        assert not is_activation(call) and "Conv2D" not in call.kind


def hard_swish(x):
    return x * keras.ops.relu6(x + 3) / 6


def centred(x):
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


def test_a_function_of_ones_own_is_tried_out():
    (call,) = shown(lambda x: L.Conv2D(4, 1, activation=hard_swish, name="own")(x))
    assert call.name == "own"
    images = keras.Input((4, 4, 3))
    mixed = keras.Model(images, L.Conv2D(2, 1)(L.Conv2D(4, 1, activation=centred)(images)))
    assert "its activation 'centred' is not understood" in analyse(mixed).untouched[0].reason
