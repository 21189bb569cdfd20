"""Recipe files: every published one can be read and made into steps; mistakes are answered by name."""

import time
from pathlib import Path

import pytest

from secateur.recipes.engine.command import choose
from secateur.recipes.engine.flags import tables_of
from secateur.recipes.engine.outdated import outdated
from secateur.recipes.engine.program import check_order, program_of
from secateur.recipes.engine.recipe import (
    RecipeFile,
    check_steps,
    epochs,
    find_recipe,
    listing,
    published_recipes,
)
from secateur.recipes.engine.step import STEPS, make_step
from secateur.recipes.training.learning import losses_of
from secateur.runs import UsageError

SHORT = """
about = "short"
[[steps]]
kind = "dense"
epochs = 2
[[steps]]
kind = "repeat"
times = 3
  [[steps.steps]]
  kind = "prune"
  keep = 0.8
  [[steps.steps]]
  kind = "train"
  epochs = 4
"""


@pytest.fixture
def short(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.mark.parametrize("name", published_recipes())
def test_a_published_recipe_is_made_of_steps_that_exist(name):
    file = find_recipe(name)
    check_steps(file.steps)
    for table in tables_of(file.steps):
        make_step(table)
    assert choose(["--recipe", name]).recipe == name
    assert file.about and file.steps[0]["kind"] == "dense"


def test_every_kind_of_step_is_used_by_a_published_recipe():
    used = {table["kind"] for name in published_recipes() for table in tables_of(find_recipe(name).steps)}
    assert used | {"prune"} == set(STEPS)


def test_the_list_names_every_recipe_with_its_command():
    lines = listing().splitlines()
    for name in published_recipes():
        assert any(line.startswith(f"{name}: ") for line in lines)
        assert any(line.startswith(f"  python train_cifar.py --recipe {name}") for line in lines)


def test_epochs_count_rounds(short):
    steps = RecipeFile.read(short).steps
    assert epochs(steps) == 2 + 3 * 4


def test_the_papers_lengths():
    """KESI: 300 epochs, five rounds of 40 and 40 of distillation; SFP 200 and 200."""
    assert epochs(find_recipe("kesi").steps) == 300 + 5 * 40 + 40
    assert epochs(find_recipe("sfp").steps) == 400
    assert epochs(find_recipe("smallest").steps) == 300 + 1 + 5 + 4 + 3  # EKG's fine-tuning is left out


def test_settings_may_be_given_in_parts():
    options = choose(["--recipe", "kesi", "--set", "train.epochs=1", "--set", "rounds.times=2"])
    assert options.set == ["train.epochs=1", "rounds.times=2"]


def test_kesi_learns_from_its_ensemble_alone_with_weight_one():
    """Equation and program: the divergence by itself, at temperature 5, over the number of classes."""
    for name in ("kesi", "kesi_weights", "kesi_tiny"):
        (table,) = [t for t in tables_of(find_recipe(name).steps) if t.get("name") == "distil"]
        step = make_step(table)
        ((loss, weight),) = losses_of(step, 6, "distil")
        assert (weight, step.label_weight, loss.temperature, step.kd_over_classes) == (1.0, 0.0, 5.0, True)


def test_set_changes_a_step_inside_of_a_loop_and_the_loop(short):
    steps = RecipeFile.read(short).changed(["train.epochs=1", "repeat.times=2", "prune.criterion=l2"])
    assert steps[1]["times"] == 2
    assert steps[1]["steps"][0] == {"kind": "prune", "keep": 0.8, "criterion": "l2"}
    assert steps[1]["steps"][1]["epochs"] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["trian.epochs=1"], "Did you mean 'train'?"),
        (["train"], "STEP.KEY=VALUE"),
        (["train.epochs"], "STEP.KEY=VALUE"),
    ],
)
def test_a_setting_that_names_nothing_is_answered(short, settings, words):
    with pytest.raises(UsageError, match=words.replace("?", "\\?")):
        RecipeFile.read(short).changed(settings)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "trian"}, "Did you mean 'train'"),
        ({"kind": "train", "epoch": 2}, "Did you mean 'epochs'"),
        ({"kind": "train", "epochs": "many"}, "train.epochs must be int"),
        ({"kind": "train", "epochs": True}, "train.epochs must be int"),
        ({"kind": "train", "epochs": 0}, "train.epochs must be at least 1"),
        ({"kind": "train", "schedule": "one-cycle"}, "Did you mean 'one_cycle'"),
        ({"kind": "train", "name": "last", "points": [2.0]}, "last.points must be"),
        ({"kind": "train", "schedule": "step_decay", "points": [0.5], "decay": [1.0, 2.0]}, "one factor"),
        ({"kind": "prune", "criterion": "11", "keep": 0.5}, "Did you mean 'l1'"),
        ({"kind": "prune"}, "Received: none"),
        ({"kind": "prune", "keep": 0.5, "keep_macs": 0.5}, "Received: prune.keep and prune.keep_macs"),
        ({"kind": "share", "bits": 17}, "share.bits=17"),
        ({"kind": "share", "bits": {"conv": 5, "dense": 0}}, "share.bits=0"),
        ({"kind": "share", "layers": "convs"}, "Did you mean 'conv'"),
        (
            {"kind": "share", "keep_bytes": 0.1, "max_loss": 0.1},
            "share.keep_bytes=0.1, share.max_loss=0.1",
        ),
        ({"kind": "auto", "criteria": ["l3"]}, "Did you mean 'l2'"),
        ({"kind": "repeat", "steps": [{"kind": "prun"}]}, "Did you mean 'prune'"),
        ({"kind": "train", "distill": "kd+kd"}, "Each loss once; train.betas"),
        ({"kind": "train", "schedule": "step_decay"}, "step_decay needs points"),
        ({"kind": "train", "label_weight": 0.0}, "Nothing to learn from"),
        ({"kind": "train", "teacher": "ensemble", "distill": "hap"}, "add kd"),
        ({"kind": "dense", "epochs": 2, "keep_epoch": 5}, "dense.keep_epoch=5"),
        ({"kind": "anneal", "stop": 200.0}, "Temperatures must fall"),
        ({"kind": "soft_train", "criterion": "fpgm_mix", "keep_norm": 0.3}, "keep_norm=0.3"),
        ({"kind": "repeat", "steps": [{"kind": "repeat"}]}, "A loop cannot stand in a loop"),
    ],
)
def test_a_mistake_in_a_step_is_answered_by_its_name(table, words):
    with pytest.raises(UsageError, match=words):
        make_step(table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("about = 1\nstep = []", "Did you mean 'steps'"),
        ("about = ''", "begins with the network"),
        ("[steps]\nkind = 'dense'", "tables, "),
        ("[[steps]]\nname = 'train'", "needs a kind"),
        ("options = 3\n[[steps]]\nkind = 'dense'", "a table"),
        ("[[steps]]\nkind = 'dense'\nname = 5", "text as its name"),
        ("[[steps]]\nkind = 'train'", "begins with the network"),
        ("[[steps]]\nkind = 'dense'\n[[steps]]\nkind = 'dense'\nname = 'again'", "begins with"),
        ("about = ", "cannot be read"),
        ("based_on = 'ekgg'", "Did you mean 'ekg'"),
        ("based_on = 'ekg'\nset = ['fine_tun.epochs=1']", "Did you mean 'fine_tune'"),
        ("based_on = 'ekg'\nset = 'fine_tune.epochs=1'", "set must be"),
        ("[[steps]]\nkind = 'dense'\n[flags]\nrate = 3", "A flag is a table"),
        ("[[steps]]\nkind = 'dense'\n[flags.rate]\nhelp = ''\nset = []", "Unknown key"),
        ("[[steps]]\nkind = 5", "text as its name and as its kind"),
        ("[[steps]]\nkind = 'dense'\n[[steps]]\nkind = 'repeat'\nsteps = 5", "steps in it are such tables"),
        ("[[steps]]\nkind = 'dense'\n[[steps]]\nkind = 'repeat'\nsteps = [5]", "such tables"),
        ("[[steps]]\nkind = 'dense'\nx = " + 300 * "[{steps = " + "1" + 300 * "}]", "nested too deeply"),
        ("[[steps]]\nkind = 'dense'\nx = " + 3000 * "[" + 3000 * "]", "nested too deeply"),
        ("based_on = 'own.toml'", "based on itself"),
        ("based_on = 'ekg'\nset = [5]", "set has texts"),
        ("[[steps]]\nkind = 'dense'\n[flags.rate]\nhelp = ''\nsets = ['dense.epoch']", "a key that has a"),
        (
            "[[steps]]\nkind = 'dense'\nepochs = 1979-05-27\n[flags.e]\nhelp = ''\nsets = ['dense.epochs']",
            "has a number, a text or a switch",
        ),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(text)
    with pytest.raises(UsageError, match=words) as refused:
        RecipeFile.read("own.toml")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochs = 1979-05-27T07:32:00Z", "dense.epochs must be int. Received"),
        ("epochs = true", "dense.epochs must be int. Received: dense.epochs=True"),
        ("[options]\nbatch_size = true", "--batch_size must be int. Received: batch_size=True"),
        ("[options]\nseed = 2020-01-01", "--seed must be int. Received"),
        ("[options]\ntrain_path = ''", "--train_path must name a file or a folder"),
        ("[published_flags.x]\nvalues = {'(' = 'y'}", "no regular expression here"),
        (
            "epochs = 1\n[flags.e]\nhelp = ''\nsets = ['dense.epochs']\nalias = 'seed'",
            "Two flags of one name",
        ),
    ],
)
def test_a_value_of_another_type_is_answered(tmp_path, text, words):
    path = tmp_path / "own.toml"
    path.write_text(f"[[steps]]\nkind = 'dense'\n{text}")
    with pytest.raises(UsageError, match=words):
        program_of(choose(["--recipe", str(path), *(["--x", "y"] if "flags.x" in text else [])]))


