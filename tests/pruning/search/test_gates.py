"""The gate-Taylor score is the derivative of the loss by a gate, where the channels are last one tensor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import nets
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.search.ekg import Searcher
from secateur.pruning.search.gates import gates_of
from secateur.pruning.search.rewards import Reward
from secateur.pruning.search.settings import SearchSettings
from secateur.pruning.shrink.weights import weights_of
from tests.helpers import toys, user_models

L = keras.layers
BATCH, LABELS = toys.images(24), np.random.default_rng(0).integers(0, 3, 24).astype(np.int32)


def bottlenecks() -> keras.Model:
    """MobileNetV2 in small: linear bottlenecks, one alone and two that are added."""
    images = keras.Input((8, 8, 3))
    x = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(8, 3, strides=2, name="stem")(images)))
    x = L.BatchNormalization(name="one")(L.Conv2D(4, 1, use_bias=False, name="alone")(x))
    for i in range(2):
        y = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(10, 1, name=f"expand{i}")(x)))
        y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"depthwise{i}")(y)
        y = L.ReLU(6)(L.BatchNormalization()(y))
        y = L.BatchNormalization(name=f"bottleneck{i}")(L.Conv2D(6, 1, use_bias=False, name=f"project{i}")(y))
        x = L.Add(name="sum")([x, y]) if i else y
    x = L.ReLU(6)(L.BatchNormalization()(L.Conv2D(12, 1, name="head")(x)))
    return keras.Model(images, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def relu_before_bn() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="bn1")(L.Conv2D(8, 3, activation="relu", name="conv1")(images))
    x = L.MaxPooling2D()(L.Conv2D(6, 3, activation="relu", name="conv2")(x))
    y = L.Conv2D(5, 1, name="branch")(x)
    x = L.BatchNormalization(name="bn2")(L.Concatenate(name="both")([x, y]))
    return keras.Model(images, L.Dense(3)(L.Flatten(name="flat")(x)))


def flat() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.Flatten(name="flat")(L.Conv2D(4, 5, name="conv")(images))
    return keras.Model(images, L.Dense(3)(x))


def stands_on(model: keras.Model) -> dict[str, list[str]]:
    analysis = analyse(model)
    made = {t: call.name for call in analysis.calls for t in call.outputs}
    return {group: [made[t] for t in tensors] for group, tensors in gates_of(analysis).items()}


def by_gates(model: keras.Model, group) -> np.ndarray:
    """|derivative| of the search's loss by a gate for each channel of a group, on every tensor, summed up."""
    graph, total = group.analysis.graph, np.zeros(group.size)
    for tensor in gates_of(group.analysis)[group.name]:
        gate, values = (
            tf.Variable(tf.ones(group.size)),
            dict(zip(graph.inputs, [tf.constant(BATCH)], strict=True)),
        )
        index = dict(group.analysis.parts[tensor])[group.name]
        with tf.GradientTape() as tape:
            for call in graph.calls:
                if call.kind != "InputLayer":
                    read = [values[t] for t in call.inputs]
                    made = call.run(read, training=call.kind == "BatchNormalization")
                    values |= dict(zip(call.outputs, made, strict=True))
                if tensor in call.outputs:
                    values[tensor] *= tf.where(index < 0, 1.0, tf.gather(gate, np.maximum(index, 0)))
            logits = values[graph.outputs[0]]
            loss = tf.reduce_sum(Reward.of("classes")(LABELS, tf.stop_gradient(logits), logits))
        total += np.abs(tf.convert_to_tensor(tape.gradient(loss, gate)))
    return total


@pytest.mark.parametrize("net", [bottlenecks, relu_before_bn, flat, user_models.inverted_residual])
def test_the_score_is_the_derivative_by_a_gate(net):
    model = toys.randomised(net())
    before = [w.numpy() for w in model.weights]
    searcher = Searcher(model, BATCH, LABELS, SearchSettings(0.5, batch_size=24))
    state = searcher.start()
    masks = searcher.full.masks()
    shown, _ = searcher.chain.score(
        searcher.chain.tensors(weights_of(model)), searcher.chain.inputs(BATCH), LABELS, state.teacher
    )
    found = {n: searcher._on_channels(g, shown, masks) for n, g in searcher.groups.items()}
    for layer, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(layer, value)
    expected = {name: by_gates(model, group) for name, group in searcher.groups.items()}
    scale = max(map(np.max, expected.values()))
    for name in expected:
        assert np.max(expected[name]) > 1e-3 * scale  # no group is without a gradient
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4 * scale)


def test_a_linear_bottleneck_is_gated_behind_its_bn_and_the_sum():
    found = stands_on(bottlenecks())
    assert found["alone"] == ["one"]
    assert found["project0"] == ["bottleneck0", "sum"]
    assert len(found["expand0"]) == 2  # behind both of its activations


def test_behind_a_non_linearity_that_bn_follows_the_gate_stands_behind_bn():
    """BN with the statistics of the batch undoes any factor in front of it."""
    assert stands_on(relu_before_bn()) == {"conv1": ["bn1"], "conv2": ["conv2"], "branch": ["flat"]}


@pytest.mark.parametrize("arch", ["ResNet-20", "PreResNet-20", "VGG-16", "WRN-16-2", "MobileNet-v2"])
def test_networks_of_this_project_are_gated_behind_their_activations(arch):
    analysis = analyse(nets.build(arch, input_shape=(32, 32, 3)))
    assert gates_of(analysis) == {group.name: group.sites for group in analysis.groups}
