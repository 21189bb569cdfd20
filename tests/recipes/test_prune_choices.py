"""What chooses the plan of `python -m pruning`: files, sensitivity curves, options of the library."""

import html
import json
import re
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest

from secateur import __main__ as program
from secateur.exports.timing import BACKENDS, Setup
from secateur.pruning import Plan, complexity, make_plan
from secateur.pruning.choose.sensitivity import Sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import MEASURED
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.planning import ALLOCATIONS
from secateur.pruning.score.scores import REDUCTIONS, score_groups
from secateur.pruning.shrink.weights import weights_of
from secateur.recipes.commands.images import load_images
from secateur.recipes.commands.model import Subject, check_places
from secateur.recipes.commands.options import TIMED, ImageOptions, PruneOptions
from secateur.recipes.commands.plan import choose, read_plan
from secateur.runs import RunFolderError, UsageError
from secateur.runs.errors import SecateurError

PROGRAM = "pruning/__main__.py"
parse = partial(program.parse, "prune")


@pytest.fixture(scope="module")
def model(stripes):
    """The classifier of stripes."""
    return keras.models.load_model(stripes / "stripes.keras")


def test_a_plan_of_the_librarys_options_is_saved_and_applied(programs, stripes, model, tmp_path):
    words = "--keep_macs 0.5 --reduce max --normalise sum --allocation global --convention ekg --no-fill"
    options = [*words.split(), "--save_plan", "plan.json", "--dry_run"]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, cwd=tmp_path)
    assert done.code == 0 and [file.name for file in tmp_path.iterdir()] == ["plan.json"], done.err
    scores = score_groups(model, "l1", reduce="max", normalise="sum")
    wanted = make_plan(model, scores, keep_macs=0.5, allocation="global", convention="ekg", fill=False)
    plan = Plan.from_json(json.loads((tmp_path / "plan.json").read_text()))
    assert plan == wanted
    assert f"{complexity(model, 'ekg').macs:,}" in done.out and "operations (ekg)" in done.out
    options = ["--plan", "plan.json", "--preserve_norm", "-o", "s.keras", "--report", "r.html"]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, cwd=tmp_path)
    assert done.code == 0, done.err
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
        ("--keep 0.5 --seed 2147483648", "at most 2147483647. Received: seed=2147483648"),
        ("--keep 0.5 --sensitivity", "Sensitivity needs images"),
        ("--keep 0.5 --allocation sensitivity", "Sensitivity needs images"),
        ("--keep 0.5 --reduce median", "invalid choice: 'median'"),
        ("--keep 0.5 --normalise l2", "invalid choice: 'l2'"),
        ("--keep 0.5 --convention flops", "invalid choice: 'flops'"),
        ("--keep 0.5 --allocation even", "invalid choice: 'even'"),
        ("--keep 0.5 --augment crop", "invalid choice: 'crop'"),
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
    assert TIMED == MEASURED  # options are read before TensorFlow is there


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
    with pytest.raises(RunFolderError, match=said):
        check_places(parse(["m.keras", *words.split(), *(["--dry_run"] * ("-o" not in words))]))


def test_sensitivity_is_a_table_numbers_and_a_picture(programs, stripes, model, tmp_path):
    options = ["--keep", 0.5, "--allocation", "sensitivity", "--dry_run", "--report", "r.html"]
    path, images = stripes / "stripes.keras", stripes / "images"
    done = programs.run(PROGRAM, path, *options, "--data", images, cwd=tmp_path)
    assert done.code == 0, done.err
    report = json.loads((tmp_path / "r.json").read_text())
    found = Sensitivity.from_json(report["sensitivity"])
    assert (found.whole, found.images, set(found.curves)) == (1.0, 8, {"conv2d", "conv2d_1"})
    for name, curve in found.curves.items():
        numbers = " +".join(f"{100 * value:.2f}" for value in (*curve, found.whole))
        assert re.search(f"^{name} +{numbers}$", done.out, re.M)
    page = html.unescape((tmp_path / "r.html").read_text())
    assert "All 2 curves" in page and all(f"channels kept of {name}" in page for name in found.curves)
    assert Plan.from_json(report["plan"]) == make_plan(model, keep=0.5, allocation=found)


def test_images_held_out_decide_nothing(stripes, model):
    options = parse(["m.keras", "--keep", "0.5", "--allocation", "sensitivity", "--data", "d", "--dry_run"])
    data, plans = load_images(ImageOptions(data=str(stripes / "images")), model), []
    images, labels = data.holdout
    for answers in (labels, 1 - labels):
        held = replace(data, holdout=(images, answers))
        subject = Subject(options, model, analyse(model), held, Setup())
        plan, curves = choose(subject)
        plans.append(plan)
        assert (curves.whole, curves.images) == (1.0, len(labels))
    assert plans[0] == plans[1]


def test_a_criterion_ranks_the_curves_of_a_plan_from_a_file(stripes, model, tmp_path):
    (tmp_path / "p.json").write_text(json.dumps((plan := make_plan(model, keep=0.5)).to_json()))
    words = f"--plan {tmp_path / 'p.json'} --sensitivity --criterion random --data d --dry_run"
    options = parse(["m.keras", *words.split()])
    data = load_images(ImageOptions(data=str(stripes / "images")), model)
    subject = Subject(options, model, analyse(model), data, Setup())
    chosen, curves = choose(subject)
    assert chosen == plan
    scores = score_groups(model, "random", seed=options.seed)
    assert curves == measure_sensitivity(model, scores, data=data.some(8, options.seed))


def test_frozen_milliseconds_curves_and_fine_tuning_in_one_command(programs, stripes, model, tmp_path):
    options = [
        "--keep",
        0.5,
        "--sensitivity",
        "--backend",
        "frozen",
        "--data",
        stripes / "images",
        "--finetune_epochs",
        1,
    ]
    options += ["--augment", "flip+crop", "-o", "s.keras", "--report", "r.html"]
    done = programs.run(PROGRAM, stripes / "stripes.keras", *options, cwd=tmp_path)
    assert done.code == 0 and done.err == "", done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert all(row["ms"] > 0 for row in report["rows"]) and report["setup"] == "frozen, 1 thread, batch 1"
    assert "epoch 1/1" in done.out and report["sensitivity"]["images"] == 8
    assert Plan.from_json(report["plan"]) == make_plan(model, keep=0.5)  # curves alone decide nothing
