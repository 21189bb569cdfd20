"""What is printed about a model; numbers by hand."""

import keras

from secateur.pruning import describe, find_groups, summary
from secateur.pruning.groups.analysis import analyse
from secateur.runs.text import few
from tests.helpers import toys

L = keras.layers


def test_a_group_as_a_table():
    model = toys.plain_net()
    macs = 64 * (3 * 9 + 5 * 9 + 5) + 16 * 7  # at 8 × 8: stem, inner, outer; at 4 × 4: hidden
    params = (3 * 9 + 1) + 2 + 5 * 9 + (5 + 1) + 16 * 7  # stem, stem_bn, inner, outer, hidden
    group = find_groups(model)[0]
    head = f"stem: 6 channels. One costs {macs:,} MACs and {params:,} parameters."
    assert describe(group) == describe(group, "mac") == str(group).replace("stem: 6 channels", head, 1)
    assert str(group).splitlines() == [
        "stem: 6 channels",
        "role      layer    cut along                                          channels",
        "producer  stem     kernel 3, bias 0                                          6",
        "producer  outer    kernel 3, bias 0                                          6",
        "follower  stem_bn  gamma 0, beta 0, moving_mean 0, moving_variance 0         6",
        "consumer  inner    kernel 2                                                  6",
        "consumer  hidden   kernel 0                                                  6",
    ]


def test_weights_that_a_layer_lacks_have_no_row():
    images = keras.Input((8, 8, 3))
    x = L.DepthwiseConv2D(3, use_bias=False, name="depthwise")(L.Conv2D(4, 1, name="conv")(images))
    model = keras.Model(images, L.Conv2D(2, 1, name="last")(x))
    rows = describe(find_groups(model)[0], "ekg").splitlines()
    assert [row.split()[1] for row in rows[2:]] == ["conv", "depthwise", "last"]


def test_all_groups_and_what_stays_as_a_table():
    images = keras.Input((8,))
    x = L.Dense(6, activation="relu", name="first")(images)
    x = L.Softmax(name="norm")(L.Dense(5, name="second")(x))
    model = keras.Model(images, L.Dense(3, activation="softmax", name="classes")(x))
    assert summary(model).splitlines() == [
        "group  channels  made also by  read by  MACs of one  parameters of one",
        "first         6                second            13                 14",
        "",
        "left whole  channels  because",
        "second             5  norm: its softmax mixes channels",
        "classes            3  classes: its softmax mixes channels",
    ]
    assert str(analyse(model).untouched) == summary(model).partition("\n\n")[2]


def test_long_lists_are_cut_short():
    assert few(["a", "b"], 2) == "a, b"
    assert few(["a", "b", "c", "d"], 2) == "a, b and 2 more"
