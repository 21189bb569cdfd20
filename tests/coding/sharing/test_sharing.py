"""Models whose kernels have few values: zeros apart, kernels left alone, and what the report says."""

import keras
import numpy as np
import pytest

from secateur.coding.sharing.kmeans import cluster
from secateur.coding.sharing.share import ZERO, share, share_array, tied
from secateur.pruning.constrain.single_weights import zero_weights
from secateur.runs import UsageError
from tests.helpers.toys import plain_net

CONVOLUTIONS = {"stem", "inner", "outer"}


def kernels(model):
    return {layer.name: layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")}


def values_of(kernel):
    return len(np.unique(kernel[kernel != 0]))


@pytest.mark.parametrize("linear", [False, True])
def test_convolutions_have_few_values_and_the_same_zeros(linear):
    model = plain_net()
    zero_weights(model, 0.5)
    before, shared = kernels(model), share(model, 3, linear=linear)
    for name, kernel in kernels(model).items():
        if name not in CONVOLUTIONS:
            np.testing.assert_array_equal(kernel, before[name])
            continue
        assert values_of(kernel) <= 8 < values_of(before[name])
        np.testing.assert_array_equal(kernel == 0, before[name] == 0)
        alive = before[name] != 0
        np.testing.assert_array_equal(kernel[alive], cluster(before[name][alive], 8, linear).values)
    assert {kernel.name for kernel in shared.kernels} == {f"{name}/kernel" for name in CONVOLUTIONS}


def test_codebook_and_labels_are_the_kernel():
    model = plain_net()
    zero_weights(model, 0.3)
    for kernel in share(model, 4, layers="all").kernels:
        value = kernel.variable.numpy()
        np.testing.assert_array_equal(kernel.values, value)
        np.testing.assert_array_equal(kernel.labels == ZERO, value == 0)
        assert kernel.codebook.dtype == np.float32 and len(kernel.codebook) <= 16


@pytest.mark.parametrize(("layers", "names"), [
    ("conv", CONVOLUTIONS), ("dense", {"hidden", "logits"}), ("all", {*CONVOLUTIONS, "hidden", "logits"}),
])  # fmt: skip
def test_which_kernels(layers, names):
    shared = share(plain_net(), 2, layers)
    assert {kernel.name.partition("/")[0] for kernel in shared.kernels} == names


def test_depthwise_separable_and_nested_kernels_are_convolutions():
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((8, 8, 4)), layers.SeparableConv2D(5, 3, name="both")], name="inside"
    )
    inputs = keras.Input((8, 8, 3))
    x = inner(
        layers.Conv2DTranspose(4, 1, name="up")(
            layers.DepthwiseConv2D(3, padding="same", name="deep")(inputs)
        )
    )
    shared = share(keras.Model(inputs, layers.Dense(2)(x)), 1)
    wanted = ["both/depthwise_kernel", "both/pointwise_kernel", "deep/kernel", "up/kernel"]
    assert sorted(kernel.name for kernel in shared.kernels) == wanted


def test_bits_of_layers_and_types():
    model = plain_net()
    shared = share(model, {"stem": 4, "*er": 1, "dense": 3}, layers="all")
    assert [kernel.bits for kernel in shared.kernels] == [4, 1, 1, 3, 3]
    assert {name: values_of(k) for name, k in kernels(model).items()} == {
        "stem": 16, "inner": 2, "outer": 2, "hidden": 8, "logits": 8,
    }  # fmt: skip
    untouched = plain_net()
    share(untouched, {"inner": 2})
    np.testing.assert_array_equal(kernels(untouched)["stem"], kernels(plain_net())["stem"])


def test_a_layer_that_is_called_as_its_kind_is_meant_by_its_kernel():
    inputs = keras.Input((8, 8, 3))
    conv, other = (keras.layers.Conv2D(4, 3, name=name) for name in ("conv", "other"))
    shared = share(keras.Model(inputs, other(conv(inputs))), {"conv/kernel": 2, "conv": 1})
    assert {kernel.name: kernel.bits for kernel in shared.kernels} == {"conv/kernel": 2, "other/kernel": 1}


