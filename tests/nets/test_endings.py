"""Softmax and sigmoid at the end of networks: found, left out, put back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import pruning
from secateur.nets.endings import ending_of, logits_of, with_ending
from secateur.nets.graph import trace
from secateur.runs.errors import UsageError
from tests.helpers import toys

L = keras.layers


def body(images):
    return L.GlobalAveragePooling2D(name="pool")(L.Conv2D(6, 3, activation="relu", name="conv")(images))


def mobile_net():
    return keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35, classes=7)


def sequential():
    layers = [L.Conv2D(6, 3, activation="relu"), L.Flatten(), L.Dense(4, activation="softmax", name="last")]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers])


def softmax_then_identity():
    images = keras.Input((8, 8, 3))
    x = L.Softmax(name="shares")(L.Dense(4, name="classes")(body(images)))
    return keras.Model(images, L.Activation("linear", name="out")(L.Dropout(0.5)(x)))


def nested():
    images, inside = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    inner = keras.Model(inside, L.Dense(4, activation="softmax", name="classes")(body(inside)), name="inner")
    return keras.Model(images, L.Identity(name="out")(inner(images)))


def sigmoid_head():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, L.Dense(3, activation="sigmoid", name="tags")(body(images)))


def operation():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, keras.ops.softmax(L.Dense(4)(body(images))))


def einsum():
    images = keras.Input((8, 8, 3))
    classes = L.EinsumDense("ab,bc->ac", 4, activation="softmax", bias_axes="c", name="classes")
    return keras.Model(images, classes(L.Flatten()(images)))


def raw_function():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, L.Dense(4, activation=tf.nn.softmax)(body(images)))


def maps():
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(3, 1, activation="softmax", name="pixels")(L.Conv2D(5, 3, activation="relu")(images))
    return keras.Model(images, L.Reshape((36, 3))(x))


def two_outputs():
    images = keras.Input((8, 8, 3))
    x = body(images)
    made = {"a": L.Dense(4, activation="softmax", name="a")(x), "b": L.Dense(2, name="b")(x)}
    return keras.Model(images, made | {"c": L.Activation("sigmoid", name="c")(L.Dense(2)(x))})


ENDS = [
    mobile_net, sequential, softmax_then_identity, nested, sigmoid_head, operation, raw_function, maps,
    two_outputs, einsum,
]  # fmt: skip
every = pytest.mark.parametrize("make", ENDS)


def named(outputs):
    return outputs if isinstance(outputs, dict) else {"a": outputs}


def shares(model, logits):
    """By NumPy, of every output that is made of logits."""
    found = {}
    for i, (name, z) in enumerate(named(logits).items()):
        z, end = np.asarray(z, np.float64), ending_of(trace(model), i)
        e = np.exp(z - z.max(-1, keepdims=True))
        of = {"softmax": e / e.sum(-1, keepdims=True), "sigmoid": 1 / (1 + np.exp(-z))}
        found[name] = of[end.activation] if end else z
    return found


@every
def test_shares_are_softmax_or_sigmoid_of_the_logits(make):
    model = toys.randomised(make())
    images = toys.images(3, model.input_shape[1])
    bare = logits_of(model)
    expected = shares(model, bare(images, training=False))
    for name, found in named(model(images, training=False)).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-6)
    assert all(ending_of(trace(bare), i) is None for i in range(len(bare.outputs)))
    assert logits_of(bare) is bare
    names = {path.rpartition("/")[2] for path in trace(model).layers}
    assert {layer.name for layer in bare.layers if layer.weights} <= names


@every
def test_what_was_taken_off_can_be_put_back(make):
    model = toys.randomised(make())
    images = toys.images(3, model.input_shape[1])
    whole = with_ending(logits_of(model), model)
    ours, theirs = trace(whole), trace(model)
    assert [call.kind for call in ours.calls] == [call.kind for call in theirs.calls]
    assert [call.name for call in ours.calls] == [call.name.rpartition("/")[2] for call in theirs.calls]
    made = zip(*(map(named, (m(images, training=False) for m in (whole, model)))), strict=True)
    for name, _ in made:
        found, expected = (named(m(images, training=False))[name] for m in (whole, model))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("make", ENDS[:-1])
def test_a_pruned_model_of_logits_ends_as_the_pruned_model_does(make):
    model = toys.randomised(make())
    images, bare = toys.images(3, model.input_shape[1]), logits_of(model)
    small = with_ending(pruning.compact(bare, pruning.make_plan(bare, keep=0.5)), model)
    expected = pruning.compact(model, pruning.make_plan(model, keep=0.5))
    assert small.count_params() == expected.count_params() < model.count_params()
    found = zip(named(small(images)).items(), named(expected(images)).items(), strict=True)
    for (name, ours), (other, theirs) in found:
        assert name == other
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_shares_in_float32_of_logits_in_half_of_that_stay_so():
    images = keras.Input((8, 8, 3))
    x = L.Dense(4, dtype="mixed_bfloat16")(body(images))
    model = keras.Model(images, L.Activation("softmax", dtype="float32", name="end")(x))
    bare = logits_of(model)
    assert keras.backend.standardize_dtype(bare.output.dtype) == "bfloat16"
    whole = with_ending(bare, model)
    assert keras.backend.standardize_dtype(whole.output.dtype) == "float32"
    assert whole.layers[-1].name == "end"


def test_a_model_of_logits_comes_back_as_it_is():
    model = toys.plain_net()
    assert logits_of(model) is model and with_ending(model, model) is model


def test_a_gate_in_the_middle_is_no_end():
    images = keras.Input((8, 8, 3))
    x = L.Multiply()([images, L.Dense(3, activation="sigmoid")(images)])
    assert ending_of(trace(keras.Model(images, L.Flatten()(x)))) is None
    recurrent = keras.Sequential([keras.Input((4, 3)), L.GRU(2, activation="sigmoid")])
    assert ending_of(trace(recurrent)) is None


@pytest.mark.parametrize(
    ("layer", "last"), [(L.Softmax(1), False), (L.Softmax(), True), (L.Softmax(-1), True)]
)
def test_an_end_says_whether_shares_add_up_along_the_last_axis(layer, last):
    images = keras.Input((4, 4, 3))
    graph = trace(keras.Model(images, layer(L.Conv2D(3, 1)(images))))
    assert ending_of(graph).along_last == last
    flat = trace(keras.Model(images, L.Flatten()(layer(L.Conv2D(3, 1)(images)))))
    assert not ending_of(flat).along_last  # 48 shares of 16 positions


def test_an_end_that_is_read_twice_stays():
    images = keras.Input((8, 8, 3))
    x = L.Dense(4, activation="softmax", name="classes")(body(images))
    with pytest.raises(
        UsageError, match="softmax at the end .* is read elsewhere.*Received: layer 'classes'"
    ):
        logits_of(keras.Model(images, [x, L.Dense(2)(x)]))
    tags = L.Dense(4, activation="sigmoid", name="tags")
    left, right = keras.Input((3,)), keras.Input((3,))
    with pytest.raises(UsageError, match="Received: layer 'tags'"):
        logits_of(keras.Model([left, right], [tags(left), tags(right)]))


def test_an_end_goes_behind_its_own_model_only():
    model = toys.plain_net()
    with pytest.raises(
        UsageError, match="'plain' does not end as .* does.*Received: Dense 'logits' instead of Act"
    ):
        with_ending(model, softmax_then_identity())
    with pytest.raises(UsageError, match="Received: 1 outputs instead of 3"):
        with_ending(model, two_outputs())
