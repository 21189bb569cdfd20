"""Budgets of milliseconds, on devices whose times follow a known rule."""

import importlib.metadata
import json
from functools import partial

import keras
import pytest

from secateur import functional
from secateur.exports.timing import Setup
from secateur.pruning import compact, complexity, make_plan
from secateur.pruning.choose.budgets import Budget
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.latency.fit import fit
from secateur.pruning.latency.greedy import loss_of, widths_for
from secateur.pruning.latency.layers import grid
from secateur.pruning.latency.predict import Predictor
from secateur.pruning.latency.table import Table
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.netadapt import AdaptedWidths
from secateur.runs.errors import UsageError
from tests.helpers.devices import Device
from tests.helpers.toys import plain_net, small_resnet
from tests.helpers.transformers import Windows
from tests.pruning.layers.test_attending import by_letters, layer, vit


def subject(model=None, limits=None, criterion="l1"):
    model = model or small_resnet(depth=8)
    analysis = analyse(model)
    return (
        model,
        analysis,
        Ranking.of(analysis, score_groups(model, criterion, analysis=analysis), limits or Limits()),
    )


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.3])
def test_the_network_found_takes_what_was_asked_for(keep, tmp_path):
    model, analysis, ranking = subject()
    fitted = fit(model, analysis, ranking, keep_ms=keep, setup=Device(), cache=tmp_path)
    assert fitted.best.measured == pytest.approx(keep * fitted.before, rel=0.05)
    assert fitted.before == Device().time(model)
    assert len(fitted.attempts) <= 2 + 8


@pytest.mark.parametrize("allocation", [None, "global"])
def test_plans_are_made_for_the_setup_and_kept_in_the_folder_that_are_given(allocation, tmp_path):
    model = small_resnet(depth=8)
    device, whole = Device(threads=3), Device().time(model)
    options = {"setup": device, "cache": tmp_path, "allocation": allocation}
    plan = make_plan(model, keep_ms=0.5, **options)
    assert device.time(compact(model, plan)) == pytest.approx(0.5 * whole, rel=0.05)
    assert make_plan(model, max_ms=0.5 * whole, **options) == plan
    (table,) = tmp_path.iterdir()
    assert json.loads(table.read_text())["setup"] == "litert, 3 threads, batch 1"


def test_without_single_steps_groups_of_one_size_stay_equal(tmp_path):
    options = {"keep_ms": 0.5, "setup": Device(), "cache": tmp_path}
    plan = make_plan(small_resnet(depth=8), **options, allocation="uniform", fill=False)
    widths = {(plan.sizes[name], width) for name, width in plan.widths().items()}
    assert len(widths) == len(set(plan.sizes.values())) == 3 and all(width < size for size, width in widths)
    with pytest.raises(UsageError, match="fill=False needs an allocation"):
        make_plan(small_resnet(depth=8), **options, fill=False)


def test_at_equal_time_it_keeps_more_of_the_scores_than_a_budget_of_operations(tmp_path):
    model, analysis, ranking = subject()
    fitted = fit(model, analysis, ranking, keep_ms=0.5, setup=Device(), cache=tmp_path)
    losses = {group.name: loss_of(group, ranking) for group in analysis.groups}

    def loss(plan) -> float:
        return sum(losses[name](width) for name, width in plan.widths().items())

    cost = Predictor(analysis, Table(Device(), tmp_path))
    for allocation in ("uniform", "global"):
        plans = [make_plan(model, keep_macs=k / 50, allocation=allocation) for k in range(10, 50)]
        as_fast = [plan for plan in plans if cost(plan.widths()) <= cost(fitted.best.plan.widths())]
        assert as_fast and loss(fitted.best.plan) < min(map(loss, as_fast))


