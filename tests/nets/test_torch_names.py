"""CIFAR ResNets from PyTorch: names, layout and padding."""

import numpy as np
import pytest

from secateur import nets
from secateur.nets.torch_names import from_torch, is_torch
from secateur.recipes.engine.inputs import normalisation_of
from secateur.runs import Snapshot, SnapshotError

SIDE = 16
BATCH = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def torch_state(shortcut="A'", depth=20, classes=5) -> dict[str, np.ndarray]:
    """Random weights with the names and shapes of akamaster/pytorch_resnet_cifar10."""
    rng, state = np.random.default_rng(1), {}

    def bn(name, width):
        for part, low in (("weight", 0.5), ("running_var", 0.5), ("bias", -0.2), ("running_mean", -0.2)):
            state[f"{name}.{part}"] = rng.uniform(low, low + 0.4, width).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(3)

    def conv(name, n_out, n_in, size=3):
        state[f"{name}.weight"] = rng.normal(0, 0.2, (n_out, n_in, size, size)).astype(np.float32)

    conv("conv1", 16, 3)
    bn("bn1", 16)
    n_in = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            for i, source in ((1, n_in), (2, width)):
                conv(f"{name}.conv{i}", width, source)
                bn(f"{name}.bn{i}", width)
            if shortcut == "B" and n_in != width:
                conv(f"{name}.shortcut.0", width, n_in, 1)
                bn(f"{name}.shortcut.1", width)
            n_in = width
    state["linear.weight"] = rng.normal(0, 0.3, (classes, 64)).astype(np.float32)
    state["linear.bias"] = rng.normal(0, 0.3, classes).astype(np.float32)
    return state


def reference(state: dict, images: np.ndarray) -> np.ndarray:
    """The published forward pass in NumPy, channels first: images (b, h, w, 3) → logits."""

    def conv(x, name, strides=1):
        kernel = state[f"{name}.weight"]
        size = kernel.shape[-1]
        x = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
        return np.einsum("bchwij,ocij->bohw", windows[:, :, ::strides, ::strides], kernel)

    def bn(x, name):
        mean, var, scale, shift = (
            state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + shift

    def shortcut(x, name, width):
        if f"{name}.shortcut.0.weight" in state:
            return bn(conv(x, f"{name}.shortcut.0", 2), f"{name}.shortcut.1")
        return np.pad(x[:, :, ::2, ::2], ((0, 0), (width // 4, width // 4), (0, 0), (0, 0)))

    x = np.maximum(bn(conv(images.astype(np.float64).transpose(0, 3, 1, 2), "conv1"), "bn1"), 0)
    for name in sorted({".".join(key.split(".")[:2]) for key in state if key.startswith("layer")}):
        width = len(state[f"{name}.bn1.weight"])
        strides = 1 if width == x.shape[1] else 2
        y = np.maximum(bn(conv(x, f"{name}.conv1", strides), f"{name}.bn1"), 0)
        y = bn(conv(y, f"{name}.conv2"), f"{name}.bn2")
        x = np.maximum(y + (x if strides == 1 else shortcut(x, name, width)), 0)
    return x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("shortcut", ["A'", "B"])
def test_the_network_computes_what_the_published_one_does(shortcut):
    state = torch_state(shortcut)
    model = nets.load_params(None, Snapshot(state))
    spec = model.spec
    assert (spec.arch, spec.num_classes, spec.shortcut, spec.padding) == ("ResNet-20", 5, shortcut, "torch")
    expected = reference(state, BATCH)
    built = nets.build(spec, input_shape=(SIDE, SIDE, 3))
    nets.load_params(built, Snapshot(state))
    np.testing.assert_allclose(built(BATCH), expected, atol=1e-5 * np.abs(expected).max())


def test_every_weight_has_a_place_and_names_of_relatives_are_known():
    state = torch_state("B")
    renamed = {
        "module." + name.replace("linear", "fc").replace("shortcut", "downsample"): array
        for name, array in state.items()
    }
    one, other = (from_torch(arrays, "mine") for arrays in (state, renamed))
    assert one.spec == other.spec and list(one.arrays) == list(other.arrays)
    assert len(one.arrays) == sum("num_batches_tracked" not in name for name in state)
    assert is_torch(state) and is_torch(renamed) and not is_torch(one.arrays)


def test_images_are_normalised_as_in_training():
    state = Snapshot(torch_state())
    assert normalisation_of("auto", state) == "imagenet"
    assert normalisation_of("rgb", state) == "rgb"
    assert normalisation_of("auto", Snapshot({"conv/kernel:0": np.zeros(1)})) == "bgr"
    assert normalisation_of("auto", nets.torch_names.from_torch(state.arrays, "mine")) == "imagenet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer4.0.conv1.weight": np.zeros((64, 64, 3, 3), np.float32)}, "'layer4.0.conv1.weight'"),
        ({"conv1.weight": np.zeros((16, 27), np.float32)}, "array 'conv1.weight' is not of 4 dimensions"),
        ({"conv1.weight": np.zeros((16, 3, 3, 3), np.int32)}, "dtype=int32"),
        ({"linear.weight": None}, "'linear.weight' is missing"),
        (
            {"layer3.0.conv1.weight": None, "layer3.0.conv2.weight": None},
            "three stages .* Received: 8 blocks",
        ),
        ({"bn1.running_var": None}, "'bn/moving_variance:0' is missing"),
        ({"linear.bias": np.zeros(6, np.float32)}, "'fc/biases:0' does not fit"),
        ({"layer2.0.conv1.weight": np.zeros((32, 16, 5, 5), np.float32)}, "does not fit"),
    ],
)
def test_what_is_no_cifar_resnet_is_refused_by_name(change, message):
    state = {k: v for k, v in (torch_state() | change).items() if v is not None}
    with pytest.raises(SnapshotError, match=f"^mine: .*{message}") as refusal:
        nets.load_params(None, Snapshot(state), "mine")
    assert len(str(refusal.value).splitlines()) <= 2


def test_widths_that_would_make_a_network_larger_than_its_file_are_refused():
    """16 GB of weights from 4 MB: the convolution is said to read more channels than the array has."""
    lie = {"conv1.weight": np.zeros((20_000, 3, 3, 3), np.float32)}
    lie |= {"layer1.0.conv1.weight": np.zeros((20_000, 1, 3, 3), np.float32)}
    with pytest.raises(SnapshotError, match="'BasicBlock0.0/conv1/kernel:0' does not fit the layer before"):
        nets.load_params(None, Snapshot(torch_state() | lie))


def test_a_network_with_other_padding_is_not_taken_for_the_same():
    model = nets.build("ResNet-20", num_classes=5, shortcut="A'")
    with pytest.raises(
        SnapshotError, match="made for padding='torch'. Received: a ResNet-20 with padding='same'"
    ):
        nets.load_params(model, Snapshot(torch_state()))
