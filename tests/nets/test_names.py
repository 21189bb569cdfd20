"""The map to published names, and the architectures' own."""

import pytest

from secateur import nets
from secateur.runs.errors import UsageError


@pytest.fixture(scope="module")
def resnet56():
    return nets.build("ResNet-56")


def test_the_name_map_is_a_bijection_on_all_weights_of_resnet56(resnet56):
    own = [(layer.name, v.name) for layer in resnet56.layers for v in layer.variables]
    published = [nets.published_name(*pair) for pair in own]
    assert len(set(published)) == len(own)
    assert [nets.layer_and_weight(name) for name in published] == own


@pytest.mark.parametrize(
    ("layer", "weight", "published"),
    [
        ("conv", "kernel", "conv/kernel:0"),
        ("fc", "bias", "fc/biases:0"),
        ("BasicBlock0.0_conv1", "kernel", "BasicBlock0.0/conv1/kernel:0"),
        ("BasicBlock2.8_bn2", "moving_mean", "BasicBlock2.8/bn2/moving_mean:0"),
    ],
)
def test_names_of_the_published_file(layer, weight, published):
    assert nets.published_name(layer, weight) == published
    assert nets.layer_and_weight(published) == (layer, weight)


def test_variables_are_all_weights_but_the_masks(resnet56):
    named = nets.variables(resnet56)
    assert len(named) == sum(v.name != "mask" for layer in resnet56.layers for v in layer.variables)
    assert not [name for name in named if "mask" in name]


def test_list_nets_takes_a_pattern():
    assert nets.list_nets("resnet-?6") == ["ResNet-56"]
    sizes = (8, 14, 18, 20, 32, 34, 44, 50, 56, 110)
    assert nets.list_nets("ResNet*") == [f"ResNet-{depth}" for depth in sizes]
    assert set(nets.list_nets("*net-*")) > {*nets.list_nets("resnet*"), "PreResNet-164", "MobileNet-v2"}
    assert nets.list_nets("alexnet*") == []


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Received: arch='resnet56'.*ResNet-56"):
        nets.build("resnet56")
    with pytest.raises(UsageError, match="Received: arch='vgg16'.*Did you mean 'VGG-16'"):
        nets.build("vgg16")


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("ResNet-20", {"shortcut": "C"}, "Unknown shortcut. Received: shortcut='C'. Valid: B, A, A'"),
        ("ResNet-20", {"padding": "Same"}, "Received: padding='Same'. Did you mean 'same'"),
        ("VGG-16", {"head": "hiden"}, "Received: head='hiden'. Did you mean 'hidden'"),
        ("VGG-16", {"shortcut": "A"}, "Received: shortcut='A'. Valid: B"),
        ("ResNet-20", {"head": "single"}, "ResNet-20 has no choice of head"),
        ("ResNet-18", {"dropout": 0.3}, "ResNet-18 has no dropout"),
        ("WRN-16-2", {"dropout": 1.0}, "below 1. Received: dropout=1.0"),
        ("WRN-17-2", {}, "6n\\+4 layers .* Received: arch='WRN-17-2'"),
    ],
)
def test_options_that_a_family_lacks_are_refused(arch, options, message):
    with pytest.raises(UsageError, match=message):
        nets.build(arch, **options)


def test_options_replace_the_fields_of_a_spec():
    spec = nets.NetSpec("ResNet-20", num_classes=10, input_shape=(8, 8, 3))
    model = nets.build(spec, num_classes=3)
    assert (model.output.shape[-1], model.spec.num_classes, model.spec.input_shape) == (3, 3, (8, 8, 3))


def test_a_spec_survives_json():
    spec = nets.NetSpec("ResNet-20", 7, (8, 8, 3), "A'", {"conv": 9}, "single", "cifar", 0.25, "torch")
    assert nets.NetSpec.from_json(spec.to_json()) == spec
    younger = ("head", "stem", "dropout", "padding")
    old = {name: value for name, value in spec.to_json().items() if name not in younger}
    assert nets.NetSpec.from_json(old) == nets.NetSpec("ResNet-20", 7, (8, 8, 3), "A'", {"conv": 9})


def test_a_built_network_says_what_was_chosen_for_it():
    spec = nets.build("VGG-11").spec
    assert (spec.head, spec.stem, spec.padding) == ("hidden", None, "same")