def test_a_search_meets_a_budget_of_milliseconds_and_keeps_more_of_what_it_looks_for(tmp_path):
    model, analysis, ranking = subject()
    options = {"keep_ms": 0.6, "setup": Device(), "cache": tmp_path}
    known = fit(model, analysis, ranking, **options)
    first = min(ranking.sizes, key=lambda name: len(known.best.plan.keep[name]) / ranking.sizes[name])

    def accuracy(plan) -> float:
        """All that counts is the group that the rule for scores narrows most."""
        return len(plan.keep[first]) / ranking.sizes[first]

    found = fit(model, analysis, ranking, **options, choose=AdaptedWidths(ranking, accuracy))
    assert found.best.measured == pytest.approx(0.6 * found.before, rel=0.05)
    assert accuracy(found.best.plan) > accuracy(known.best.plan)


def test_no_group_could_be_wider_in_the_same_time(tmp_path):
    model, analysis, ranking = subject()
    cost = Predictor(analysis, Table(Device(), tmp_path))
    target = 0.6 * cost(ranking.sizes)
    widths = widths_for(analysis.groups, ranking, cost, target)
    assert cost(widths) <= target
    narrowed = [name for name in widths if widths[name] < ranking.sizes[name]]
    assert narrowed
    assert all(cost({**widths, name: widths[name] + 1}) > target for name in narrowed)


def test_layers_of_one_shape_are_measured_once_and_times_survive_the_process(tmp_path):
    model, analysis, ranking = subject()
    table = Table(Device(), tmp_path)
    first = Predictor(analysis, table)(ranking.sizes)
    # ResNet-8: stem, 16→16, 16→32, 32→32, 32→64, 64→64, two shortcuts, dense
    assert len(table) == 9
    table.save()
    again = Table(Device(), tmp_path)
    assert len(again) == len(table) and Predictor(analysis, again)(ranking.sizes) == first
    again.save()
    assert len(json.loads(table.path.read_text())["ms"]) == len(table)


def test_layers_of_another_type_of_numbers_are_other_layers(tmp_path):
    table, made = Table(Device(), tmp_path), []
    for dtype in ("float32", "mixed_bfloat16"):
        x = keras.Input((8,))
        y = keras.layers.Dense(16, activation="relu", dtype=dtype)(x)
        analysis = analyse(keras.Model(x, keras.layers.Dense(2, dtype=dtype)(y)))
        made.append(Predictor(analysis, table)({group.name: group.size for group in analysis.groups}))
    assert len(table) == 4 and made[0] == made[1]


def test_every_version_of_the_measured_programs_has_its_own_file(tmp_path):
    path = Table(Device(), tmp_path).path
    for program in ("tensorflow", "ai-edge-litert"):
        assert importlib.metadata.version(program) in path.name


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"ms": {"a": "b"}}', b'{"setup": "other", "ms": {"a": 1}}']
)
def test_a_cache_that_is_damaged_or_of_another_version_is_measured_again(damage, tmp_path):
    table = Table(Device(), tmp_path)
    table.path.write_bytes(damage)
    assert len(Table(Device(), tmp_path)) == 0


def test_two_processes_add_to_one_cache(tmp_path):
    one, two = Table(Device(), tmp_path), Table(Device(), tmp_path)
    for table, width in ((one, 3), (two, 5)):
        x = keras.Input((8,))
        table.milliseconds(f"dense {width}", lambda x=x, w=width: keras.Model(x, keras.layers.Dense(w)(x)))
        table.save()
    assert len(Table(Device(), tmp_path)) == 2


def test_limits_hold(tmp_path):
    limits = Limits(round_to=4, min_channels=8, ignore=("BasicBlock1*",))
    model, analysis, ranking = subject(limits=limits)
    widths = fit(model, analysis, ranking, keep_ms=0.6, setup=Device(), cache=tmp_path).best.plan.widths()
    assert all(width % 4 == 0 and width >= 8 for width in widths.values())
    assert all(widths[name] == ranking.sizes[name] for name in widths if name.startswith("BasicBlock1"))


