"""Attention and streams through normalisations: what is left is what remains, and costs what is counted."""

import keras
import numpy as np
import pytest

from secateur.callbacks import HoldPruned
from secateur.nets.layers import MaskedNormalization
from secateur.pruning import Plan, compact, complexity, find_groups, make_plan, mask
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.gated import Gated
from secateur.runs.errors import UsageError
from tests.helpers import random_nets, toys

L, ops = keras.layers, keras.ops
TOKENS, STREAM, HEADS, WIDTH, HIDDEN = 4, 6, 2, 4, 10
IMAGES = np.random.default_rng(0).normal(0, 1, (5, 8, 8, 3)).astype(np.float32)


def vit(attend, norm=L.LayerNormalization) -> keras.Model:
    """Two blocks; a token is a patch of 4 pixels."""
    images = keras.Input((8, 8, 3))
    x = L.Reshape((TOKENS, STREAM))(L.Conv2D(STREAM, 4, 4, name="patch")(images))
    for n in range(2):
        x = x + attend(norm(name=f"first{n}")(x), n)
        y = L.Dense(HIDDEN, "gelu", name=f"up{n}")(norm(name=f"second{n}")(x))
        x = x + L.Dense(STREAM, name=f"down{n}")(y)
    model = keras.Model(images, L.Dense(3, name="logits")(L.GlobalAveragePooling1D()(norm(name="last")(x))))
    random_nets.randomise(model, np.random.default_rng(1))
    return model


def layer(x, n):
    return L.MultiHeadAttention(HEADS, WIDTH, name=f"mha{n}")(x, x)


def by_hand(x, n, parted=lambda y: ops.split(y, 3, axis=-1)):
    """As zoos write it: one Dense for all three."""
    qkv = parted(L.Dense(3 * HEADS * WIDTH, name=f"qkv{n}")(x))
    q, k, v = (ops.transpose(ops.reshape(y, (-1, TOKENS, HEADS, WIDTH)), (0, 2, 1, 3)) for y in qkv)
    made = ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, 2, 3)) / 2.0), v)
    made = ops.reshape(ops.transpose(made, (0, 2, 1, 3)), (-1, TOKENS, HEADS * WIDTH))
    return L.Dense(STREAM, name=f"out{n}")(made)


def by_slices(x, n):
    size = HEADS * WIDTH
    return by_hand(x, n, lambda y: [y[..., i * size : (i + 1) * size] for i in range(3)])


def by_letters(x, n):
    q, k, v = (
        L.EinsumDense("btc,cnh->btnh", (TOKENS, HEADS, WIDTH), bias_axes="nh", name=f"{part}{n}")(x)
        for part in ("q", "k", "v")
    )
    made = ops.einsum("bnts,bsnh->btnh", L.Softmax()(ops.einsum("btnh,bsnh->bnts", q, k)), v)
    return L.EinsumDense("btnh,nhc->btc", (TOKENS, STREAM), bias_axes="c", name=f"out{n}")(made)


WAYS = (layer, by_hand, by_slices, by_letters)


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.__name__)
def net(request):
    return vit(request.param)


