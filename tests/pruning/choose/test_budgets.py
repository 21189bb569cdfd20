"""Budgets over networks, rules and limits drawn at random: met, not wasted, within what the user allows."""

import functools

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.pruning import complexity, make_plan
from secateur.pruning.choose.budgets import Budget
from secateur.pruning.choose.ranking import structures
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.plan import Plan
from secateur.pruning.score.scores import score_groups
from secateur.pruning.shrink.weights import apply, weights_of
from secateur.runs.errors import UsageError
from tests.helpers import toys

LAYERS = keras.layers


def mixed_net() -> keras.Model:
    """Depthwise and grouped convolutions, a concatenation, squeeze and excite, a shared layer, flatten."""
    images = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(12, 3, padding="same", activation="relu", name="stem")(images)
    x = LAYERS.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    gate = LAYERS.Dense(5, activation="relu", name="squeeze")(LAYERS.GlobalAveragePooling2D()(x))
    x = LAYERS.Multiply()([x, LAYERS.Dense(12, activation="sigmoid", name="excite")(gate)])
    left = LAYERS.Conv2D(8, 1, activation="relu", name="left")(x)
    right = LAYERS.Conv2D(8, 1, activation="relu", name="right")(x)
    shared = LAYERS.Conv2D(6, 1, activation="relu", name="shared")
    x = LAYERS.Concatenate()([shared(left), left, shared(right)])
    x = LAYERS.Conv2D(8, 1, groups=2, activation="relu", name="grouped")(x)
    x = LAYERS.Conv2D(9, 3, strides=2, activation="relu", name="last")(x)
    x = LAYERS.Dense(16, activation="relu", name="hidden")(LAYERS.Flatten()(x))
    return toys.randomised(keras.Model(images, LAYERS.Dense(3, name="logits")(x), name="mixed"))


NETS = {
    "mixed": mixed_net,
    "plain": toys.plain_net,
    "projections": toys.small_resnet,
    "padded": functools.partial(toys.small_resnet, "A"),
}
built = functools.cache(lambda name: NETS[name]())


def cost(option: str, model: keras.Model, plan: Plan | None = None) -> float:
    """What an option bounds, counted by other means: on the plan, or on the weights that are left."""
    if option == "keep_bytes":
        groups = analyse(model).groups
        left = apply(weights_of(model), groups, (plan or Plan.full(groups)).masks())
        return sum(a.nbytes for arrays in left.values() for name, a in arrays.items() if name != "mask")
    count = complexity(model, plan=plan)
    return count.macs if option == "keep_macs" else count.params


