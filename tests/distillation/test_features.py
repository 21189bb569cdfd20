"""What losses read off a network: found in its graph, or by the names of layers."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.distillation import view
from secateur.runs import UsageError

EVERYTHING = ("stages", "blocks", "pooled")
SHAPE = (32, 32, 3)


def made_by(tensors) -> list[str]:
    """Names of the layers that make these symbolic tensors."""
    return [t._keras_history.operation.name for t in keras.tree.flatten(tensors)]


def images(shape=SHAPE, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)


def values_of(model: keras.Model, layer: str, x: np.ndarray) -> np.ndarray:
    return keras.Model(model.inputs[0], model.get_layer(layer).output)(x).numpy()


# --- our networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
def test_the_lists_of_hap_without_stem(shortcut):
    """HAP, ResNet-56: the ends of three stages, 27 blocks, all behind their ReLU; the pooled vector."""
    found = view(nets.build("ResNet-56", input_shape=(16, 16, 3), shortcut=shortcut), EVERYTHING).output
    assert made_by(found["blocks"]) == [f"BasicBlock{s}.{b}_relu2" for s in range(3) for b in range(9)]
    assert made_by(found["stages"]) == [f"BasicBlock{s}.8_relu2" for s in range(3)]
    assert made_by([found["pooled"], found["logits"]]) == ["pool", "fc"]
    assert [t.shape[1:] for t in found["stages"]] == [(16, 16, 16), (8, 8, 32), (4, 4, 64)]


def test_what_comes_is_what_the_layers_make_and_no_more():
    model, x = nets.build("ResNet-20"), images()
    found = view(model, ["stages"])(x)
    assert set(found) == {"logits", "stages"}
    np.testing.assert_array_equal(found["logits"], model(x))
    for stage, value in enumerate(found["stages"]):
        np.testing.assert_array_equal(value, values_of(model, f"BasicBlock{stage}.2_relu2", x))


def test_the_weights_are_shared():
    model, x = nets.build("ResNet-20"), images()
    seen = view(model, [])
    assert {id(v) for v in seen.variables} == {id(v) for v in model.variables}
    model.get_layer("fc").bias.assign_add(np.full(10, 3.0))
    np.testing.assert_array_equal(seen(x)["logits"], model(x))


def test_all_is_everything():
    model = nets.build("ResNet-20")
    assert set(view(model, ["all"]).output) == {"logits", *EVERYTHING}


# --- any network -------------------------------------------------------------------------------------------


def test_resnet50_has_four_stages_of_sixteen_blocks():
    """He et al. 2016, table 1: 3, 4, 6 and 3 blocks; 256, 512, 1024 and 2048 channels."""
    model = keras.applications.ResNet50(weights=None, input_shape=SHAPE, classes=7)
    found = view(model, EVERYTHING).output
    ends = ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"]
    assert made_by(found["stages"]) == ends
    assert len(found["blocks"]) == 16 and set(ends) <= set(made_by(found["blocks"]))
    assert [t.shape[-1] for t in found["stages"]] == [256, 512, 1024, 2048]
    assert made_by(found["pooled"]) == ["avg_pool"] and found["pooled"].shape == (None, 2048)


def test_vgg16_without_merges_has_thirteen_maps_in_five_stages():
    """Simonyan & Zisserman 2015, configuration D; activations lie inside its convolutions."""
    x = inputs = keras.Input(SHAPE)
    for stage, count in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(count):
            x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=f"{stage}.{i}")(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    outputs = keras.layers.Dense(5, name="fc")(keras.layers.Flatten(name="flat")(x))
    found = view(keras.Model(inputs, outputs), EVERYTHING).output
    assert len(found["blocks"]) == 13
    assert made_by(found["stages"]) == ["1.1", "2.1", "3.2", "4.2", "5.2"]
    assert made_by([found["pooled"], found["logits"]]) == ["flat", "fc"]


def test_linear_bottlenecks_end_their_stages_in_the_last_activation():
    """MobileNetV2 adds ten times, without a non-linearity behind it (Sandler et al. 2018, table 2)."""
    model = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35, classes=7)
    found = view(model, EVERYTHING).output
    assert len(found["blocks"]) == 10 and all("add" in name for name in made_by(found["blocks"]))
    assert [t.shape[1] for t in found["stages"]] == [16, 8, 4, 2]
    assert all("relu" in name for name in made_by(found["stages"]))


def gated() -> keras.Model:
    """A convolution whose channels are gated (squeeze-and-excitation), a classifier by 1×1 convolution."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", padding="same", name="map")(inputs)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = keras.layers.Conv2D(2, 1, activation="relu", name="squeeze")(gate)
    gate = keras.layers.Conv2D(6, 1, activation="sigmoid", name="excite")(gate)
    x = keras.layers.Multiply(name="gated")([x, gate])
    x = keras.layers.Conv2D(4, 1, name="classify")(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="mean")(x))


def test_gates_are_no_maps_and_a_convolution_may_classify():
    model, x = gated(), images((8, 8, 3))
    found = view(model, EVERYTHING)
    assert made_by(found.output["stages"]) == made_by(found.output["blocks"]) == ["map"]
    mean = values_of(model, "gated", x).mean((1, 2))
    np.testing.assert_allclose(found(x)["pooled"], mean, atol=1e-6)


def test_layers_may_be_named_instead():
    found = view(gated(), ["logits"], {"stages": ["map", "gated"], "pooled": "mean"}, more=["squeeze"]).output
    assert made_by(found["stages"]) == ["map", "gated"] and made_by(found["pooled"]) == ["mean"]
    assert set(found) == {"logits", "stages", "pooled", "squeeze"}


# --- logits ------------------------------------------------------------------------------------------------


def ending(end: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    inside = end.removeprefix("dense ") if end.startswith("dense") else None
    x = keras.layers.Dense(4, activation=inside, name="fc")(inputs)
    ends = {"softmax": keras.layers.Softmax(), "activation": keras.layers.Activation("softmax")}
    return keras.Model(inputs, ends[end](x) if end in ends else x)


@pytest.mark.parametrize("end", ["dense softmax", "softmax", "activation"])
def test_logits_are_taken_before_the_softmax(end):
    model, x = ending(end), images((6,))
    dense = model.get_layer("fc")
    logits = view(model, [])(x)["logits"].numpy()
    np.testing.assert_allclose(logits, x @ dense.kernel.numpy() + dense.bias.numpy(), atol=1e-6)
    np.testing.assert_allclose(keras.ops.softmax(logits), model(x), atol=1e-6)


def test_a_model_that_ends_in_sigmoids_has_none():
    with pytest.raises(UsageError, match="last layer 'fc', activation='sigmoid'\nBuild it without"):
        view(ending("dense sigmoid"), [])


# --- errors ------------------------------------------------------------------------------------------------


def refused(message: str, model: keras.Model, reads=(), **options) -> None:
    with pytest.raises(UsageError, match=message):
        view(model, reads, **options)


def test_errors_name_the_layer_and_the_nearest_one():
    refused("layer='gatd'.*'gated'", gated(), layers={"stages": ["gatd"]})
    refused("reads='stage'.*'stages'", gated(), ["stage"])


def test_models_without_maps_say_what_to_do():
    refused(r'No stages were found in .*\nName its layers: layers={"stages": ', ending("none"), ["stages"])


def test_a_model_of_two_outputs_is_refused():
    inputs = keras.Input((4,))
    heads = [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)]
    refused("models with one output. Received: .* with 2", keras.Model(inputs, heads))