def test_thousands_of_steps_are_checked_in_seconds(tmp_path):
    path, many = tmp_path / "own.toml", 3000
    steps = [f"[[steps]]\nkind = 'train'\nname = 't{i}'\nepochs = 1\n" for i in range(many)]
    path.write_text("[[steps]]\nkind = 'dense'\n" + "".join(steps))
    began = time.process_time()
    assert len(program_of(choose(["--recipe", str(path)])).steps) == 1 + many
    assert time.process_time() - began < 5  # 1.3 of ours; a loss for each step took 6


def test_an_option_that_does_not_exist_is_refused_with_the_nearest(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('[options]\ndatset = "DIGITS"\n' + SHORT.partition("\n[")[2].join(("[", "")))
    with pytest.raises(UsageError, match="Did you mean 'dataset'"):
        choose(["--recipe", str(path)])


def test_a_network_that_was_written_does_not_change_behind_its_file():
    steps = [make_step({"kind": kind}) for kind in ("dense", "encode", "int8")]
    check_order(steps)
    with pytest.raises(UsageError, match="encode before train"):
        check_order([*steps[:2], make_step({"kind": "train"})])
    with pytest.raises(UsageError, match="behind a loop"):
        make_step({"kind": "repeat", "steps": [{"kind": "int8"}]})


def test_a_budget_excludes_a_table_of_bits_and_the_clustering_for_one():
    for own in ({"bits": {"conv": 4}}, {"linear": True}):
        with pytest.raises(UsageError, match="One budget alone chooses the values"):
            make_step({"kind": "share", "keep_bytes": 0.1} | own)


def test_two_steps_of_one_name_are_refused():
    with pytest.raises(UsageError, match="Two steps are called 'train'"):
        check_steps([{"kind": "train"}, {"kind": "repeat", "steps": [{"kind": "train"}]}])


def test_only_what_follows_the_first_change_is_done_again():
    first = [
        {"kind": "dense"},
        {"kind": "repeat", "times": 2, "steps": [{"kind": "prune"}]},
        {"kind": "train"},
    ]
    second = [first[0], {**first[1], "times": 3}, first[2]]
    done = ["dense", "prune-1", "prune-2", "train", "compact", "litert", "report"]
    assert outdated(first, second, done) == done[1:]
    assert outdated(first, first, done) == ["report"]
    assert outdated(first, [*first, {"kind": "reset"}], done) == done[4:]


def test_a_flag_of_another_recipe_is_answered_with_how_steps_are_changed():
    with pytest.raises(UsageError, match="--train_epoch.*\n--set STEP.KEY=VALUE"):
        choose(["--recipe", "kesi", "--train_epoch", "3"])
    with pytest.raises(UsageError, match="Did you mean '--train_epoch'"):
        choose(["--recipe", "ekg", "--train_epochs", "3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe lottery_nni --keep_macs 0.5", "Received: keep_macs=0.5"),
        ("--recipe agp --set train.teacher=files", "--teacher"),
    ],
)
def test_steps_in_a_loop_are_checked_as_others_are(words, message):
    with pytest.raises(UsageError, match=message):
        program_of(choose(words.split()))


@pytest.mark.parametrize("step", ["search_ekg", "fine_tune"])
@pytest.mark.parametrize(
    ("file", "message"),
    [("config.json", "ends in .pkl"), ("../x.pkl", "ends in .pkl"), ("snap_baseline.pkl", "of two steps")],
)
def test_a_step_writes_a_snapshot_that_no_other_file_of_the_run_is(step, file, message):
    with pytest.raises(UsageError, match=message):
        program_of(choose(["--set", f"{step}.file={file}"]))
