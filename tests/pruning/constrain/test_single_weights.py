"""Single weights by magnitude: the published threshold rule and the published counts."""

import hypothesis.extra.numpy as arrays
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import nets
from secateur.nets.kernels import convolution_kernels
from secateur.pruning.constrain.single_weights import (
    PERCENTS,
    above,
    level,
    lowest,
    percents,
    threshold,
    zero_weights,
)
from secateur.runs import UsageError
from tests.helpers.toys import plain_net, small_resnet


def kernels_of(model) -> list[np.ndarray]:
    return [layer.kernel.numpy() for layer in model.layers if getattr(layer, "filters", None)]


def test_vgg16_loses_the_published_number_of_weights():
    """14,710,464 convolution weights of 14,987,722; sorted place ⌊.95 · 14,710,464⌋ and all up to it."""
    model = nets.build("VGG-16", num_classes=10, head="hidden")
    kernels = convolution_kernels(model)
    sizes = [int(np.prod(k.variable.shape)) for k in kernels]
    rng = np.random.default_rng(0)
    ranks = np.arange(1, sum(sizes) + 1, dtype=np.float32)  # below 2²⁴: all different in float32
    rng.shuffle(ranks)
    ranks[::3] *= -1
    for kernel, part in zip(kernels, np.split(ranks, np.cumsum(sizes)[:-1]), strict=True):
        kernel.variable.assign(part.reshape(kernel.variable.shape))
    dense = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "units")]
    found = zero_weights(model, PERCENTS["VGG-16"][-1])
    assert (found.zeros, found.total) == (13_974_941, 14_710_464)
    assert found.threshold == 13_974_941  # the rank itself: that weight goes, too
    assert sum(int((k == 0).sum()) for k in kernels_of(model)) == 13_974_941
    for before, layer in zip(dense, [x for x in model.layers if hasattr(x, "units")], strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy(), before)


WEIGHTS = arrays.arrays(
    np.float32, st.integers(1, 40), elements=st.floats(-4, 4, width=16, allow_subnormal=False)
)


@given(st.lists(WEIGHTS, min_size=1, max_size=4), st.floats(0, 0.999))
def test_the_threshold_is_that_of_one_sorted_list(kernels, percent):
    ordered = sorted(abs(float(w)) for kernel in kernels for w in kernel)
    limit = threshold(kernels, percent)
    assert limit == ordered[int(percent * len(ordered))]
    for kernel in kernels:
        cut = above(kernel, limit)
        assert cut.tolist() == [w if abs(w) > limit else 0 for w in kernel.tolist()]


@given(WEIGHTS, st.floats(0, 0.999))
def test_a_level_removes_its_count_and_what_is_equal_to_the_last(kernel, sparsity):
    count = int(sparsity * kernel.size)
    gone = np.abs(kernel) <= lowest(kernel, sparsity)
    assert gone.sum() >= count
    ordered = np.sort(np.abs(kernel))
    assert gone.sum() == (count and (ordered <= ordered[count - 1]).sum())


def test_rounds_are_cumulative_and_every_layer_is_in_one_row():
    """The second ratio counts the zeros of the first; small layers of large weights lose little."""
    model = small_resnet()
    model.get_layer("conv").kernel.assign(model.get_layer("conv").kernel.numpy() + 3)
    total, seen = sum(k.size for k in kernels_of(model)), []
    for percent in (0.3, 0.5, 0.7):
        before = kernels_of(model)
        found = zero_weights(model, percent)
        assert found.zeros == int(percent * total) + 1
        assert all((after[b == 0] == 0).all() for b, after in zip(before, kernels_of(model), strict=True))
        seen.append((model.get_layer("conv").kernel.numpy() == 0).mean())
    assert max(seen) < 0.05


def test_level_zeroes_every_layer_alike():
    model = plain_net()
    before = kernels_of(model)
    found = level(model, 0.5)
    for old, new in zip(before, kernels_of(model), strict=True):
        assert (new == 0).sum() == old.size // 2
        np.testing.assert_array_equal(new[new != 0], old[new != 0])
    assert found.zeros == sum(k.size // 2 for k in before)


def test_no_bn_no_bias_and_no_dense_layer_is_touched():
    model = plain_net()
    before = {v.path: v.numpy() for v in model.variables}
    zero_weights(model, 0.9)
    changed = {v.path for v in model.variables if not np.array_equal(v.numpy(), before[v.path])}
    assert changed == {"stem/kernel", "inner/kernel", "outer/kernel"}


def test_kernels_are_found_in_models_inside_of_models_and_in_layers_of_all_kinds():
    layers = keras.layers
    inner = keras.Sequential([keras.Input((8, 8, 4)), layers.DepthwiseConv2D(3, name="deep")], name="inside")
    images = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="twice")
    x = layers.SeparableConv2D(4, 3, padding="same", name="apart")(shared(shared(images)))
    model = keras.Model(images, layers.Conv2DTranspose(5, 3, name="up")(inner(x)))
    found = {k.name: k for k in convolution_kernels(model)}
    assert found.keys() == {
        "twice/kernel", "apart/depthwise_kernel", "apart/pointwise_kernel", "deep/kernel", "up/kernel",
    }  # fmt: skip
    numbers = {n: int(np.prod([k.variable.shape[a] for a in k.filters])) for n, k in found.items()}
    assert numbers == {
        "twice/kernel": 3, "apart/depthwise_kernel": 3, "apart/pointwise_kernel": 4, "deep/kernel": 4,
        "up/kernel": 5,
    }  # fmt: skip
    assert found["up/kernel"].inside == (0, 1, 3) and found["deep/kernel"].inside == (0, 1)


def test_published_ratios_rise_and_unknown_networks_take_the_mildest():
    for ratios in PERCENTS.values():
        assert len(ratios) == 5 and list(ratios) == sorted(set(ratios)) and ratios[-1] < 1
    assert percents("WRN-16-8") == (0.27, 0.46, 0.60, 0.70, 0.77)
    assert percents("MobileNet-v2") == percents("ResNet-56") == (0.22, 0.39, 0.51, 0.59, 0.66)


@pytest.mark.parametrize("percent", [1.0, -0.1, float("nan")])
def test_a_ratio_out_of_range_is_named(percent):
    with pytest.raises(UsageError, match=f"Received: {percent}"):
        zero_weights(plain_net(), percent)


def test_a_model_without_convolutions_has_no_threshold():
    inputs = keras.Input((3,))
    with pytest.raises(UsageError, match="convolution"):
        zero_weights(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 0.5)
