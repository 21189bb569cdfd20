"""Operations that move, pick or add up channels: groups behind them, and what becomes of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning import Plan, compact, complexity, find_groups, make_plan, mask, summary
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.layers.activations import mixes
from tests.helpers import random_nets

L, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)


def net(tail, rank: int = 2) -> keras.Model:
    """A convolution of 8 channels, then `tail`, then what reads it."""
    images = keras.Input((4,) * rank + (3,))
    x = (L.Conv2D if rank == 2 else L.Conv1D)(8, 3, padding="same", name="first")(images)
    model = keras.Model(images, L.Dense(2, name="logits")(L.Flatten()(tail(x))))
    random_nets.randomise(model, RNG)
    return model


def made(model: keras.Model, plan: Plan | None = None) -> list[np.ndarray]:
    """Outputs of the masked model and of the compact one."""
    batch = np.random.default_rng(1).normal(size=(5, *model.input_shape[1:])).astype("float32")
    return [np.asarray(how(model, plan)(batch, training=False)) for how in (mask, compact)]


MOVES = {
    "pad": lambda x: ops.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]), "roll": lambda x: ops.roll(x, 1, 1),
    "unstack": lambda x: sum(ops.unstack(ops.reshape(x, (-1, 4, 2, 2, 8)), axis=2)),
    "softmax over pixels": lambda x: L.Activation("softmax")(L.Permute((2, 1))(L.Reshape((16, 8))(x))),
    "Dot over pixels": lambda x: L.Dot(1)([L.Reshape((16, 8))(x), L.Reshape((16, 1))(L.Conv2D(1, 1)(x))]),
    "a cosine": lambda x: L.Dot(-1, normalize=True)([L.Reshape((16, 8))(x), L.Reshape((16, 8))(x)]),
    "sum": lambda x: ops.sum(x, -1, keepdims=True), "normalize": lambda x: ops.normalize(x, -1),
    "divided by a norm": lambda x: x / (1 + ops.norm(x, axis=-1, keepdims=True)),
    "a Dense over pixels": lambda x: L.Permute((2, 1))(L.Dense(5)(L.Permute((2, 1))(L.Reshape((16, 8))(x)))),
    "a choice": lambda x: ops.where(x > 0, x, 0.1 * x),
    "a comparison": lambda x: x * ops.cast(x >= 0.5, x.dtype),
    "a gated linear unit": lambda x: keras.activations.glu(L.Concatenate()([x, x])),
    "numbers for what is none": ops.nan_to_num, "a Lambda": L.Lambda(lambda x: x * ops.sigmoid(x)),
    "a Lambda of TensorFlow": L.Lambda(lambda x: tf.nn.leaky_relu(x)),
    "a function of one's own": lambda x: L.Activation(lambda z: z * ops.tanh(ops.softplus(z)))(x),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_channels_in_front_of_it_can_go(name):
    model = net(MOVES[name])
    plan = Plan.full(find_groups(model)).replace("first", (1, 2, 6))
    masked, small = made(model, plan)
    np.testing.assert_allclose(masked, small, atol=1e-5)
    assert complexity(model, plan=plan).macs == complexity(compact(model, plan)).macs


STAYS = {
    "a single channel": (lambda x: x[..., 0:1], "it picks single channels"),
    "one that is not zero": (lambda x: ops.sum(ops.sigmoid(x), -1), "it reduces over channels"),
    "a bias of pixels": (
        lambda x: ops.sum(L.EinsumDense("bijc,jk->bikc", (4, 5, 8), bias_axes="k")(x), -1),
        "it reduces over channels",
    ),
    "a channel for each sample": (
        lambda x: ops.reshape(ops.transpose(x, (0, 3, 1, 2)), (-1, 4, 4, 1)),
        "batch",
    ),
    "reflected channels": (lambda x: ops.pad(x, [[0, 0]] * 3 + [[1, 1]], mode="reflect"), "fills channels"),
    "a Lambda that turns channels": (
        L.Lambda(lambda x: tf.reverse(x, [-1])),
        "its function is not understood",
    ),
    "other repeats for each": (lambda x: ops.repeat(x, [1, 2] * 4, axis=-1), "repeats each differently"),
}


@pytest.mark.parametrize(
    "function",
    [
        lambda v: tf.concat(v, -1),
        lambda v: tf.concat(v, 1),
        lambda v: v[0] + tf.reverse(v[1], [-1]) if isinstance(v, list) else v,
    ],
)
def test_a_function_of_several_tensors_is_not_tried_on_one(function):
    images = keras.Input((4, 4, 3))
    both = L.Lambda(function)([L.Conv2D(8, 1, name="a")(images), L.Conv2D(8, 1, name="b")(images)])
    model = keras.Model(images, L.Conv2D(2, 1, name="last")(both))
    assert find_groups(model) == []


def test_a_lambda_with_weights_from_elsewhere_stays():
    own, dense = keras.Variable(np.ones(8)), L.Dense(8)
    dense.build((None, 8))
    for function in (lambda x: x * own, lambda x: dense(x)):
        model = net(L.Lambda(function))
        calls = len(dense._inbound_nodes)
        (row,) = (row for row in analyse(model).untouched if "first" in row.layers)
        assert "has weights, which no layer holds" in row.reason and len(dense._inbound_nodes) == calls


@pytest.mark.parametrize("name", STAYS)
def test_channels_in_front_of_it_stay(name):
    tail, reason = STAYS[name]
    model = net(lambda x: L.GlobalAveragePooling2D()(t) if len((t := tail(x)).shape) == 4 else t)
    (row,) = (row for row in analyse(model).untouched if "first" in row.layers)
    assert reason in row.reason


@pytest.mark.parametrize(
    ("pick", "kept", "left"),
    [
        (lambda x: x[..., 2:6], (1, 3, 4, 7), "slice(1, 3, 1)"),
        (lambda x: x[..., ::2], (0, 1, 4, 5), "slice(0, 3, 2)"),
        (lambda x: ops.take(x, [5, 1, 5], -1), (1, 5), "[1, 0, 1]"),
        (lambda x: ops.roll(x, 3, -1), (1, 6, 7), "[1, 2, 0]"),
        (lambda x: x[:, 1:, :, 2:], (0, 3, 4, 6), "slice(1, 4, 1)"),
    ],
)
def test_what_is_picked_has_other_numbers_in_the_small_network(pick, kept, left):
    model, plan = net(pick), Plan({"first": kept}, {"first": 8})
    small = compact(model, plan)
    picking = small.operations[2]
    assert left in repr(picking._inbound_nodes[0].arguments.args)
    np.testing.assert_allclose(*made(model, plan), atol=1e-5)


def test_a_dense_layer_over_tokens_is_listed():
    """The MLP over positions of a mixer: its widths are no channels."""
    tokens = keras.Input((16, 24))
    mixed = L.Dense(16, name="back")(L.Dense(32, "gelu", name="over")(L.Permute((2, 1))(L.Dense(24)(tokens))))
    model = keras.Model(tokens, L.Dense(3, name="last")(L.GlobalAveragePooling1D()(L.Permute((2, 1))(mixed))))
    rows = {row.layers: (row.channels, row.reason) for row in analyse(model).untouched}
    reason = "what it makes lies along another axis than the channels"
    assert rows[("over",)] == (32, f"over: {reason}") and rows[("back",)] == (16, f"back: {reason}")


def test_a_slice_is_a_split():
    def halves(cut):
        def tail(x):
            a, b = cut(x)
            return L.Conv2D(3, 1)(a * ops.sigmoid(b))

        return [g.size for g in find_groups(net(tail))]

    assert halves(lambda x: ops.split(x, 2, -1)) == halves(lambda x: (x[..., :4], x[..., 4:])) == [4, 3]


def test_rows_that_are_folded_into_the_batch_are_counted_once_each():
    frames = keras.Input((5, 4, 4, 3))
    x = L.Conv2D(2, 3, padding="same", name="conv")(ops.reshape(frames, (-1, 4, 4, 3)))
    model = keras.Model(frames, ops.reshape(L.GlobalAveragePooling2D()(x), (-1, 10)))
    assert complexity(model).macs == 5 * 16 * 27 * 2


def test_channels_first_is_channels_last_turned():
    front = {"data_format": "channels_first", "padding": "same"}
    images = keras.Input((3, 6, 6))
    x = L.PReLU(shared_axes=[2, 3])(L.BatchNormalization(axis=1)(L.Conv2D(8, 3, name="a", **front)(images)))
    x = L.MaxPooling2D(**front)(L.Concatenate(axis=1)([x, L.Conv2D(5, 1, name="b", **front)(images)]))
    x = L.DepthwiseConv2D(3, name="c", **front)(x)
    y = L.GlobalAveragePooling2D(data_format="channels_first")(x)
    x = L.Concatenate()([y, L.Flatten(data_format="channels_first")(x)])
    model = keras.Model(images, L.Dense(4, name="logits")(x))
    assert [(g.name, g.size) for g in find_groups(model)] == [("a", 8), ("b", 5)]
    plan = make_plan(model, "random", keep=0.5)
    small = compact(model, plan)
    assert small.get_layer("c").output.shape == (None, sum(plan.widths().values()), 3, 3)
    counts = complexity(model, "ekg", plan), complexity(small, "ekg")
    assert counts[0].macs == counts[1].macs
    assert counts[0].params == counts[1].params == small.count_params()


@pytest.mark.parametrize("how", ["mean", "max", "std"])
def test_a_reduction_over_channels_is_taken_over_those_that_are_left(how):
    def gate(x):
        return x * ops.sigmoid(getattr(ops, how)(L.ReLU()(x), axis=-1, keepdims=True) - 1)

    model = net(gate)
    assert find_groups(model) == []
    assert [group.name for group in find_groups(model, channel_statistics=True)] == ["first"]
    assert "taken over the channels that are left" in summary(model, channel_statistics=True)
    plan = make_plan(model, keep=0.5, channel_statistics=True)
    masked, small = made(model, plan)
    np.testing.assert_allclose(masked, small, atol=1e-5)
    assert complexity(model, plan=plan).macs == complexity(compact(model, plan)).macs


def test_dropout_draws_once_for_what_it_did_and_can_be_trained():
    model = net(lambda x: L.Dropout(0.3, noise_shape=(None, 1, 1, 8), name="drop")(x))
    small = compact(model, make_plan(model, keep=0.5))
    assert tuple(small.get_layer("drop").noise_shape) == (None, 1, 1, 4)
    assert small(np.ones((2, 4, 4, 3)), training=True).shape == (2, 2)


def test_an_activation_is_tried():
    assert mixes(lambda x: x * ops.sigmoid(1.5 * x)) is None
    for mixing in (
        lambda x: x / ops.max(x),
        lambda x: ops.cumsum(x, -1),
        lambda x: ops.softmax(x),
        np.linalg.det,
    ):
        assert "is not understood" in mixes(mixing)
    assert "is not understood" in mixes(lambda x: 1 / x)  # a removed channel would be infinite


def test_units_go_with_a_column_of_each_gate():
    words = keras.Input((6, 5))
    x = L.Bidirectional(L.LSTM(4, return_sequences=True, name="lstm"), name="both")(words)
    model = keras.Model(words, L.Dense(2, name="logits")(L.GRU(3, name="gru")(x)))
    random_nets.randomise(model, RNG)
    assert [(g.name, g.size) for g in find_groups(model)] == [("both", 4), ("gru", 3)]
    plan = Plan({"both": (1, 3), "gru": (0, 2)}, {"both": 4, "gru": 3})
    small = compact(model, plan)
    whole, left = (m.get_layer("both").forward_layer.cell.kernel.numpy() for m in (model, small))
    assert np.array_equal(left, whole[:, [1, 3, 5, 7, 9, 11, 13, 15]])
    np.testing.assert_allclose(*made(model, plan), atol=1e-6)
    count = complexity(model, plan=plan)
    assert count.macs == 2 * 6 * 4 * 2 * (5 + 2) + 6 * 3 * 2 * (4 + 2) + 2 * 2
    assert (count.params, count.macs) == (small.count_params(), complexity(small).macs)


def test_a_recurrent_layer_that_keeps_its_state_is_left_whole():
    words = keras.Input(batch_shape=(2, 6, 5))
    model = keras.Model(words, L.Dense(2, name="logits")(L.GRU(3, stateful=True, name="gru")(words)))
    assert "gru: it keeps its state from batch to batch" in str(analyse(model).untouched)