def close(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-5 * np.abs(np.asarray(a)).max()


def test_stream_heads_widths_and_mlp_can_be_cut(net):
    groups = {group.name: group.size for group in find_groups(net)}
    for n in range(2):
        assert [groups[name] for name in groups if name.endswith(f"{n}:heads")] == [HEADS]
    widths = [size for name, size in groups.items() if not name.endswith(":heads")]
    assert sum(widths) == STREAM + 2 * (WIDTH + WIDTH + HIDDEN)
    assert [row.layers for row in analyse(net).untouched] == [("logits",)]


def test_half_of_the_macs(net, tmp_path):
    plan = make_plan(net, "taylor", keep_macs=0.5, data=(IMAGES, np.arange(len(IMAGES)) % 3))
    small = compact(net, plan)
    assert 0.4 < complexity(small).macs / complexity(net).macs <= 0.5
    masked = mask(net, plan)
    assert close(masked(IMAGES), small(IMAGES))
    assert close(small(IMAGES), Gated(analyse(net))(IMAGES, plan.masks()))
    for model in (masked, small):
        model.save(tmp_path / "model.keras")
        assert close(model(IMAGES), keras.models.load_model(tmp_path / "model.keras")(IMAGES))


def test_macs_follow_heads_and_widths_as_by_hand(net):
    groups = find_groups(net)
    plan = toys.random_plan(groups, np.random.default_rng(2))
    stream = len(plan.keep["patch"])
    macs = TOKENS * 4 * 4 * 3 * stream + stream * 3
    for n in range(2):
        own = [name for name in plan.keep if name.partition(":")[0].endswith(str(n))]
        heads = next(len(plan.keep[name]) for name in own if name.endswith(":heads"))
        widths = [
            plan.keep[name] for name in own if not name.endswith(":heads") and not name.startswith("up")
        ]
        if len(widths) == 1:  # one Dense makes both, queries with keys in front
            widths = [[c for c in widths[0] if c < WIDTH], [c for c in widths[0] if c >= WIDTH]]
        keys, values = map(len, widths)
        macs += TOKENS * stream * heads * 2 * (keys + values)  # the four projections
        macs += TOKENS * TOKENS * heads * (keys + values)
        macs += TOKENS * 2 * stream * len(plan.keep[f"up{n}"])
    assert complexity(net, plan=plan).macs == macs


def test_a_head_that_is_removed_is_as_one_that_was_never_there():
    """Kernels of a network of one head, and a second head of noise: cut, the network is the first one."""
    inputs = keras.Input((TOKENS, STREAM))
    one, two = (
        keras.Model(inputs, L.Dense(2)(L.MultiHeadAttention(n, WIDTH, name="mha")(inputs, inputs)))
        for n in (1, 2)
    )
    random_nets.randomise(two, np.random.default_rng(3))
    small = compact(two, Plan({"mha:heads": (0,), "mha:keys": (0, 1, 2, 3), "mha:values": (0, 1, 2, 3),
                               "mha": tuple(range(STREAM))},
                              {"mha:heads": 2, "mha:keys": 4, "mha:values": 4, "mha": STREAM}))  # fmt: skip
    pick = {(6, 2, 4): np.s_[:, :1], (2, 4): np.s_[:1], (2, 4, 6): np.s_[:1]}
    for mine, theirs in zip(one.weights, two.weights, strict=True):
        mine.assign(theirs.numpy()[pick.get(tuple(theirs.shape), np.s_[:])])
    x = np.random.default_rng(4).normal(0, 1, (3, TOKENS, STREAM))
    assert close(one(x), small(x))


def test_a_narrow_key_keeps_the_scale_that_was_trained():
    """Keys of which some are zero already: without them scores are what they were."""
    inputs = keras.Input((TOKENS, STREAM))
    model = keras.Model(inputs, L.Dense(2)(L.MultiHeadAttention(1, 4, name="mha")(inputs, inputs)))
    random_nets.randomise(model, np.random.default_rng(3))
    key, bias = model.get_layer("mha").key_dense.kernel, model.get_layer("mha").key_dense.bias
    for variable in (key, bias):
        variable.assign(variable * np.array([1.0, 0, 0, 0]))
    plan = Plan.full(find_groups(model)).replace("mha:keys", (0,))
    small, x = compact(model, plan), np.random.default_rng(4).normal(0, 1, (3, TOKENS, STREAM))
    assert small.get_layer("mha").key_dim == 1
    assert close(model(x), small(x))


@pytest.mark.parametrize(
    "kind", ["LayerNormalization", "RMSNormalization", "UnitNormalization", "GroupNormalization"]
)
def test_a_masked_norm_is_that_of_what_is_left(kind):
    rng = np.random.default_rng(0)
    x, alive = rng.normal(0, 1, (2, 3, 5)).astype(np.float32), np.array([1, 0, 1, 1, 0], np.float32)
    make = getattr(L, kind)
    plain = make(groups=1) if kind == "GroupNormalization" else make()
    names = {"Layer": "layer", "RMS": "rms", "Unit": "unit", "Group": "group"}
    weights = {"rms": {"center": False}, "unit": {"center": False, "scale": False}}
    name = names[kind.removesuffix("Normalization")]
    masked = MaskedNormalization(name, epsilon=getattr(plain, "epsilon", 1e-12), **weights.get(name, {}))
    few = x[..., alive > 0]
    plain(few), masked(x)
    masked.mask.assign(alive)
    for mine, theirs in zip(masked.trainable_variables, plain.weights, strict=True):
        mine.assign(rng.normal(1, 0.3, mine.shape))
        theirs.assign(mine.numpy()[alive > 0])
    made = masked(x).numpy()
    assert (made[..., alive == 0] == 0).all()
    assert close(plain(few), made[..., alive > 0])


def test_zeros_of_stock_norms_are_refused_and_masked_ones_are_held():
    model = vit(layer)
    plan = toys.random_plan(find_groups(model), np.random.default_rng(0)).replace("patch", (0, 2))
    labels = np.arange(len(IMAGES)) % 3
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    with pytest.raises(UsageError, match="pruning.mask"):
        model.fit(IMAGES, labels, verbose=0, callbacks=[HoldPruned(plan)])
    masked = mask(model)
    masked.compile("adam", loss, run_eagerly=True)  # a trace takes longer than the one step
    masked.fit(IMAGES, labels, verbose=0, callbacks=[HoldPruned(plan)])
    assert close(masked(IMAGES), compact(masked, plan)(IMAGES))
    with pytest.raises(UsageError, match="switched off"):
        compact(masked)


def in_front(norm) -> keras.Model:
    """A norm of maps whose channels are in front of the positions, (b, 6, 4, 5)."""
    images = keras.Input((4, 5, 3))
    x = norm(ops.moveaxis(L.Dense(6, name="first")(images), -1, 1))
    model = keras.Model(images, L.Dense(2, name="logits")(L.GlobalAveragePooling2D()(ops.moveaxis(x, 1, -1))))
    random_nets.randomise(model, np.random.default_rng(0))
    return model


@pytest.mark.parametrize(
    ("norm", "channels"),
    [
        (L.LayerNormalization(axis=1), 6), (L.LayerNormalization(axis=[1]), 6), (L.LayerNormalization(), 6),
        (L.LayerNormalization(axis=[2, 3]), 6), (L.UnitNormalization(axis=1), 6),
        (L.GroupNormalization(1, axis=1), 6), (L.GroupNormalization(3, axis=1), 3),
        (L.GroupNormalization(-1, axis=1), 6),
    ],
)  # fmt: skip
def test_norms_of_channels_in_front(norm, channels):
    model = in_front(norm)
    assert [(g.name, g.size) for g in find_groups(model)] == [("first", channels)]
    plan = make_plan(model, "random", keep=0.5)
    small, x = compact(model, plan), np.random.default_rng(1).normal(size=(3, 4, 5, 3))
    assert close(model(x), mask(model)(x))
    assert close(mask(model, plan)(x), small(x))
    count, again = complexity(model, "ekg", plan), complexity(small, "ekg")
    assert (count.macs, count.params) == (again.macs, again.params)
    assert again.params == small.count_params()


@pytest.mark.parametrize(
    ("norm", "why"),
    [
        (L.LayerNormalization(axis=[1, 2, 3]), "together with axes behind them"),
        (L.RMSNormalization(axis=1), "scales the last axes"),
        (L.GroupNormalization(2, axis=2), "another axis than the channels'"),
    ],
)
def test_norms_that_keep_all_channels_say_why(norm, why):
    assert any(why in row.reason for row in analyse(in_front(norm)).untouched)
