"""Published counts, an independent count from the layer table, and plans counted without building."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.pruning import compact, complexity, find_groups
from secateur.pruning.count.counting import Counter
from secateur.runs.errors import UsageError
from tests.helpers import toys

# model, shortcut, classes → parameters, parameters without BN, MACs, 2·H·W·C of all BN outputs
COUNTS = {
    ("ResNet-20", "A", 10): (269_722, 268_346, 40_551_040, 376_832),
    ("ResNet-20", "A'", 10): (269_722, 268_346, 40_551_040, 376_832),
    ("ResNet-20", "B", 10): (272_474, 270_906, 40_813_184, 401_408),
    ("ResNet-32", "A", 10): (464_154, 461_882, 68_862_592, 606_208),
    ("ResNet-44", "A", 10): (658_586, 655_418, 97_174_144, 835_584),
    ("ResNet-56", "A", 10): (853_018, 848_954, 125_485_696, 1_064_960),
    ("ResNet-56", "A", 100): (858_868, 854_804, 125_491_456, 1_064_960),
    ("ResNet-56", "B", 10): (855_770, 851_514, 125_747_840, 1_089_536),
    ("ResNet-56", "B", 100): (861_620, 857_364, 125_753_600, 1_089_536),
    ("ResNet-110", "A", 10): (1_727_962, 1_719_866, 252_887_680, 2_097_152),
    ("ResNet-110", "A", 100): (1_733_812, 1_725_716, 252_893_440, 2_097_152),
}
_BUILT: dict = {}


def net(arch, shortcut="B", classes=10):
    key = (arch, shortcut, classes)
    if key not in _BUILT:
        _BUILT[key] = nets.build(arch, num_classes=classes, shortcut=shortcut)
    return _BUILT[key]


@pytest.mark.parametrize(("key", "expected"), COUNTS.items(), ids=lambda x: "-".join(map(str, x)))
def test_parameters_macs_and_the_bn_term_are_the_published_ones(key, expected):
    params, params_without_bn, macs, bn_term = expected
    model = net(*key)
    mac, ekg = complexity(model, "mac"), complexity(model, "ekg")
    bn = sum(row.params for row in mac.layers if row.kind == "FusedBatchNorm")
    assert (mac.params, mac.params - bn, mac.macs, ekg.macs - mac.macs) == (
        params,
        params_without_bn,
        macs,
        bn_term,
    )


@pytest.mark.parametrize(
    ("classes", "params", "macs"), [(10, 860_026, 126_837_376), (100, 865_876, 126_843_136)]
)
def test_ekg_counts_moving_statistics_and_two_operations_per_bn_output(classes, params, macs):
    cost = complexity(net("ResNet-56", "B", classes), "ekg")
    assert (cost.params, cost.macs) == (params, macs)


def cifar_resnet_table(depth, shortcut):
    """Rows (output side, kernel side, in, out) of convolutions and (side, channels) of BN and ReLU."""
    convs, norms, relus, width = [(32, 3, 3, 16)], [(32, 16)], [(32, 16)], 16
    for side, out in ((32, 16), (16, 32), (8, 64)):
        for _ in range((depth - 2) // 6):
            convs += [(side, 3, width, out), (side, 3, out, out)]
            norms += [(side, out)] * 2
            relus += [(side, out)] * 2
            if width != out and shortcut == "B":
                convs.append((side, 1, width, out))
                norms.append((side, out))
            width = out
    return convs, norms, relus


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
def test_rethinking_and_ptflops_equal_an_independent_count(shortcut):
    convs, norms, relus = cifar_resnet_table(20, shortcut)
    macs = sum(s * s * k * k * i * o for s, k, i, o in convs) + 64 * 10
    norm, relu = (sum(s * s * c for s, c in rows) for rows in (norms, relus))
    halved = [(16, 16), (8, 32)] if shortcut != "B" else []  # outputs of the shortcuts' poolings
    window = 4 if shortcut == "A" else 1
    read = sum(4 * s * s * c for s, c in halved) + 8 * 8 * 64
    in_windows = sum(window * s * s * c for s, c in halved) + 8 * 8 * 64
    model = net("ResNet-20", shortcut)
    assert complexity(model, "rethinking").macs == 2 * macs + 10 + 2 * norm + relu + in_windows
    assert complexity(model, "ptflops").macs == macs + 2 * norm + relu + read


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
def test_a_plan_is_counted_as_the_compacted_model(shortcut):
    rng, model = np.random.default_rng(7), toys.small_resnet(shortcut)
    groups, conventions = find_groups(model), ("mac", "ekg", "rethinking", "ptflops")
    counters = {convention: Counter(model, convention) for convention in conventions}
    for _ in range(5):
        plan = toys.random_plan(groups, rng)
        small = compact(model, plan)
        for convention, counter in counters.items():
            cost = complexity(small, convention)
            assert counter.macs(plan.masks()) == cost.macs
            assert complexity(model, convention, plan).params == cost.params


def test_keras_counts_the_same_parameters():
    model = toys.plain_net()
    assert complexity(model, "ekg").params == model.count_params()
    plan = toys.random_plan(find_groups(model), np.random.default_rng(1))
    assert complexity(model, "ekg", plan).params == compact(model, plan).count_params()


def test_a_grouped_convolution_costs_a_share():
    images = keras.Input((8, 8, 4))
    model = keras.Model(images, keras.layers.Conv2D(6, 3, groups=2, padding="same")(images))
    cost = complexity(model)
    assert (cost.params, cost.macs) == (model.count_params(), 8 * 8 * 9 * 2 * 6)


def test_errors_say_what_is_possible():
    with pytest.raises(UsageError, match="Received: convention='ptflop'.*ptflops"):
        complexity(net("ResNet-20"), "ptflop")
    images = keras.Input((None, None, 3))
    model = keras.Model(images, keras.layers.Conv2D(4, 3, name="c")(images))
    with pytest.raises(UsageError, match="fixed sizes.*Received: 'c'"):
        complexity(model)


def test_attention_and_recurrent_layers_are_counted_whole():
    L = keras.layers
    tokens = keras.Input((5, 8))
    x = L.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)
    model = keras.Model(tokens, L.Dense(3, name="logits")(L.GRU(4, use_bias=False, name="gru")(x)))
    rows = {row.name: (row.params, row.macs) for row in complexity(model).layers}
    assert rows == {
        "attention": (4 * 8 * 6 + 3 * 6 + 8, 5 * 4 * 8 * 6 + 2 * 5 * 5 * 6),  # Q, K, V, O; QKᵀ and ·V
        "gru": (3 * 4 * (8 + 4), 5 * 3 * 4 * (8 + 4)),
        "logits": (4 * 3 + 3, 4 * 3),
    }
    assert complexity(model, "ekg").params == model.count_params()


def test_one_word_for_each_example_has_no_size():
    word = keras.Input((), dtype="int32")
    x = keras.layers.Dense(2)(keras.layers.Embedding(9, 4, name="words")(word))
    assert complexity(keras.Model(word, x)).params == 9 * 4 + 4 * 2 + 2
