"""Plans inside of an earlier one: nothing comes back, and budgets are still those of the whole network."""

import keras
import numpy as np
import pytest

from secateur.pruning import Plan, complexity, find_groups, make_plan, narrow, score_groups
from secateur.runs import UsageError
from tests.helpers.toys import images, randomised, small_resnet
from tests.helpers.user_models import transfer


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_resnet("B", depth=8, side=8)


def inside(plan: Plan, outer: Plan) -> bool:
    return all(set(kept) <= set(outer.keep[name]) for name, kept in plan.keep.items())


@pytest.mark.parametrize("allocation", ["uniform", "global", "isomorphic"])
@pytest.mark.parametrize("criterion", ["l1", "fpgm"])
def test_nothing_comes_back_and_the_budget_is_that_of_the_whole_network(model, criterion, allocation):
    options = {"criterion": criterion, "allocation": allocation}
    outer = make_plan(model, "random", keep_macs=0.7)
    plan = make_plan(model, keep_macs=0.5, within=outer, **options)
    assert inside(plan, outer) and plan.sizes == outer.sizes
    assert 0.48 < complexity(model, plan=plan).macs / complexity(model).macs <= 0.5
    assert make_plan(model, keep_macs=0.8, within=plan, **options) == plan


@pytest.mark.parametrize("budget", [{"keep": 0.4}, {"keep_macs": 0.4}, {"keep_params": 0.4}])
def test_uniform_widths_do_not_depend_on_the_way_to_them(model, budget):
    """No rounding adds up: over 0.9 and 0.7 of the channels to the widths of one round."""
    plan = None
    for keep in (0.9, 0.7):
        plan = make_plan(model, keep=keep, within=plan)
    assert make_plan(model, within=plan, **budget).widths() == make_plan(model, **budget).widths()


def test_a_criterion_sees_the_network_that_is_left(model):
    """Else FPGM's distances would count those to filters that are zero."""
    outer = make_plan(model, "random", keep=0.7)
    scores = score_groups(narrow(model, outer), "fpgm")
    plan = make_plan(model, "fpgm", keep=0.4, within=outer)
    for name, kept in plan.within(outer).keep.items():
        assert set(kept) == set(np.argsort(-scores[name], kind="stable")[: len(kept)].tolist())


def test_gradients_are_those_of_the_loss_that_the_model_was_compiled_with():
    x = keras.Input((8, 8, 3))
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(12, 3, activation="relu", name="conv")(x))
    model = randomised(keras.Model(x, keras.layers.Dense(3)(y)))
    options = {"keep": 0.4, "within": make_plan(model, keep=0.7)}
    options["data"] = (images(16), np.random.default_rng(0).integers(0, 2, (16, 3)))
    found = {
        loss: make_plan(model, "taylor", loss=loss, **options) for loss in ("mse", "binary_crossentropy")
    }
    assert len(set(map(str, (plan.keep for plan in found.values())))) == 2
    for loss, plan in found.items():
        model.compile(loss=loss)
        assert make_plan(model, "taylor", **options) == plan


def test_scores_of_the_whole_network_are_taken_as_they_are(model):
    outer = make_plan(model, "random", keep=0.7)
    scores = {group.name: -np.arange(group.size, dtype=float) for group in find_groups(model)}
    plan = make_plan(model, scores, keep=0.3, within=outer)
    assert all(kept == outer.keep[name][: len(kept)] for name, kept in plan.keep.items())


def test_a_model_within_a_model_goes_on_under_its_own_names():
    model = randomised(transfer())
    outer = make_plan(model, keep=0.7)
    plan = make_plan(model, keep=0.4, within=outer)
    assert "backbone/conv" in plan.keep and inside(plan, outer)
    assert plan.widths() == make_plan(model, keep=0.4).widths()


def test_groups_that_the_criterion_does_not_see_stay_as_they_are():
    """BN's scale says nothing of channels without BN."""
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(6, 3, name="bare")(x)
    y = keras.layers.BatchNormalization()(keras.layers.Conv2D(6, 3, name="normed")(y))
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(y)))
    outer = Plan.full(find_groups(model)).replace("bare", [2, 5]).replace("normed", [0, 1, 4, 5])
    plan = make_plan(model, "bn_scale", keep=0.5, within=outer)
    assert plan.keep["bare"] == (2, 5) and plan.widths()["normed"] == 3


def test_what_does_not_fit_is_refused(model):
    outer = make_plan(model, keep=0.5)
    with pytest.raises(UsageError, match="keep_ms=0.5, within"):
        make_plan(model, keep_ms=0.5, within=outer)
    with pytest.raises(UsageError, match="another network"):
        make_plan(transfer(), keep=0.5, within=outer)
