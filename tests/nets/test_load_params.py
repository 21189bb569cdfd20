"""Snapshots in and out of networks, published ones included; what does not fit names its array."""

import dataclasses

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.pruning import find_groups, make_plan, narrow
from secateur.runs import Snapshot, SnapshotError, load_snapshot, save_snapshot

BATCH = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def randomised(shortcut="B", arch="ResNet-14", classes=10):
    model = nets.build(arch, shortcut=shortcut, input_shape=(16, 16, 3), num_classes=classes)
    rng = np.random.default_rng(3)
    for variable in nets.variables(model).values():
        variable.assign(rng.uniform(0.1, 0.4, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return randomised()


@pytest.fixture(scope="module")
def snapshot(model):
    return nets.snapshot_of(model)


def with_arrays(snapshot, **changes):
    """A copy in which `None` removes an array."""
    arrays = {**snapshot.arrays, **{k: v for k, v in changes.items() if v is not None}}
    return dataclasses.replace(
        snapshot, arrays={k: v for k, v in arrays.items() if changes.get(k, 0) is not None}
    )


def test_the_published_pickle_is_a_resnet56_with_projections(data_dir):
    path = data_dir / "weights" / "ekg_res56_cifar10.pkl"
    arrays = load_snapshot(path).arrays
    spec = nets.spec_from_arrays(arrays)
    assert (spec.arch, spec.shortcut, spec.num_classes) == ("ResNet-56", "B", 10)
    model = nets.load_params(None, path)
    assert sum(v.numpy().size for v in nets.variables(model).values()) == 860_026
    for name, variable in nets.variables(model).items():
        np.testing.assert_array_equal(variable.numpy().ravel(), arrays[name].ravel())


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_snapshot_load_snapshot_is_the_identity_for_narrow_nets(shortcut, tmp_path):
    wide = randomised(shortcut)
    small = narrow(wide, make_plan(wide, "random", keep=0.6, seed=5))
    first = nets.snapshot_of(small, {"accuracy": 0.5})
    save_snapshot(tmp_path / "a.pkl", first)
    again = nets.load_params(None, tmp_path / "a.pkl")
    second = nets.snapshot_of(again, {"accuracy": 0.5})
    assert second.spec == first.spec and list(second.arrays) == list(first.arrays)
    assert all(np.array_equal(second.arrays[name], first.arrays[name]) for name in first.arrays)
    np.testing.assert_array_equal(again(BATCH), small(BATCH))
    save_snapshot(tmp_path / "b.pkl", second)
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_widths_are_read_off_a_file_without_a_description(model):
    small = narrow(model, make_plan(model, keep=0.5))
    bare = dataclasses.replace(nets.snapshot_of(small), spec=None)
    again = nets.load_params(None, bare)
    assert [g.size for g in find_groups(again)] == [g.size for g in find_groups(small)]


def test_a_missing_array_is_named(snapshot, model):
    name = "BasicBlock1.0/conv3/kernel:0"
    with pytest.raises(SnapshotError, match=f"mine: array '{name}' is missing"):
        nets.load_params(model, with_arrays(snapshot, **{name: None}), "mine")


def test_an_array_too_many_is_named(snapshot, model):
    extra = with_arrays(snapshot, **{"conv9/kernel:0": np.zeros(3, np.float32)})
    with pytest.raises(SnapshotError, match="no weight 'conv9/kernel:0'"):
        nets.load_params(model, extra)


def test_a_wrong_shape_is_named_and_nothing_is_loaded(snapshot, model):
    before = model.get_layer("conv").kernel.numpy()
    wrong = {"conv/kernel:0": snapshot.arrays["conv/kernel:0"] + 1, "fc/biases:0": np.zeros(11, np.float32)}
    with pytest.raises(
        SnapshotError, match=r"'fc/biases:0' does not fit.*Received: shape=\(11,\), expected \(10,\)"
    ):
        nets.load_params(model, with_arrays(snapshot, **wrong))
    np.testing.assert_array_equal(model.get_layer("conv").kernel.numpy(), before)


def test_widths_that_contradict_each_other_are_an_error_of_the_file(snapshot):
    name = "BasicBlock0.1/conv1/kernel:0"
    cut = dataclasses.replace(with_arrays(snapshot, **{name: snapshot.arrays[name][..., :15]}), spec=None)
    with pytest.raises(SnapshotError, match="BasicBlock0.1/"):
        nets.load_params(None, cut)


@pytest.mark.parametrize(
    "spec",
    [
        {"arch": "ResNet-14"},
        {"arch": "ResNet-21", "input_shape": [16, 16, 3], "widths": {}},
        {"arch": "ResNet-14", "input_shape": [16, 16, 3], "widths": {}, "colour": "red"},
        {"arch": "ResNet-14", "input_shape": 16, "widths": {}},
    ],
)
def test_a_spec_of_no_network_is_an_error_of_the_file(snapshot, spec):
    with pytest.raises(SnapshotError, match="^mine: "):
        nets.load_params(None, dataclasses.replace(snapshot, spec=spec), "mine")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"w": np.zeros(3)},
        {"conv/kernel:0": np.zeros((3, 3, 3, 16)), "fc/kernel:0": np.zeros(())},
        {
            "conv/kernel:0": np.zeros((3, 3, 3, 16)),
            "BasicBlock0.0/conv1/kernel:0": np.zeros((3, 3, 16, 16)),
            "fc/kernel:0": np.zeros((64, 10)),
        },
    ],
)
def test_a_foreign_file_is_not_a_network(arrays):
    with pytest.raises(SnapshotError, match="^mine: .*Received: "):
        nets.load_params(None, Snapshot(arrays), "mine")


def test_another_network_does_not_fit(snapshot):
    with pytest.raises(SnapshotError, match="Received: shape="):
        nets.load_params(randomised(classes=7), snapshot)
    with pytest.raises(SnapshotError, match="is missing"):
        nets.load_params(randomised(arch="ResNet-32"), snapshot)


def test_our_layers_survive_a_keras_file(tmp_path, model):
    small = narrow(model, make_plan(model, keep=0.7))
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    for one, other in zip(small.variables, again.variables, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(again(BATCH), small(BATCH))
