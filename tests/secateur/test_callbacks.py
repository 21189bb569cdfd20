"""fit with channels that are removed before it or little by little: it ends in what compact computes."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import secateur
from secateur.callbacks import Distiller, GradualPruning, HoldPruned
from secateur.pruning import Plan, find_groups, make_plan, mask
from secateur.pruning.constrain.holding import Holder, left_of
from secateur.pruning.groups.analysis import analyse
from secateur.runs import UsageError
from tests.helpers.fitting import ENTROPY, data, gap, gated
from tests.helpers.toys import plain_net, randomised, small_resnet

pytestmark = pytest.mark.runs
L, ops = keras.layers, keras.ops
EXACT = 1e-5
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "averages of weights": lambda: keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.5),
}


def compiled(model: keras.Model, optimizer="adam", **options) -> keras.Model:
    """Eagerly, since to trace a step takes longer than all steps of a test."""
    model.compile(OPTIMIZERS[optimizer](), ENTROPY, **{"run_eagerly": True, **options})
    return model


def fit(model: keras.Model, *callbacks, epochs: int = 1, **options) -> dict:
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data(), epochs=epochs, callbacks=list(callbacks), **options).history


class Note(keras.callbacks.Callback):
    """Calls a function with the number of each epoch that ends."""

    def __init__(self, tell) -> None:
        super().__init__()
        self.tell = tell

    def on_epoch_end(self, epoch, logs=None):
        self.tell(epoch)


# --- HoldPruned --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_moments_and_averages_bring_nothing_back(optimizer):
    """The optimizer has moved the channels before they are removed, and goes on."""
    model = compiled(gated(), optimizer)
    plan = make_plan(model, keep=0.5)
    fit(model)
    Holder(model, plan)
    fit(model)  # nobody holds them
    assert left_of(analyse(model)) == Plan.full(find_groups(model))
    fit(model, HoldPruned(plan))
    assert left_of(analyse(model)) == plan and gap(model, plan) < EXACT


@pytest.mark.parametrize("jit", [True, False])
def test_a_masked_model_of_stock_layers_trains_as_the_small_one(jit):
    plan = make_plan(gated(), keep=0.5)
    model = compiled(mask(gated(), plan), run_eagerly=False, jit_compile=jit)
    before = model.get_weights()
    fit(model, HoldPruned(plan), epochs=2)
    assert gap(model, plan) < EXACT
    assert max(np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)) > 0.01


def test_our_own_layers_may_be_held_too():
    plan = make_plan(small_resnet("A"), keep=0.5)
    model = compiled(mask(small_resnet("A"), plan))
    fit(model, HoldPruned(plan))
    assert gap(model, plan) < EXACT


def test_a_plan_of_a_nested_model_is_one_of_its_masked_copy():
    inside = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, name="c"), L.ReLU()], name="inside")
    images = keras.Input((8, 8, 3))
    pooled = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, name="last")(inside(images)))
    model = randomised(keras.Model(images, L.Dense(4, name="logits")(pooled)))
    plan = make_plan(model, keep=0.5)
    assert plan.sizes.keys() == {"inside/c", "last"}
    masked = compiled(mask(model, plan))
    fit(masked, HoldPruned(plan))
    assert gap(masked, plan) < EXACT
    assert make_plan(masked, keep=0.25, within=plan).widths() == {"c": 2, "last": 2}


def test_channels_that_operations_read_go_little_by_little():
    images = keras.Input((8, 8, 3))
    tokens = L.Dense(12, name="tokens")(L.Reshape((64, 3))(images))
    q, k, v = (L.Dense(12, name=name)(tokens) for name in "qkv")
    attended = ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2)), -1), v)
    scaled = attended / (1 + ops.norm(attended, axis=-1, keepdims=True))
    model = compiled(randomised(keras.Model(images, L.Dense(4)(L.GlobalAveragePooling1D()(scaled)))))
    gradual = GradualPruning(keep_macs=0.5, begin=0, end=1)
    fit(model, gradual, epochs=2)
    assert gap(model, gradual.plan) < EXACT


def test_weights_that_another_callback_writes_are_held():
    model, plan = compiled(plain_net()), make_plan(plain_net(), keep=0.5)
    dense = model.get_weights()
    restored = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: model.set_weights(dense))
    fit(model, restored, HoldPruned(plan))
    assert gap(model, plan) < EXACT


def test_a_plan_of_another_network_is_refused_before_training():
    model = compiled(plain_net())
    before = model.get_weights()
    with pytest.raises(UsageError, match="another network"):
        fit(model, HoldPruned(make_plan(gated(), keep=0.5)))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- GradualPruning ----------------------------------------------------------------------------------------


def test_the_ratios_are_those_of_zhu_and_gupta():
    """Equation 1 with s_i = 0, s_f = 0.6, t₀ = 1, n = 4, Δt = 1; the log has what an epoch ended with."""
    model, gradual = compiled(plain_net()), GradualPruning(keep=0.4, begin=1, end=5)
    found = fit(model, gradual, epochs=7, batch_size=32)["keep"]
    gone = [0.6 + (0 - 0.6) * (1 - (t - 1) / 4) ** 3 for t in (1, 2, 3, 4, 5)]
    np.testing.assert_allclose(found, [1.0, *(1 - s for s in gone), 0.4], rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"keep_macs": 0.4, "end": 3},
        {"keep_params": 0.4, "end": 6, "every": 3, "unit": "steps", "schedule": "linear"},
        {"keep": 0.4, "end": 2, "allocation": "global", "criterion": "taylor", "data": data()},
    ],
    ids=["epochs", "steps", "data"],
)
def test_it_ends_in_a_small_network_at_the_budget(options):
    model, gradual, plans = compiled(gated()), GradualPruning(**options), []
    fit(model, gradual, Note(lambda epoch: plans.append(gradual.plan)), epochs=4)
    assert gap(model, gradual.plan) < EXACT and plans[-1] == gradual.plan
    for earlier, later in zip(plans, plans[1:], strict=False):
        assert all(set(kept) <= set(earlier.keep[name]) for name, kept in later.keep.items())
    assert len({str(plan) for plan in plans}) > 1
    if "allocation" in options:
        assert sum(gradual.plan.widths().values()) == int(0.4 * sum(gradual.plan.sizes.values()))
    else:
        budget = {name: options[name] for name in options if name.startswith("keep")}
        assert gradual.plan.widths() == make_plan(gated(), **budget).widths()


def test_a_round_sees_the_weights_as_they_are_then():
    """What was smallest at first has grown by the time of the last round."""
    model = compiled(plain_net())
    small_at_first = [c for c in range(6) if c not in make_plan(model, keep=0.5).keep["stem"]]

    def grow(epoch):
        for name in ("stem", "outer"):
            kernel = model.get_layer(name).kernel
            alive = np.isin(np.arange(6), small_at_first)
            kernel.assign(np.where(alive, 100.0, 1.0) * kernel.numpy())

    gradual = GradualPruning(keep=0.5, begin=1, end=2)
    fit(model, Note(lambda epoch: epoch == 0 and grow(epoch)), gradual, epochs=3)
    assert list(gradual.plan.keep["stem"]) == small_at_first


def test_it_goes_on_from_a_masked_model():
    first = make_plan(gated(), "random", keep=0.8)
    model, gradual = compiled(mask(gated(), first)), GradualPruning(keep=0.5, end=1)
    fit(model, gradual, epochs=2)
    assert all(set(kept) <= set(first.keep[name]) for name, kept in gradual.plan.keep.items())
    assert gradual.plan.widths() == make_plan(gated(), keep=0.5).widths()


def test_the_student_of_a_distiller_is_pruned():
    distiller = Distiller(gated(), gated(), ["kd"])
    distiller.compile("adam", ENTROPY, run_eagerly=True)
    gradual = GradualPruning(keep=0.5, end=1)
    history = fit(distiller, gradual, epochs=2)
    assert gap(distiller.student, gradual.plan) < EXACT
    assert set(gradual.plan.sizes) == {group.name for group in find_groups(gated())}
    assert history["kd_loss"][1] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"end": 2}, "Give one of keep, keep_macs, keep_params, keep_bytes"),
        ({"keep": 0.5, "end": 5, "every": 2}, "divisor .*begin=0, end=5, every=2"),
        ({"keep": 0.5, "begin": 3, "end": 3}, "begin < end"),
        ({"keep": 1.5, "end": 2}, "keep=1.5"),
        ({"keep": 0.5, "end": 2, "unit": "step"}, "unit='step'.*'steps'"),
        ({"keep": 0.5, "end": 2, "schedule": "apg"}, "'agp'"),
    ],
)
def test_values_that_do_not_fit_are_refused_at_once(options, words):
    with pytest.raises(UsageError, match=words):
        GradualPruning(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_macs": 1e-6}, "out of reach"),
        ({"keep": 0.5, "roundto": 8}, "roundto=8. Did you mean 'round_to'"),
        ({"keep": 0.5, "criterion": "taylor"}, "data"),
    ],
)
def test_what_the_last_round_would_refuse_is_refused_before_the_first_step(options, words):
    model = compiled(plain_net())
    before = model.get_weights()
    with pytest.raises(UsageError, match=words):
        fit(model, GradualPruning(end=1000, **options))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_steps_need_an_epoch_of_known_length():
    def batches():
        while True:
            yield data(8)

    with pytest.raises(UsageError, match="steps_per_epoch"):
        compiled(plain_net()).fit(
            batches(), callbacks=[GradualPruning(keep=0.5, end=2, unit="steps")], verbose=0
        )


# --- resumed -----------------------------------------------------------------------------------------------


class Killed(Exception):
    """What stops a run."""


def stop(epoch, logs=None):
    if epoch == 2:
        raise Killed


STOP = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
HELD = make_plan(gated(), keep=0.5)
WAYS = {
    "held": lambda: HoldPruned(HELD),
    "epochs": lambda: GradualPruning(keep_macs=0.4, end=3, allocation="global"),
    "steps": lambda: GradualPruning(keep_macs=0.4, end=7, every=1, unit="steps", allocation="global"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(way, tmp_path: Path):
    whole, expected = compiled(gated()), WAYS[way]()
    fit(whole, expected, epochs=4)
    with pytest.raises(Killed):
        fit(compiled(gated()), WAYS[way](), keras.callbacks.BackupAndRestore(tmp_path), STOP, epochs=4)
    again, found = compiled(gated()), WAYS[way]()
    fit(again, found, keras.callbacks.BackupAndRestore(tmp_path), epochs=4)
    assert found.plan == expected.plan and found.plan != Plan.full(find_groups(again))
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


# --- divided, and found ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def divided(programs, tmp_path_factory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("fitting")
    done = programs.run("tests/helpers/fitting.py", "found.npz", cwd=folder)
    assert done.code == 0, done.err[-2000:]
    return dict(np.load(folder / "found.npz"))


@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_hold_and_prune_too(divided, replicas):
    assert divided[f"{replicas}/gradual"] < EXACT and divided[f"{replicas}/held"] < EXACT
    np.testing.assert_array_equal(divided[f"{replicas}/widths"], divided["1/widths"])


def test_a_distiller_on_two_replicas_learns_what_it_learns_on_one(divided):
    """Losses that are means over images; each replica has half of a batch. Its report, too."""
    keys = [
        key for key in divided if key.startswith("1/") and key.split("/")[1][:7] in ("history", "weights")
    ]
    assert len(keys) > 10
    for key in keys:
        np.testing.assert_allclose(divided[key.replace("1/", "2/")], divided[key], rtol=2e-5, atol=2e-6)


def test_they_are_found_by_the_name_of_the_package():
    assert secateur.callbacks.HoldPruned is HoldPruned