def test_a_kernel_of_few_values_stays_as_it_is():
    """HAP: where 2^bits is at least the number of distinct values, 0 among them."""
    model = plain_net()
    inner = model.get_layer("inner").kernel
    for values, skipped in ((4, True), (5, False)):  # with 0: at most 2², and one more
        inner.assign(np.resize(np.arange(values, dtype=np.float32) / 7, inner.shape))
        before = inner.numpy()
        (row,) = [row for row in share(model, 2).facts() if row["kernel"] == "inner/kernel"]
        assert row["skipped"] is skipped and row["distinct"] == values and row["values"] == values - 1
        np.testing.assert_array_equal(inner.numpy(), before)  # four values beside 0 fit 2 bits, too


def test_facts_of_a_kernel():
    model = plain_net()
    zero_weights(model, 0.25)
    before = kernels(model)
    rows = share(model, 2).facts()
    zeros = sum(int((before[name] == 0).sum()) for name in CONVOLUTIONS)
    assert sum(row["zeros"] for row in rows) == zeros
    for row in rows:
        name = row["kernel"].partition("/")[0]
        squares = (before[name].astype(np.float64) - kernels(model)[name]) ** 2
        assert row["error"] == pytest.approx(squares.sum(), rel=1e-6)
        assert (row["bits"], row["values"], row["weights"]) == (2, 4, before[name].size)


def test_what_is_shared_is_found_again_and_shared_twice_is_shared_once():
    model = plain_net()
    zero_weights(model, 0.5)
    first = share(model, 3)
    for again in (tied(model, 3), share(model, 3)):
        for a, b in zip(first.kernels, again.kernels, strict=True):
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.codebook, b.codebook)
    assert sum(row["error"] for row in again.facts()) == 0


def test_a_mean_of_zero_is_not_taken_for_a_pruned_weight():
    codebook, labels, _ = share_array(np.array([-1, 0, 1], np.float32), 1)
    assert codebook.tolist() == [np.finfo(np.float32).tiny] and labels.tolist() == [0, ZERO, 0]


def test_fastening_ends_a_drift_of_last_bits():
    model = plain_net()
    zero_weights(model, 0.5)
    shared = share(model, 3)
    before = kernels(model)
    for kernel in shared.kernels:
        value = kernel.variable.numpy()
        noise = np.random.default_rng(0).choice([-1e-7, 0, 1e-7], value.shape)
        kernel.variable.assign(np.where(value, value * (1 + noise), 0))
    shared.equalise()
    for name in CONVOLUTIONS:
        assert values_of(kernels(model)[name]) == values_of(before[name])
        np.testing.assert_allclose(kernels(model)[name], before[name], rtol=3e-7)


def test_a_table_for_people():
    shared = share(plain_net(), 3)
    lines = str(shared).splitlines()
    assert lines[0].split() == "kernel weights zeros values before now squared error bytes".split()
    assert lines[1].split()[:5] == ["stem/kernel", "162", "0", "162", "8"]
    size, count = (sum(row[key] for row in shared.facts()) for key in ("bytes", "weights"))
    assert lines[-1].split() == ["all", f"{count:,}", "0", f"{size:.4g}" if size < 1000 else f"{size:,.0f}"]


@pytest.mark.parametrize(("bits", "layers", "words"), [
    (0, "conv", "bits=0"), (17, "conv", "bits=17"), ({"stem": 2.5}, "conv", "bits=2.5"),
    ({"stm": 4}, "conv", "'stm'. Did you mean 'stem'"), ({"hidden": 4}, "conv", "bits of 'hidden'"),
    (5, "convs", "Did you mean 'conv'"),
])  # fmt: skip
def test_what_cannot_be_shared_is_named(bits, layers, words):
    with pytest.raises(UsageError, match=words):
        share(plain_net(), bits, layers)
