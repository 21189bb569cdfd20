"""What chooses the plan of `python -m pruning`: files, sensitivity curves, options of the library."""

import html
import json
import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from secateur import __main__ as program
from secateur import dataloader, nets
from secateur.exports.timing import BACKENDS, Setup
from secateur.pruning import Plan, complexity, make_plan
from secateur.pruning.choose.sensitivity import Sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import MEASURED
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.planning import ALLOCATIONS
from secateur.pruning.score.scores import REDUCTIONS, score_groups
from secateur.pruning.shrink.weights import weights_of
from secateur.recipes.commands.options import PruneOptions
from secateur.recipes.commands.prune import check_places
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.cutting import TIMED_BUDGETS
from secateur.recipes.engine.step import State
from secateur.recipes.engine.subject import Subject
from secateur.recipes.steps.planning import Evidence, choose_plan, read_plan
from secateur.recipes.steps.prune import Prune
from secateur.recipes.steps.prune_ladder import _widths as ladder_widths
from secateur.runs import UsageError, save_snapshot
from secateur.runs.errors import SecateurError

parse = partial(program.parse, "prune")


@pytest.fixture(scope="module")
def model(stripes):
    """The classifier of stripes."""
    return keras.models.load_model(stripes / "stripes.keras")


@pytest.fixture(scope="module")
def splits(stripes):
    """Its images."""
    return dataloader.load("folder", str(stripes / "images"), "0..255", shape=(16, 16, 3))


def test_a_plan_of_the_librarys_options_is_saved_and_applied(secateur, stripes, model, tmp_path):
    words = "--keep_macs 0.5 --reduce max --normalise sum --allocation global --convention ekg --no-fill"
    path = stripes / "stripes.keras"
    out = secateur("prune", path, *words.split(), "--save_plan", "plan.json", "--dry_run")
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    scores = score_groups(model, "l1", reduce="max", normalise="sum")
    wanted = make_plan(model, scores, keep_macs=0.5, allocation="global", convention="ekg", fill=False)
    plan = Plan.from_json(json.loads((tmp_path / "plan.json").read_text()))
    assert plan == wanted
    assert f"{complexity(model, 'ekg').macs:,}" in out and "operations (ekg)" in out
    options = ["--plan", "plan.json", "--preserve_norm", "-o", "s.keras", "--report", "r.html"]
    secateur("prune", path, *options)
    report = json.loads((tmp_path / "r.json").read_text())
    assert Plan.from_json(report["plan"]) == plan and report["target"] == {"plan": "plan.json"}
    assert "plan plan.json" in html.unescape((tmp_path / "r.html").read_text())
    before, after = weights_of(model), weights_of(keras.models.load_model(tmp_path / "s.keras"))
    for layer in ("conv2d", "conv2d_1"):
        kernels = [weights[layer]["kernel"] for weights in (before, after)]
        assert np.isclose(*map(np.linalg.norm, kernels), rtol=1e-5) and kernels[0].size > kernels[1].size


