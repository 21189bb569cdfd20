"""Soft pruning: filters are zeroed between epochs; SFP's come back, FPGM's do not."""

import keras
import numpy as np
import pytest

from secateur.distillation import labels_only
from secateur.op_utils import Trainer
from secateur.pruning import Plan, find_groups, make_plan
from secateur.pruning.constrain.gradients import hold_filters
from secateur.pruning.constrain.soft import nonzero_channels, soft_pruning, soften
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net, randomised, small_resnet


def plan_without(model: keras.Model, dropped: dict[str, set[int]]) -> Plan:
    plan = Plan.full(find_groups(model))
    for group, channels in dropped.items():
        plan = plan.replace(group, set(plan.keep[group]) - channels)
    return plan


def test_only_the_filters_of_dropped_channels_become_zero():
    model = plain_net()
    before = {v.path: v.numpy() for v in model.variables}
    soften(model, plan_without(model, {"stem": {1, 4}, "inner": {0}}))
    expected = dict(before)
    # stem and outer are added up: they make the same channels
    for layer, channels in (("stem", [1, 4]), ("outer", [1, 4]), ("inner", [0])):
        alive = ~np.isin(np.arange(before[f"{layer}/kernel"].shape[-1]), channels)
        expected[f"{layer}/kernel"] = before[f"{layer}/kernel"] * alive
    for variable in model.variables:
        np.testing.assert_array_equal(variable.numpy(), expected[variable.path], err_msg=variable.path)


def test_masked_layers_keep_their_masks_open():
    model = small_resnet()
    soften(model, plan_without(model, {"conv": {0, 5}}))
    norms = np.abs(model.get_layer("conv").kernel.numpy()).sum((0, 1, 2))
    assert np.flatnonzero(norms == 0).tolist() == [0, 5]
    assert all((v.numpy() == 1).all() for v in model.variables if v.name == "mask")


def test_of_a_depthwise_block_the_layers_that_make_channels_are_softened():
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 1, name="wide")(inputs)
    x = layers.DepthwiseConv2D(3, name="deep")(x)
    x = layers.Conv2D(3, 1, name="narrow")(layers.ReLU()(x))
    model = randomised(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    soften(model, plan_without(model, {"wide": {2}}))
    zero = {v.path: np.flatnonzero((v.numpy() == 0).all((0, 1))) for v in model.variables if v.ndim == 4}
    assert (model.get_layer("wide").kernel.numpy()[..., 2] == 0).all()
    assert all(len(found) == 0 for path, found in zero.items() if path != "wide/kernel")


def test_a_plan_of_another_network_is_refused():
    with pytest.raises(UsageError, match="another network"):
        soften(plain_net(), Plan.full(find_groups(small_resnet())))


def dead(model: keras.Model) -> np.ndarray:
    kernel = model.get_layer("stem").kernel.numpy()
    return np.abs(kernel).max((0, 1, 2)) == 0


def epochs(model: keras.Model, held: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Dead filters of the stem (after a selection, before the next one), epoch by epoch."""
    adjust = hold_filters(model) if held else None
    trainer = Trainer(model, lambda b, s: b["images"], labels_only, weight_decay=1e-3, adjust=adjust)
    choose = soft_pruning(model, lambda m: make_plan(m, "l2", keep=0.5))
    if held:
        choose(1)
    batch, seen = {"images": images(16), "labels": np.arange(16, dtype=np.int32) % 4}, []
    for epoch in range(3):
        start = dead(model)
        list(trainer.train([batch] * 4, [(epoch, i) for i in range(4)], [0.02] * 4))
        seen.append((start, dead(model)))
        if not held:
            choose(epoch + 1)
    return [*seen, (dead(model), dead(model))]


@pytest.mark.parametrize("make", [plain_net, lambda: randomised(masked_net())])
def test_soft_filters_come_back_before_the_next_selection(make):
    seen = epochs(make(), held=False)
    assert [start.sum() for start, _ in seen] == [0, 3, 3, 3]
    assert [end.sum() for _, end in seen[:3]] == [0, 0, 0]


@pytest.mark.parametrize("make", [plain_net, lambda: randomised(masked_net())])
def test_held_filters_never_come_back(make):
    seen = epochs(make(), held=True)
    assert [start.sum() for start, _ in seen] == [3, 3, 3, 3]
    for start, end in seen:
        np.testing.assert_array_equal(start, end)


def test_a_channel_is_dead_when_all_of_its_filters_are():
    """Channel 0 of the sum is still made by the other branch."""
    model = plain_net()
    for layer, channels in (("stem", [0, 2]), ("outer", [2])):
        value = model.get_layer(layer).kernel.numpy()
        value[..., channels] = 0
        model.get_layer(layer).kernel.assign(value)
    found = nonzero_channels(model)
    assert found["stem"].tolist() == [True, True, False, True, True, True] and found["inner"].all()


def masked_net() -> keras.Model:
    from secateur.nets import FusedBatchNorm, MaskedConv2D, MaskedDense

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(FusedBatchNorm(name="bn")(MaskedConv2D(6, name="stem")(inputs)))
    x = keras.layers.ReLU()(FusedBatchNorm(name="bn2")(MaskedConv2D(6, name="second")(x)))
    return keras.Model(inputs, MaskedDense(4, name="logits")(keras.layers.GlobalAveragePooling2D()(x)))


def test_it_selects_every_so_many_epochs_and_after_the_last():
    model, asked = plain_net(), []

    def choose(net: keras.Model) -> Plan:
        asked.append(net)
        return Plan.full(find_groups(net))

    after_epoch = soft_pruning(model, choose, every=3, epochs=7)
    calls = []
    for done in range(1, 8):
        after_epoch(done)
        calls.append(len(asked))
    assert calls == [0, 0, 1, 1, 1, 2, 3] and asked == [model] * 3
    with pytest.raises(UsageError, match="Received: every=0"):
        soft_pruning(model, choose, every=0)
