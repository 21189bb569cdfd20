"""The scorer of plans agrees with the networks that the plans leave."""

import numpy as np
import pytest
import toys

from op_utils import make_reestimator, reestimate_batch_norm
from pruning import Plan, compact, narrow
from pruning.groups import analyse
from pruning.trial import PlanScorer
from runs.errors import UsageError

IMAGES = toys.images(40)
LABELS = np.arange(40) % 10


def norm(labels, outputs):
    """A number that shows any change of the outputs."""
    return np.abs(np.asarray(outputs) * np.linspace(1, 2, outputs.shape[1])).mean()


def plans_of(model, count=4):
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


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_mended_statistics_are_those_of_the_narrow_network(shortcut):
    model = toys.small_resnet(shortcut)
    score = PlanScorer(model, (IMAGES, LABELS), mend=mended, metric=norm)
    plans = plans_of(model, 2)
    found = [score(plan) for plan in (*plans, plans[0])]
    for plan, value in zip(plans, found, strict=False):
        small = narrow(model, plan)  # of the same layers: those of Keras count the variance over n, not n − 1
        plain = norm(LABELS, small(IMAGES, training=False).numpy())
        reestimate_batch_norm(small, lambda x: x, IMAGES, 20)
        assert value == pytest.approx(norm(LABELS, small(IMAGES, training=False).numpy()), rel=1e-3)
        assert value != pytest.approx(plain, rel=1e-2)
    assert found[2] == pytest.approx(found[0], rel=1e-6)  # a plan leaves nothing behind for the next


def test_bad_values_are_refused():
    model = toys.plain_net()
    with pytest.raises(UsageError, match="no labels"):
        PlanScorer(model, IMAGES)
    with pytest.raises(UsageError, match="another network"):
        PlanScorer(model, (IMAGES, LABELS))(Plan({"foreign": (0,)}, {"foreign": 2}))
