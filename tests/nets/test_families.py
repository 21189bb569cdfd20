"""Facts that hold for every family: groups cover it, masked = compact, plain layers and snapshots reload."""

import dataclasses

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.nets.registry import FAMILIES
from secateur.pruning import Plan, compact, mask, narrow
from secateur.pruning.groups.analysis import analyse
from secateur.runs import load_snapshot, save_snapshot

# A small network of each layout; what is missing here fails the first test.
SMALL = {
    "resnet": {"arch": "ResNet-20", "shortcut": "A'", "padding": "torch"},
    "preresnet": {"arch": "PreResNet-20", "padding": "torch"},
    "wrn": {"arch": "WRN-10-2", "dropout": 0.3},
    "vgg": {"arch": "VGG-11"},
    "vgg single": {"arch": "VGG-11", "head": "single"},
    "resnet_imagenet": {"arch": "ResNet-18", "padding": "torch"},
    "resnet_imagenet cifar": {"arch": "ResNet-18", "stem": "cifar"},
    "resnet_imagenet bottleneck": {"arch": "ResNet-50"},
    "mobilenet_v2": {"arch": "MobileNet-v2", "padding": "torch"},
}
SIDE = 16
BATCH = np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def test_every_family_is_among_these():
    assert {name.split()[0] for name in SMALL} == set(FAMILIES)


SLOW = {"resnet_imagenet bottleneck"}  # 16 blocks, 23 million weights


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in SMALL]
)
def case(request):
    """(network, analysis, a random plan)"""
    model = nets.build(**SMALL[request.param], num_classes=7, input_shape=(SIDE, SIDE, 3))
    rng = np.random.default_rng(1)
    for variable in nets.variables(model).values():
        shape, positive = tuple(variable.shape), variable.name in ("gamma", "moving_variance")
        drawn = rng.uniform(0.5, 1.5, shape) if positive else rng.normal(0, 0.2, shape)
        scale = np.sqrt(25 / np.prod(shape[:-1])) if variable.name == "kernel" else 1
        variable.assign(scale * drawn)
    analysis = analyse(model)
    keep = {
        g.name: tuple(g.best(rng.permutation(g.size), int(rng.integers(g.size // 4, g.size))).tolist())
        for g in analysis.groups
    }
    return model, analysis, Plan(keep, {g.name: g.size for g in analysis.groups})


def test_groups_cover_all_that_makes_channels_but_the_logits(case):
    model, analysis, _ = case
    members = {m.layer for group in analysis.groups for m in group.members if m.role != "consumer"}
    assert {layer.name for layer in model.layers if layer.weights} - members == {"fc"}


def test_masked_and_compact_agree_and_the_compact_one_reloads_as_plain_keras(case, tmp_path):
    model, _, plan = case
    small = compact(model, plan)
    expected = np.asarray(mask(model, plan)(BATCH))
    assert np.ptp(expected) > 1e-2 and small.count_params() < model.count_params()
    np.testing.assert_allclose(small(BATCH), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert {type(layer).__module__.partition(".")[0] for layer in small.layers} == {"keras"}
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras", custom_objects={})
    np.testing.assert_array_equal(again(BATCH), small(BATCH))


def test_snapshots_of_narrow_nets_are_loaded_bit_by_bit(case, tmp_path):
    model, _, plan = case
    small = narrow(model, plan)
    first = nets.snapshot_of(small)
    save_snapshot(tmp_path / "a.pkl", first)
    again = nets.load_params(None, tmp_path / "a.pkl")
    assert again.spec == small.spec and again.spec.widths != model.spec.widths
    assert dataclasses.replace(again.spec, widths={}) == model.spec
    np.testing.assert_array_equal(again(BATCH), small(BATCH))
    save_snapshot(tmp_path / "b.pkl", nets.snapshot_of(again))
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()
    assert load_snapshot(tmp_path / "a.pkl").spec == small.spec.to_json()