def test_the_predictor_is_a_cost_like_any_other(tmp_path):
    model, analysis, ranking = subject(plain_net())
    cost = Predictor(analysis, Table(Device(), tmp_path))
    plan = make_plan(model, budget=Budget("ms", cost, 0.7 * cost(ranking.sizes)), allocation="global")
    assert cost(plan.widths()) <= 0.7 * cost(ranking.sizes)
    for name, size in ranking.sizes.items():
        narrower = {**ranking.sizes, name: size - 1}
        saved = cost(ranking.sizes) - cost(narrower)
        assert cost.around(name, ranking.sizes) - cost.around(name, narrower) == pytest.approx(
            saved, abs=1e-12
        )


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"max_ms": 1e-6}, "out of reach: the smallest network takes"),
        ({"keep_ms": 1.5}, "Received: keep_ms=1.5"),
        ({}, "Give one of keep_ms, max_ms. Received: none"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(budget, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        fit(*subject(plain_net()), **budget, setup=Device(), cache=tmp_path)


def test_a_model_that_is_fast_enough_stays_whole(tmp_path, capsys):
    model, analysis, ranking = subject(plain_net())
    fitted = fit(model, analysis, ranking, max_ms=1e6, setup=Device(), cache=tmp_path)
    assert fitted.best.plan.widths() == ranking.sizes
    assert "within max_ms=1e+06: all channels stay" in capsys.readouterr().err


def test_milliseconds_of_an_open_size_are_no_number(tmp_path):
    x = keras.Input((None, None, 3))
    y = keras.layers.Conv2D(8, 3, activation="relu")(x)
    model = keras.Model(x, keras.layers.Conv2D(4, 3)(y))
    for option in ("keep_ms", "max_ms"):
        with pytest.raises(UsageError, match="milliseconds need fixed sizes. Received: 'conv2d.*None, None"):
            make_plan(model, **{option: 0.5}, cache=tmp_path)


@pytest.mark.parametrize(("options", "said"), [({"backend": "gpu"}, "litert"), ({"batch": 0}, "batch=0")])
def test_a_setup_that_does_not_exist_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        Setup(**options)


def test_grids_end_at_the_full_width():
    assert (grid(3), grid(16), grid(64)) == ([3], [8, 16], [8, 16, 24, 32, 40, 48, 56, 64])
    assert grid(100) == [16, 32, 48, 64, 80, 96, 100]


@pytest.mark.parametrize("backend", ["litert", "frozen"])
def test_real_devices_time_every_kind_of_layer(backend, tmp_path):
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3))
    x = layers.SeparableConv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2D(8, 3, groups=4, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(8, 2, strides=2)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layers.Dense(8, activation="relu")(x))))
    analysis = analyse(model)
    table = Table(Setup(backend, threads=0), tmp_path)
    cost = Predictor(analysis, table)
    sizes = {group.name: group.size for group in analysis.groups}
    assert cost(sizes) > 0 and len(table) == 7
    assert cost({name: size // 2 for name, size in sizes.items()}) > 0 and len(table) > 7


class Counter(Setup):
    """1e5 multiply-accumulates in a millisecond, and nothing else takes any time."""

    def milliseconds(self, models, seconds=1.0):
        return {name: complexity(model).macs / 1e5 for name, model in models.items()}


TRANSFORMERS = (
    partial(vit, layer), partial(vit, by_letters), partial(functional, Windows(), (8, 8, 3)),
)  # fmt: skip


@pytest.mark.parametrize("make", TRANSFORMERS)
def test_a_transformer_takes_the_time_of_its_products(make, tmp_path):
    model = make()
    analysis = analyse(model)
    predict = Predictor(analysis, Table(Counter(), tmp_path))
    whole = {group.name: group.size for group in analysis.groups}
    assert predict(whole) == pytest.approx(complexity(model).macs / 1e5)
    assert predict.touching.keys() == whole.keys()
    plan = make_plan(model, keep_ms=0.5, setup=Counter(), cache=tmp_path)
    assert complexity(model, plan=plan).macs == pytest.approx(0.5 * complexity(model).macs, rel=0.05)
