"""The scorer of plans agrees with the networks that the plans leave."""

import keras
import numpy as np
import pytest

from secateur.op_utils import make_reestimator, reestimate_batch_norm
from secateur.pruning import Plan, compact, narrow
from secateur.pruning.choose.ranking import Limits
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.annealing import Annealer
from secateur.pruning.search.annealing_state import AnnealingSettings
from secateur.pruning.search.netadapt import NetAdapt
from secateur.pruning.search.trial import PlanScorer
from secateur.runs.errors import UsageError
from tests.helpers import spaces, toys

LAYERS = keras.layers
IMAGES = toys.images(40)
LABELS = np.arange(40) % 4


def norm(labels, outputs):
    """A number that shows any change of the outputs."""
    return np.abs(np.asarray(outputs) * np.linspace(1, 2, outputs.shape[1])).mean()


def plans_of(model, count=2):
    groups = analyse(model).groups
    return [toys.random_plan(groups, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("net", ["A", "B", "plain"])
def test_a_plan_scores_what_its_compact_network_does(net):
    model = toys.plain_net() if net == "plain" else toys.small_resnet(net)
    before = [np.array(w) for w in model.get_weights()]
    score, shape = (
        PlanScorer(model, (IMAGES, LABELS), batch_size=16),
        PlanScorer(model, (IMAGES, LABELS), metric=norm),
    )
    for plan in plans_of(model):
        logits = compact(model, plan)(IMAGES, training=False).numpy()
        assert score(plan) == pytest.approx(np.mean(logits.argmax(1) == LABELS))
        assert shape(plan) == pytest.approx(norm(LABELS, logits), rel=1e-4)
    assert score._gated._forward.experimental_get_tracing_count() == 1
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def mended(model):
    reestimate = make_reestimator(model, lambda x: x)
    return lambda: reestimate(IMAGES, 20)


def nested():
    """Two layers of one name, one of them inside a model of its own."""
    inner = keras.Input((8, 8, 6))
    x = LAYERS.BatchNormalization(name="bn")(LAYERS.Conv2D(8, 3, name="conv")(inner))
    block = keras.Model(inner, LAYERS.ReLU()(x), name="block")
    images = keras.Input((8, 8, 3))
    x = LAYERS.ReLU()(LAYERS.Conv2D(6, 3, padding="same", name="conv")(images))
    x = LAYERS.GlobalAveragePooling2D()(block(x))
    return toys.randomised(keras.Model(images, LAYERS.Dense(10)(x)))


def useless_branch():
    """A residual network whose branch, by its last kernel, adds nothing."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(16, 3, activation="relu", padding="same", name="stem")(images)
    y = LAYERS.Conv2D(16, 3, activation="relu", padding="same", name="useless")(x)
    y = LAYERS.Conv2D(16, 1, kernel_initializer="zeros", name="last")(y)
    x = LAYERS.Conv2D(16, 3, activation="relu", name="useful")(LAYERS.Add()([x, y]))
    return keras.Model(images, LAYERS.Dense(10)(LAYERS.Flatten()(x)))


@pytest.mark.parametrize("net", ["A", "nested"])
def test_mended_statistics_are_those_of_the_narrow_network(net):
    model = nested() if net == "nested" else toys.small_resnet(net)
    score = PlanScorer(model, (IMAGES, LABELS), prepare=mended, metric=norm)
    plans = plans_of(model)
    found = [score(plan) for plan in (*plans, plans[0])]
    for plan, value in zip(plans, found, strict=False):
        small = narrow(model, plan)  # of the same layers: those of Keras count the variance over n, not n − 1
        plain = norm(LABELS, small(IMAGES, training=False).numpy())
        reestimate_batch_norm(small, lambda x: x, IMAGES, 20)
        assert value == pytest.approx(norm(LABELS, small(IMAGES, training=False).numpy()), rel=1e-3)
        assert value != pytest.approx(plain, rel=1e-2)
    assert found[2] == pytest.approx(found[0], rel=1e-6)  # a plan leaves nothing behind for the next


def test_searches_on_real_accuracies_empty_the_branch_that_adds_nothing():
    model = useless_branch()
    analysis = analyse(model)
    labels = model(IMAGES, training=False).numpy().argmax(1)
    scores = score_groups(model, "l1", analysis=analysis)
    space = spaces.space_in(analysis, scores, "keep_macs", 0.7, Limits(max_drop=0.9))
    score = PlanScorer(model, (IMAGES, labels), analysis=analysis)
    history = list(NetAdapt(space, score, 0.1).run())
    assert [one.group for one in history[1:]] == ["useless"] * (len(history) - 1)
    assert [one.accuracy for one in history] == [1.0] * len(history)
    annealer = Annealer(space, score, AnnealingSettings(tries=8))
    states = list(annealer.run(annealer.start(np.random.default_rng(0))))
    best = states[-1].best
    assert best.accuracy == score(best.plan) == max(s.last.accuracy for s in states)


def test_bad_values_are_refused():
    model = toys.plain_net()
    with pytest.raises(UsageError, match="no labels"):
        PlanScorer(model, IMAGES)
    with pytest.raises(UsageError, match="another network"):
        PlanScorer(model, (IMAGES, LABELS))(Plan({"foreign": (0,)}, {"foreign": 2}))