PLANS = {
    "foreign.json": ('{"keep": {"a": [0]}, "sizes": {"a": 4}}', 2, "This plan is for another network"),
    "list.json": ("[1, 2]", 4, "A plan is"),
    "empty.json": ('{"keep": {"conv2d": []}, "sizes": {"conv2d": 16}}', 4, "between 1 and 16"),
    "torn.json": ('{"keep": {"a', 4, "cannot be read"),
    "bytes.json": (b"\xff\xfe\x00", 4, "cannot be read"),
    "folder.json": (None, 4, "cannot be read"),
    "missing.json": ("", 4, "no such file"),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_cannot_be_applied_is_one_or_two_lines_and_a_code(model, tmp_path, name):
    content, code, said = PLANS[name]
    if content is None:
        (tmp_path / name).mkdir()
    elif content:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SecateurError, match=said) as caught:
        read_plan(str(tmp_path / name), analyse(model))
    assert caught.value.exit_code == code and len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--plan p.json --keep 0.5", "Received: --keep and --plan"),
        ("--plan p.json --criterion l2", "Received: --plan and --criterion"),
        ("--plan p.json --normalise max", "Received: --plan and --normalise"),
        ("--plan p.json --sensitivity --data d --round_to 8", "Received: --plan and --round_to"),
        ("--plan p.json --no-fill", "Received: --plan and --fill"),
        ("--plan p.json --ignore a b", "Received: --plan and --ignore"),
        ("--keep_ms 0.5 --no-fill", "--no-fill needs an --allocation"),
        ("--keep 0.5 --seed 2147483648", "below 2147483648. Received: seed=2147483648"),
        ("--keep 0.5 --sensitivity", "Sensitivity needs images"),
        ("--keep 0.5 --allocation sensitivity", "Sensitivity needs images"),
        ("--keep 0.5 --reduce median", "invalid choice: 'median'"),
        ("--keep 0.5 --normalise l2", "invalid choice: 'l2'"),
        ("--keep 0.5 --convention flops", "invalid choice: 'flops'"),
        ("--keep 0.5 --allocation even", "invalid choice: 'even'"),
        ("--keep 0.5 --augment rotate", "invalid choice: 'rotate'"),
    ],
)
def test_options_that_contradict_and_names_that_are_unknown(words, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        parse(["m.keras", "--dry_run", *words.split()])


def test_choices_are_those_of_the_library():
    known = {"reduce": REDUCTIONS, "allocation": ALLOCATIONS, "convention": CONVENTIONS, "backend": BACKENDS}
    base = {"model": "m.keras", "dry_run": True, "keep": 0.5, "data": "images"}
    for name, choices in known.items():
        with pytest.raises(UsageError) as caught:
            PruneOptions(**base, **{name: "neither"})
        assert str(caught.value).endswith(f"Valid: {', '.join(choices)}")
        assert all(PruneOptions(**base, **{name: choice}) for choice in choices)
    assert TIMED_BUDGETS == MEASURED  # options are read before TensorFlow is there


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--keep 0.5 --save_plan r.json --report r.html", "the numbers of the report.*save_plan=r.json"),
        ("--plan r.json --report r.html", "plan that is applied.*numbers of the report=r.json"),
        ("--plan link.json --report r.html", "plan that is applied"),
        ("--plan r.json --save_plan link.json", "plan that is applied.*save_plan=link.json"),
        ("--keep 0.5 -o link.keras", "model itself.*output=link.keras"),
    ],
)
def test_no_file_takes_the_place_of_one_that_is_read_or_of_another(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    for name in ("m.keras", "r.json"):
        (tmp_path / name).write_text("precious")
        (tmp_path / f"link{name[1:]}").symlink_to(name)
    with pytest.raises(UsageError, match=said):
        check_places(parse(["m.keras", *words.split(), *(["--dry_run"] * ("-o" not in words))]))


@pytest.fixture
def dense(model, tmp_path):
    """A run whose network is the whole model."""
    save_snapshot(path := tmp_path / "snap_dense.pkl", nets.snapshot_of(model))
    return State(dense=path, network=path)


def planned(
    step: Prune, model: keras.Model, splits: dataloader.Splits, state: State | None = None
) -> tuple[Plan, dict]:
    """What a step of a run decides on images."""
    subject = Subject.own(model)
    config = RunOptions(model="stripes.keras", data="images")
    context = RunContext(config, None, None, splits, None, subject)
    return step.planned(context, state or State(), subject.working(model))


def test_sensitivity_is_a_table_numbers_and_a_picture(secateur, stripes, model, splits, tmp_path):
    """It is measured on the images that score candidates: neither trained on nor held out."""
    options = ["--keep", 0.5, "--allocation", "sensitivity", "--dry_run", "--report", "r.html"]
    out = secateur("prune", stripes / "stripes.keras", *options, "--data", stripes / "images")
    report = json.loads((tmp_path / "r.json").read_text())
    found = Sensitivity.from_json(report["sensitivity"])
    data = splits.search.images.astype("float32"), splits.search.labels
    assert found.images == len(splits.search) and found == measure_sensitivity(model, data=data)
    for name, curve in found.curves.items():
        numbers = " +".join(f"{100 * value:.2f}" for value in (*curve, found.whole))
        assert re.search(f"^{name} +{numbers}$", out, re.M)
    page = html.unescape((tmp_path / "r.html").read_text())
    assert "All 2 curves" in page and all(f"channels kept of {name}" in page for name in found.curves)
    assert Plan.from_json(report["plan"]) == make_plan(model, keep=0.5, allocation=found)


def test_images_held_out_decide_nothing(model, splits):
    held, plans = splits.holdout, []
    for labels in (held.labels, 1 - held.labels):
        parts = replace(splits, holdout=replace(held, labels=labels))
        plan, facts = planned(Prune(keep=0.5, allocation="sensitivity"), model, parts)
        assert facts["sensitivity"]["whole"] == 1.0
        plans.append(plan)
    assert plans[0] == plans[1]


def test_criteria_say_of_bytes_what_they_say_of_numbers(model, splits):
    """Bytes become numbers where they are sliced: all of them at once may not fit into the memory."""
    images, labels = splits.train.images, splits.train.labels
    for criterion in ("taylor", "apoz"):
        plan, _ = planned(Prune(keep=0.5, criterion=criterion), model, splits)
        assert plan == make_plan(model, criterion, keep=0.5, data=(images.astype("float32"), labels))


def test_a_step_of_a_recipe_takes_the_budgets_and_limits_of_the_command(model, splits, dense, tmp_path):
    costs = {"keep_bytes": 0.5, "max_ms": 1e3}
    plans = {name: planned(Prune(**{name: value}), model, splits, dense)[0] for name, value in costs.items()}
    assert plans["keep_bytes"] == make_plan(model, keep_bytes=0.5)
    assert plans["max_ms"] == Plan.full(analyse(model).groups), "a second is enough for all of it"
    plan, _ = planned(Prune(keep=0.2, min_channels=7, ignore=["conv2d"]), model, splits)
    assert plan.widths() == {"conv2d": 16, "conv2d_1": 7}
    (tmp_path / "p.json").write_text(json.dumps(plan.to_json()))
    assert planned(Prune(plan=str(tmp_path / "p.json")), model, splits)[0] == plan


def test_a_criterion_ranks_the_curves_of_a_plan_from_a_file(model, splits, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps((plan := make_plan(model, keep=0.5)).to_json()))
    words = f"--plan {tmp_path / 'p.json'} --sensitivity --criterion random --data d --dry_run"
    options = parse(["m.keras", *words.split()])
    data = splits.search.images.astype("float32"), splits.search.labels
    known = Evidence({"seed": options.seed}, lambda: data)
    chosen, curves = choose_plan(model, options, options.target, Setup(), known)
    assert chosen == plan
    scores = score_groups(model, "random", seed=options.seed)
    assert curves == measure_sensitivity(model, scores, data=data)


def test_channels_that_a_mean_over_channels_reads_go_where_that_is_said():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(images)
    x = keras.layers.GlobalAveragePooling2D()(x * keras.ops.mean(x, axis=-1, keepdims=True))
    model = keras.Model(images, keras.layers.Dense(2)(x))
    options = parse("m.keras --keep 0.5 --channel_statistics -o small.keras".split())
    plan, _ = choose_plan(model, options, options.target, None, Evidence())
    assert plan.widths() == {"conv": 2}
    assert plan == make_plan(model, keep=0.5, channel_statistics=True)


def test_a_ladder_ends_at_the_widths_of_its_budget_however_few_channels_a_group_has():
    """One ratio for all would take the whole of a small group's rounding from every other."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 1, name="small")(images)
    x = keras.layers.Conv2D(64, 1, name="large")(x)
    model = keras.Model(images, keras.layers.Conv2D(2, 1, name="last")(x))
    least = {"small": 1, "large": 45}
    for goal, widths in ((0.1, {"small": 2, "large": 58}), (0.5 + 1e-9, least)):
        assert ladder_widths(SimpleNamespace(plan=None), model, goal, least) == widths