def widened(model, plan: Plan, scores: dict, round_to: int):
    """The plan with one more step, of the best channels that are gone, in each group by itself."""
    for group in analyse(model).groups:
        width, kept = len(plan.keep[group.name]), plan.keep[group.name]
        order, _ = group.ranked(np.argsort(-scores[group.name], kind="stable"))
        if width < group.size:
            above = min(group.size, (width // round_to + 1) * round_to)
            yield plan.replace(group.name, {*kept, *order[:above].tolist()})


# ignored → groups that stay: "s*" are stem, squeeze and shared; depthwise carries stem's channels
WHOLE = {
    (): (),
    "stem": ("stem",),
    ("depthwise",): ("stem",),
    ("s*",): ("stem", "squeeze"),
    ("grouped", "hid*"): ("grouped", "hidden"),
}
free = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@free
@given(
    net=st.sampled_from(sorted(NETS)),
    option=st.sampled_from(["keep_macs", "keep_params", "keep_bytes"]),
    ratio=st.floats(0.15, 0.95),
    allocation=st.sampled_from(["uniform", "global", "isomorphic"]),
    round_to=st.sampled_from([1, 1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_a_budget_is_met_and_no_further_step_fits(net, option, ratio, allocation, round_to, seed):
    model = built(net)
    scores = score_groups(model, "random", seed=seed)
    options = {option: ratio, "allocation": allocation, "round_to": round_to}
    try:
        plan = make_plan(model, scores, **options)
    except UsageError as error:
        assert "out of reach" in str(error)
        return
    limit = ratio * cost(option, model)
    assert cost(option, model, plan) <= limit
    for wider in widened(model, plan, scores, round_to):
        assert cost(option, model, wider) > limit
    assert make_plan(model, scores, **options) == plan


@free
@given(
    ratio=st.floats(0.3, 0.95),
    allocation=st.sampled_from(["uniform", "global", "isomorphic"]),
    round_to=st.integers(1, 5),
    min_channels=st.integers(1, 9),
    max_drop=st.floats(0.3, 1),
    ignore=st.sampled_from(list(WHOLE)),
    seed=st.integers(0, 99),
)
def test_limits_hold(ratio, allocation, round_to, min_channels, max_drop, ignore, seed):
    model, limits = built("mixed"), {"round_to": round_to, "min_channels": min_channels, "max_drop": max_drop}
    try:
        plan = make_plan(
            model, "random", keep_macs=ratio, allocation=allocation, ignore=ignore, seed=seed, **limits
        )
    except UsageError as error:
        assert "out of reach" in str(error)
        return
    for name, width in plan.widths().items():
        size = plan.sizes[name]
        assert width % round_to == 0 or width == size
        assert width >= min(size, min_channels)
        assert size - width <= max_drop * size + 1e-9
    assert all(plan.widths()[name] == plan.sizes[name] for name in WHOLE[ignore])


@pytest.mark.parametrize("allocation", ["uniform", "global", "isomorphic"])
def test_more_is_kept_of_every_group_as_keep_grows(allocation):
    model = built("projections")
    plans = [make_plan(model, keep=k, allocation=allocation) for k in (0.2, 0.4, 0.41, 0.7, 1.0)]
    for small, large in zip(plans, plans[1:], strict=False):
        assert all(set(kept) <= set(large.keep[name]) for name, kept in small.keep.items())
    assert plans[-1].widths() == dict(plans[-1].sizes)


def test_global_keeps_the_best_channels_of_all():
    model = built("projections")
    scores = score_groups(model, "l1")
    plan = make_plan(model, scores, keep=0.6, allocation="global")
    assert sum(plan.widths().values()) == int(0.6 * sum(plan.sizes.values()))
    kept = [
        s for n, score in scores.items() for s in sorted(score[list(plan.keep[n])])[:-1]
    ]  # its best stays
    gone = [s for n, score in scores.items() for s in np.delete(score, plan.keep[n])]
    assert min(kept) >= max(gone)


def test_isomorphic_keeps_the_same_ratio_of_each_structure():
    model = toys.small_resnet("B", depth=20)
    sets = structures(analyse(model))
    assert [len(names) for names in sets] == [1, 9, 1, 1]  # stage 1, all inner convolutions, stages 2 and 3
    rng = np.random.default_rng(0)
    scores = {g.name: rng.random(g.size) * rng.uniform(1, 5) for g in analyse(model).groups}
    plan = make_plan(model, scores, keep_macs=0.4, allocation="isomorphic", fill=False)
    free_channels = [sum(plan.sizes[name] - 1 for name in names) for names in sets]
    ratios = [
        sum(len(plan.keep[name]) - 1 for name in names) / n
        for names, n in zip(sets, free_channels, strict=True)
    ]
    assert max(ratios) - min(ratios) <= 1 / min(free_channels)
    assert len({len(plan.keep[name]) / plan.sizes[name] for name in sets[1]}) > 1  # by score inside a set


@pytest.mark.parametrize("allocation", ["uniform", "global", "isomorphic"])
def test_any_cost_of_widths_can_be_a_budget(allocation):
    model, asked = built("mixed"), []
    table = {"stem": 5.0, "grouped": 1.0, "shared": 2.0, "last": 3.0, "hidden": 0.5}

    def milliseconds(widths):
        asked.append(widths)
        return 2 + sum(table.get(name, 0.1) * -(-width // 4) for name, width in widths.items())

    sizes = {group.name: group.size for group in analyse(model).groups}
    limit = 0.5 * milliseconds(sizes)
    plan = make_plan(model, budget=Budget("ms", milliseconds, limit), allocation=allocation)
    assert milliseconds(plan.widths()) <= limit
    assert len(asked) < 40 + sum(sizes.values())
    generous = make_plan(model, budget=Budget("ms", milliseconds, 1e9), allocation=allocation)
    assert generous.widths() == sizes


def test_a_criterion_that_sees_nothing_of_a_group_leaves_it_whole():
    plan = make_plan(built("plain"), "bn_scale", keep_macs=0.8, allocation="global")
    assert plan.widths()["stem"] < 6 and plan.widths()["inner"] == 5 and plan.widths()["hidden"] == 7


def without_channels() -> keras.Model:
    images = keras.Input((4, 4, 3))
    return keras.Model(images, LAYERS.Conv2D(2, 1, name="only")(images), name="bare")


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (
            "mixed",
            {"keep": 0.5, "ignore": "steam"},
            "No layer to ignore. Received: ignore='steam'. Did you mean",
        ),
        ("mixed", {"keep": 0.5, "ignore": ["stem", "b*"]}, "Received: ignore='b\\*'"),
        (
            "mixed",
            {"keep": 0.5, "min_channels": 0},
            "min_channels must be at least 1. Received: min_channels=0",
        ),
        ("mixed", {"keep": 0.5, "max_drop": 0}, "max_drop must lie in \\(0, 1\\]. Received: max_drop=0"),
        ("mixed", {"keep": 0, "allocation": "global"}, "keep must lie in .*Received: keep=0"),
        ("mixed", {"keep_bytes": 1e-4}, "the smallest net keeps 0.0.*Received: keep_bytes=0.0001 \\("),
        ("mixed", {"keep_params": 0.3, "max_drop": 0.1}, "the smallest net keeps 0.[89].*keep_params=0.3"),
        ("mixed", {"keep_macs": 1}, "keep_macs must lie in \\(0, 1\\). Received: keep_macs=1"),
        ("mixed", {"max_ms": 0}, "max_ms must be above 0. Received: max_ms=0"),
        ("mixed", {}, "Give one of keep, keep_macs, .*, budget. Received: none of them"),
        ("mixed", {"keep": 0.5, "keep_ms": 0.5}, "Give one of .*Received: keep=0.5, keep_ms=0.5"),
        ("mixed", {"keep_mac": 0.5}, "Unknown option. Received: keep_mac=0.5. Did you mean 'keep_macs'"),
        ("mixed", {"keep": 0.5, "allocation": "globl"}, "allocation='globl'. Did you mean 'global'"),
        ("mixed", {"keep": 0.5, "criterion": "bn_scale"}, "No group has.*Received: criterion='bn_scale'"),
        (
            "mixed",
            {"keep": 0.5, "criterion": {"stem": [1]}},
            "has 12 channels. Received: 1 scores for 'stem'",
        ),
        ("mixed", {"keep": 0.5, "criterion": {"x": [1]}}, "no such group. Received: 1 scores for 'x'"),
        ("mixed", {"keep": 0.5, "allocation": "sensitivity"}, "Sensitivity needs data=.*no labels"),
        (
            "bare",
            {"keep": 0.5},
            "No channel .* can be removed. Received: model 'bare': only must stay: it is an output",
        ),
    ],
)
def test_errors(net, options, message):
    with pytest.raises(UsageError, match=message):
        make_plan(without_channels() if net == "bare" else built(net), **options)


def test_of_many_layers_only_the_nearest_are_named():
    with pytest.raises(UsageError, match="ignore='zzz'") as error:
        make_plan(toys.small_resnet(depth=20), keep=0.5, ignore="zzz")
    assert len(str(error.value)) < 300


def test_a_budget_that_few_groups_must_pay_for_is_said(capfd):
    """One large convolution must stay: at 35 % of the operations the others are cut to less than a fifth."""
    images = keras.Input((16, 16, 3))
    x = LAYERS.Conv2D(64, 5, padding="same", name="large")(images)
    x = LAYERS.Conv2D(32, 1, name="a")(x)
    x = LAYERS.Conv2D(32, 3, padding="same", name="b")(x)
    model = keras.Model(images, LAYERS.Dense(3)(LAYERS.GlobalAveragePooling2D()(x)))
    plan = make_plan(model, "l1", keep_macs=0.35, ignore=["large"])
    widths = {name: len(keep) for name, keep in plan.keep.items()}
    assert widths["a"] < 32 / 5
    message = capfd.readouterr().err
    stays = 5 * 5 * 3 * 64 * 256 / (0.35 * complexity(model).macs)
    assert f"keep_macs: {stays:.0%} of the budget goes to layers that stay whole" in message
    assert f"a {widths['a']} of 32" in message
    make_plan(model, "l1", keep_macs=0.35)
    assert not capfd.readouterr().err


def test_where_nothing_can_be_removed_the_obstacle_is_named_and_not_the_classifier():
    """A layer that mixes channels stands behind the only convolution."""

    class Strange(LAYERS.Layer):
        def call(self, x):
            return keras.ops.sort(x, axis=-1)

    images = keras.Input((8, 8, 3))
    x = Strange(name="strange")(LAYERS.Conv2D(16, 3, name="conv")(images))
    model = keras.Model(
        images, LAYERS.Dense(3, name="logits")(LAYERS.GlobalAveragePooling2D()(x)), name="odd"
    )
    with pytest.raises(UsageError, match="Received: model 'odd': conv must stay: strange"):
        make_plan(model, keep=0.5)
