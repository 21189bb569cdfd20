"""Any functional network, any plan: masked = compact = counted = reloaded, and the original as it was."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies

from secateur.nets.graph import trace
from secateur.pruning import compact, complexity, find_groups, mask
from secateur.pruning.groups.analysis import analyse
from tests.helpers import random_nets, random_steps, toys

TOLERANCE = 1e-4
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
SEEDS = strategies.integers(0, 999)


def outputs(model: keras.Model, batch: list) -> list[np.ndarray]:
    made = model(batch if len(batch) > 1 else batch[0], training=False)
    return [np.asarray(y) for y in keras.tree.flatten(made)]


def assert_close(these: list, those: list) -> None:
    assert [a.shape for a in these] == [b.shape for b in those]
    for a, b in zip(these, those, strict=True):
        assert np.max(np.abs(a - b)) <= TOLERANCE * max(np.max(np.abs(a)), 1e-3)


def assert_same_names(paths: list[str], names: list[str]) -> None:
    """Layers of nested models lose the names of these models where that leaves no doubt."""
    assert len(paths) == len(names) == len(set(names))
    for path in paths:
        assert {path, path.rpartition("/")[2], path.replace("/", "_")} & set(names)


def check(net: tuple, seed: int, folder=None) -> None:
    """All that holds for one network and one random plan."""
    model, rng = random_nets.build(*net, seed), np.random.default_rng(seed)
    batch = random_nets.batch_of(model, rng)
    before = outputs(model, batch)
    assume(all(np.isfinite(y).all() for y in before))
    plan = toys.random_plan(find_groups(model), rng)
    masked, small = outputs(mask(model, plan), batch), compact(model, plan)
    assert_close(masked, outputs(small, batch))
    assert all(np.array_equal(a, b) for a, b in zip(before, outputs(model, batch), strict=True))

    assert all(type(layer).__module__.startswith("keras.") for layer in small.operations)
    assert_same_names(list(trace(model).layers), [layer.name for layer in small.operations])
    counts = {rule: complexity(model, rule, plan) for rule in ("mac", "ekg")}
    assert counts["ekg"].params == small.count_params()
    for rule, count in counts.items():
        again = complexity(small, rule)
        assert (again.params, again.macs) == (count.params, count.macs)
    if folder:
        small.save(folder / "small.keras")
        assert_close(masked, outputs(keras.models.load_model(folder / "small.keras"), batch))


WHOLE = {  # the steps behind which channels must stay, and why
    ("dense", 3): "softmax", ("broadcast", 3): "is broadcast", ("permuted", 3): "reduces over channels",
    **{("mixer", n): "along another axis" for n in (1, 2, 3)},
}  # fmt: skip
OF_TOKENS = ("attention", "attended", "tokens", "mixer", "self_attention")


def test_one_step_leaves_whole_only_what_it_must():
    found = {}
    for step in random_steps.MOVES:
        for n in (1, 2, 3):
            model = random_nets.build(1 if step in OF_TOKENS else 2, ((step, 0, 0, n),))
            for row in analyse(model).untouched:
                if row.layers != ("logits",):
                    found[step, n] = row.reason
    assert found.keys() == WHOLE.keys()
    assert all(WHOLE[key] in reason for key, reason in found.items())


def hold(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=SLOW)


@hold(60)
@given(random_nets.nets(), SEEDS)
def test_masked_is_compact_is_counted(net, seed):
    check(net, seed)


@hold(15)
@given(random_nets.nets(), SEEDS)
def test_a_compact_model_survives_its_file(tmp_path_factory, net, seed):
    check(net, seed, tmp_path_factory.mktemp("net"))


@pytest.mark.slow
@hold(1500)
@given(random_nets.nets(), SEEDS)
def test_many_more(net, seed):
    check(net, seed)
