"""What every criterion promises, ours and a user's, by decorator or by an installed package."""

import numpy as np
import pytest

from secateur.pruning.score.registry import CRITERIA, criterion, get_criterion, list_criteria
from secateur.runs.errors import UsageError

N, DEAD = 7, 4  # channels; the one that does nothing
OURS = list_criteria()
DETERMINISTIC = [name for name in OURS if "rng" not in get_criterion(name).inputs]
USERS = ["by_decorator", "by_entry_point"]
SIGNED = {"movement"}  # below 0 for what moves towards zero, which is worse than what is zero already


def arrays(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of a criterion; channel `DEAD` has no weight, gradient, scale or activation."""
    rng = np.random.default_rng(seed)
    made = {
        "filters": rng.normal(size=(N, 40)),
        "gradients": rng.normal(size=(N, 40)),
        "fisher": rng.uniform(size=(N, 40)),
        "hessian": rng.uniform(size=(N, 40)),  # as at a minimum of the loss
        "jacobian": rng.uniform(size=(N, 40)),
        "gamma": rng.normal(size=N),
        "activations": np.maximum(rng.normal(size=(5, 6, N)), 0),
        "activation_gradients": rng.normal(size=(5, 6, N)),
    }
    found = {key: made[key].astype(np.float32) for key in get_criterion(name).inputs if key != "rng"}
    for key, array in found.items():
        array[(..., DEAD) if key.startswith("activation") else DEAD] = 0
    return found


def score(name: str, inputs: dict[str, np.ndarray], seed: int = 3) -> np.ndarray:
    more = {"rng": np.random.default_rng(seed)} if "rng" in get_criterion(name).inputs else {}
    return get_criterion(name).score(**inputs, **more)


@pytest.fixture
def users(monkeypatch, tmp_path):
    """Two criteria of a user's: one registered here, one offered by a package on the path."""
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))

    @criterion(name="by_decorator", normalise="max")
    def largest(filters):
        return np.abs(filters).max(1)

    about = tmp_path / "my_criteria-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-criteria\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[secateur.criteria]\nby_entry_point = my_criteria:saliency\n")
    (tmp_path / "my_criteria.py").write_text(
        "import numpy as np\n\n\n"
        "def saliency(filters, gradients):\n"
        "    return np.abs((filters * gradients).sum(1))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


every = pytest.mark.parametrize("name", [*OURS, *USERS])
deterministic = pytest.mark.parametrize("name", [*DETERMINISTIC, *USERS])


@every
def test_one_finite_score_for_each_channel(users, name):
    for inputs in (arrays(name), {key: np.zeros_like(a) for key, a in arrays(name).items()}):
        found = score(name, inputs)
        assert found.shape == (N,) and np.isfinite(found).all()


@every
def test_inputs_stay_as_they_are(users, name):
    inputs = arrays(name)
    before = {key: array.copy() for key, array in inputs.items()}
    score(name, inputs)
    assert all(np.array_equal(before[key], array) for key, array in inputs.items())


@every
def test_the_same_inputs_have_the_same_scores(users, name):
    np.testing.assert_array_equal(score(name, arrays(name)), score(name, arrays(name)))


@deterministic
def test_scores_move_with_their_channels(users, name):
    inputs = arrays(name)
    order = np.random.default_rng(1).permutation(N)
    moved = {key: a[..., order] if key.startswith("activation") else a[order] for key, a in inputs.items()}
    np.testing.assert_allclose(score(name, moved), score(name, inputs)[order], rtol=1e-5, atol=1e-7)


@deterministic
def test_larger_means_keep(users, name):
    inputs = arrays(name)
    if name in SIGNED:  # all other channels move away from zero
        inputs["gradients"] = -np.sign(inputs["filters"]) * np.abs(inputs["gradients"])
    found = score(name, inputs)
    assert found.argmin() == DEAD


@pytest.mark.parametrize("name", USERS)
def test_a_users_criterion_is_listed(users, name):
    assert name in list_criteria()
    with pytest.raises(UsageError, match=f"Did you mean '{name}'"):
        get_criterion(name + "s")


def test_an_entry_point_is_found_only_while_its_package_is_there():
    with pytest.raises(UsageError, match="Received: criterion='by_entry_point'"):
        get_criterion("by_entry_point")


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda weights: weights, {}, "unknown parameter. Received: 'weights'"),
        (lambda: 0, {}, "needs arrays of one kind.*Received: no parameter"),
        (lambda rng: 0, {}, "needs arrays of one kind.*Received: rng"),
        (lambda filters, gamma: gamma, {}, "one kind.*Received: filters, gamma"),
        (lambda activations: 0, {}, "batches must be 'sum' or 'mean'. Received: batches='all'"),
        (lambda filters: 0, {"batches": "some"}, "Unknown batches. Received: batches='some'"),
        (lambda filters: 0, {"normalise": "min"}, "Unknown normalise. Received: normalise='min'"),
        (
            lambda filters: 0,
            {"batch": "all"},
            "Unknown option. Received: batch='all'. Did you mean 'batches'",
        ),
    ],
)
def test_what_cannot_be_a_criterion(function, options, message):
    with pytest.raises(UsageError, match=message):
        criterion(function, name="wrong", **options)
    assert "wrong" not in list_criteria()


def test_a_name_belongs_to_one_criterion(monkeypatch):
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))
    built_in = get_criterion("l1")
    with pytest.raises(UsageError, match="A criterion needs a name of its own. Received: name='l1'"):
        criterion(lambda filters: filters.sum(1), name="l1")
    assert get_criterion("l1") is built_in
    criterion(built_in.score, name="l1")  # its module imported again
