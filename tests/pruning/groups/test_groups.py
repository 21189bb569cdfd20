"""Groups of networks whose couplings are known by construction."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.pruning import compact, find_groups, make_plan
from secateur.pruning.groups.analysis import analyse
from secateur.runs.errors import UsageError
from tests.helpers import toys


@pytest.fixture(scope="module")
def resnet56():
    return nets.build("ResNet-56")


def test_resnet56_has_the_30_gates_of_ekg_in_its_order(resnet56):
    groups = find_groups(resnet56)
    assert [group.size for group in groups] == [16] + 9 * [16] + [32] + 9 * [32] + [64] + 9 * [64]
    stages = ["conv", "BasicBlock1.0_conv3", "BasicBlock2.0_conv3"]
    inner = [[f"BasicBlock{s}.{b}_conv1" for b in range(9)] for s in range(3)]
    assert [group.name for group in groups] == [
        n for s, i in zip(stages, inner, strict=True) for n in (s, *i)
    ]


def test_num_call_is_the_number_of_producers(resnet56):
    producers = {group.name: group.layers("producer") for group in find_groups(resnet56)}
    shared = {name: layers for name, layers in producers.items() if len(layers) > 1}
    assert {name: len(layers) for name, layers in shared.items()} == {
        "conv": 10, "BasicBlock1.0_conv3": 10, "BasicBlock2.0_conv3": 10
    }  # fmt: skip
    assert shared["conv"] == ["conv", *(f"BasicBlock0.{b}_conv2" for b in range(9))]


def test_each_gate_sits_behind_every_relu_of_its_group(resnet56):
    assert {len(group.sites) for group in find_groups(resnet56) if group.name.endswith("_conv1")} == {1}
    assert [len(group.sites) for group in find_groups(resnet56) if len(group.layers("producer")) > 1] == [
        10,
        9,
        9,
    ]


def test_resnet20_has_12_groups_with_four_producers_per_stage():
    groups = find_groups(nets.build("ResNet-20"))
    assert [len(group.layers("producer")) for group in groups] == [4, 1, 1, 1] * 3


@pytest.mark.parametrize(("shortcut", "fronts"), [("A", (0, 0)), ("A'", (8, 16))])
def test_zero_padding_couples_the_stages(shortcut, fronts):
    model = toys.small_resnet(shortcut)
    stream = find_groups(model)[0]
    assert (stream.name, stream.size) == ("conv", 64)
    assert stream.layers("padding") == ["BasicBlock1.0_pad", "BasicBlock2.0_pad"]
    index = {member.layer: member.index for member in stream.members if member.role == "producer"}
    for narrow, wide, front in (("0.0", "1.0", fronts[0]), ("1.0", "2.0", fronts[1])):
        few, many = index[f"BasicBlock{narrow}_conv2"], index[f"BasicBlock{wide}_conv2"]
        assert np.array_equal(few, many[front : front + len(few)])


def test_a_hand_made_net_of_plain_layers():
    groups = {group.name: group for group in find_groups(toys.plain_net())}
    assert {name: group.size for name, group in groups.items()} == {"stem": 6, "inner": 5, "hidden": 7}
    flat = next(m for m in groups["stem"].members if m.layer == "hidden")
    assert flat.axes == {"kernel": 0}
    assert flat.index.tolist() == [
        position % 6 for position in range(4 * 4 * 6)
    ]  # index = pixel · 6 + channel
    assert [len(groups[name].sites) for name in ("stem", "inner", "hidden")] == [2, 1, 1]


def test_a_shared_layer_is_one_set():
    images, shared = keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1, name="twice")
    x = keras.layers.Conv2D(3, 1, name="first")(images)
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="last")(shared(shared(x))))
    (group,) = find_groups(model)
    assert sorted(group.layers("producer")) == ["first", "twice"]


UNKNOWN = {
    "softmax over channels": lambda: keras.layers.Activation("softmax"),
    "BN over rows": lambda: keras.layers.BatchNormalization(axis=1),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_no_rule_understands_is_left_whole(name):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="before")(images)
    x = UNKNOWN[name]()(x)
    x = keras.layers.Conv2D(4, 1, name="after")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = toys.randomised(keras.Model(images, keras.layers.Dense(2, name="logits")(x)))
    assert [group.name for group in find_groups(model)] == ["after"]
    batch = toys.images(2)
    plan = make_plan(model, keep=0.5)
    full = make_plan(model, keep=1.0)
    np.testing.assert_allclose(compact(model, full)(batch), model(batch), atol=1e-5)
    assert compact(model, plan).get_layer("before").filters == 8


def test_a_channel_that_is_broadcast_is_left_whole():
    images = keras.Input((8, 8, 3))
    wide = keras.layers.Conv2D(8, 3, name="wide")(images)
    one = keras.layers.Conv2D(1, 3, name="one")(images)
    x = keras.layers.Add(name="sum")([wide, one])
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="logits")(x))
    assert [group.name for group in find_groups(model)] == ["wide"]
    (row, _) = analyse(model).untouched
    assert (row.layers, row.reason) == (("one",), "sum: it is broadcast over other channels")


def test_a_constant_that_is_added_cannot_be_cut():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 1, name="before")(images) + np.arange(5, dtype=np.float32)
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="logits")(x))
    assert find_groups(model) == []


def test_flattening_channels_first_moves_channels_elsewhere():
    images = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(5, 1, name="before")(images)
    x = keras.layers.Flatten(data_format="channels_first")(x)
    (group,) = find_groups(keras.Model(images, keras.layers.Dense(2, name="logits")(x)))
    read = next(m for m in group.members if m.layer == "logits")
    assert read.index.tolist() == [place // 4 % 5 for place in range(80)]  # Keras puts the first axis last


def test_a_sequential_model_has_groups():
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(4, 3, name="a"),
        keras.layers.Conv2D(2, 3, name="b"),
    ]
    model = keras.Sequential(layers)
    (group,) = find_groups(model)
    assert (group.size, group.layers("producer"), group.layers("consumer")) == (4, ["a"], ["b"])
    assert compact(model, make_plan(model, keep=0.5)).get_layer("a").filters == 2


def test_a_model_without_a_graph_is_an_error_of_the_user():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Subclassed(name="mine"), keras.Sequential([keras.layers.Dense(3)], name="mine")):
        with pytest.raises(UsageError, match="'mine' has no graph.*Received: "):
            find_groups(model)
