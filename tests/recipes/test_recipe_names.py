"""`--recipe`: which system runs, with whose words for its options. Nothing is trained here."""

import re
from types import SimpleNamespace

import pytest

from secateur.distillation import build, get_loss, list_losses
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.flags import tables_of, translate
from secateur.recipes.engine.program import Program, check, program_of, warn_of_batches
from secateur.recipes.engine.recipe import find_recipe, published_recipes
from secateur.recipes.engine.step import make_step
from secateur.recipes.engine.subject import Subject
from secateur.recipes.training.learning import losses_of
from secateur.runs.errors import UsageError

# As HAP's README prints it, behind `python3 pruning.py`.
HAP = (
    "--t-model resnet56 --s-copy-t --dataset cifar10 --prune-rates 0.6 --prune-mode filter-r "
    "--t-path saves/1625594011/model_best.pt --distill at --betas 1000 --log-name PRUNED-CIFAR10.txt "
    "--seed 8152"
)


HAP_FLAGS = find_recipe("hap").published_flags


def program(words) -> Program:
    """What a command line asks for, checked as before a run."""
    found = program_of(choose(words))
    check(
        found, SimpleNamespace(train=range(1000), facts=SimpleNamespace(labelled=True)), Subject(), replicas=1
    )
    return found


def training(words):
    """Its last step."""
    return program(words).steps[-1]


EVERY = ["--recipe", "distill", "--teacher", "a.pkl", "--distill", "+".join(list_losses())]


def test_haps_own_command_says_the_same_here():
    found = program(["--recipe", "hap", *HAP.split()])
    options, (student, prune, train) = found.options, found.steps
    assert (options.arch, options.dataset, options.seed) == ("ResNet-56", "CIFAR10", 8152)
    assert options.teacher == ["saves/1625594011/model_best.pt"] and student.copy_teacher
    assert (prune.criterion, prune.keep) == ("random", 0.6)
    assert (train.losses, train.betas) == (["kd", "at"], [1000.0])
    assert options.setting == "PRUNED-CIFAR10.txt"


@pytest.mark.parametrize(
    ("mode", "criterion"),
    [("filter-r", "random"), ("filter-a", "l1"), ("filter-gm", "fpgm_squared"), ("filter-nggm", "nggm")],
)
def test_haps_modes_are_our_criteria(mode, criterion):
    assert translate(["--prune-mode", mode], HAP_FLAGS) == ["--criterion", criterion]
    assert translate([f"--prune-mode={mode}"], HAP_FLAGS) == ["--criterion", criterion]


def test_haps_defaults_are_its_method():
    student, prune, train = program(["--recipe", "hap", "--teacher", "a.pkl"]).steps
    assert (prune.criterion, prune.keep, train.losses) == ("nggm", 0.6, ["kd", "hap"])
    assert student.copy_teacher and train.epochs == 200


def test_a_line_of_haps_script_says_the_same_here():
    line = (
        "--t-model resnet56 --s-copy-t --dataset cifar100 --prune-rates 0.6 --prune-mode filter-n-g-gm-1 "
        "--samp-batches 25 --t-path a.pt --distill msp --betas 700 --msp-ts 3 --kd-t 4 --n-epochs 200"
    )
    _, prune, train = program(["--recipe", "hap", *line.split()]).steps
    assert (prune.criterion, train.losses, train.betas) == ("nggm", ["kd", "hap"], [700.0])
    assert (train.hap_ts, train.temperature, train.epochs) == (3, 4.0, 200)
    with pytest.raises(UsageError, match="Only 25 is supported"):
        choose(["--recipe", "hap", "--t-path", "a.pt", "--samp-batches", "5"])


def test_without_a_word_every_loss_is_as_it_was_published():
    losses = [loss for loss, _ in losses_of(training(EVERY), 1, "fine_tune")]
    assert len(losses) == len(list_losses())
    for loss in losses:
        assert loss.get_config() == build(loss.key).get_config()


@pytest.mark.parametrize("recipe", ["distill", "hap"])
def test_help_lists_every_loss_with_its_published_weight(recipe, capsys):
    with pytest.raises(SystemExit):
        choose(["--recipe", recipe, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{key} {get_loss(key).beta:g}" in shown for key in list_losses())


def test_an_unknown_loss_is_named_with_its_flag():
    with pytest.raises(
        UsageError, match="^--distill: Unknown loss. Received: loss='hop'. Did you mean 'hap'"
    ):
        program(["--recipe", "distill", "--teacher", "a.pkl", "--distill", "kd+hop"])


def test_what_is_not_a_published_flag_stays_as_it_is():
    words = ["--distill", "kd+hap", "--betas", "0.9", "700", "--seed=3"]
    assert translate(words, HAP_FLAGS) == words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--recipe hop", "Did you mean 'hap'"),
        ("--recipe", "Which recipe"),
        ("--recipe hap --prune-mode filter-x --t-path a.pkl", "--prune-mode filter-x"),
        ("--recipe distill", "Who teaches"),
        ("--recipe distill --teacher a.pkl --betas 1 2", "--betas"),
        ("--recipe distill --teacher a.pkl --copy_teacher --trained_param b.pkl", "--copy_teacher"),
        ("--recipe distill --distill none --label_weight 0", "label_weight=0.0"),
        ("--recipe distill --teacher a.pkl --temperature 0", "temperature=0.0"),
        ("--recipe distill --teacher a.pkl --keep 1.5", "keep=1.5"),
        ("--recipe distill --teacher a.pkl --mean median", "median"),
        ("--recipe distill --teacher a.pkl --distill kd+kd", "Each loss once"),
        ("--recipe distill --teacher a.pkl --teacher_filter batch", "1 teachers"),
        ("--recipe distill --teacher a.pkl b.pkl --teacher_weights 1", "--teacher_weights"),
    ],
)
def test_what_cannot_be_understood_is_named(line, message):
    with pytest.raises(UsageError, match=message.replace("--", "-{2}").replace(".", r"\.")):
        program(line.split())


def test_the_list_is_printed_and_nothing_is_run(capsys):
    assert choose(["--recipe", "list"]) is None
    lines = capsys.readouterr().out.splitlines()
    assert set(published_recipes()) <= {line.split(":")[0] for line in lines}


def test_without_a_name_it_is_ekg():
    found = program_of(choose(["--target_rate", "0.3"]))
    assert found.options.recipe == "ekg" and found.flags["search_target_rate"] == 0.3


def test_logits_are_stored_only_for_images_that_do_not_change_and_losses_that_ask_no_more():
    def has_bank(*more):
        found = program(["--recipe", "distill", "--teacher", "a.pkl", *more])
        return "bank" in [step.kind for step in found.steps]

    assert has_bank("--no-augment")
    assert not has_bank("--no-augment", "--distill", "kd+at") and not has_bank()


OWN = "warning: batch_size=32 changes no step that has its own: {}; --set {} does\n"


@pytest.mark.parametrize(
    "words, said",
    [
        ("kesi_steps", ("dense 64, distil 64", "dense.batch_size=32 distil.batch_size=32")),
        ("kesi_steps --trained_param a.pkl", ("distil 64", "distil.batch_size=32")),
        ("kesi_steps --trained_param a.pkl --set distil.batch_size=32", None),
        ("backward --model a.keras", None),
        ("backward --model a.keras --from_scratch", ("dense 64", "dense.batch_size=32")),
        ("ekg_imagenet", ("warm_up 256", "warm_up.batch_size=32")),
        ("ekg --search_batch_size 64", None),
        ("hap --teacher a.pkl", None),
    ],
)
def test_a_step_with_batches_of_its_own_is_named(words, said, capsys):
    found = program_of(choose(["--recipe", *words.split(), "--batch_size", "32"]))
    warn_of_batches(found)
    assert capsys.readouterr().err == (OWN.format(*said) if said else "")
    if said:
        words = f"{words} --batch_size 32 --set {said[1]}"
        other = program_of(choose(["--recipe", *words.split()]))
        warn_of_batches(other)
        assert {one.batch_size for one in other.steps if one.trains(found.options)} <= {None, 32}
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("recipe", ["ekg_imagenet", "kesi_steps", "baseline"])
def test_batches_that_nobody_asked_for_are_no_news(recipe, capsys):
    warn_of_batches(program_of(choose(["--recipe", recipe])))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", published_recipes())
def test_keys_are_those_that_set_takes(name, capsys):
    """Every line is a setting as `--set` reads it, and sets what stands there already."""
    assert choose(["--recipe", name, "--keys"]) is None
    shown = capsys.readouterr().out
    found = re.findall(r"^  (\w+\.\w+)=(.*?)  \S", shown, re.MULTILINE)
    settings = [f"{key}={value}" for key, value in found if value != "not set" and "..." not in value]
    file = find_recipe(name)
    steps = [make_step(table) for table in tables_of(file.steps)]
    assert {key.partition(".")[0] for key, _ in found} == {step.label for step in steps if not step.skip}
    assert all(
        f"{step.label}: left out, --set {step.label}.skip=false" in shown for step in steps if step.skip
    )
    changed = [make_step(table) for table in tables_of(file.changed(settings))]
    assert [step.model_dump(exclude={"steps"}) for step in changed] == [
        step.model_dump(exclude={"steps"}) for step in steps
    ]


def test_keys_show_what_flags_and_set_have_changed(capsys):
    assert (
        choose(["--recipe", "smallest", "--target_rate", "0.3", "--set", "share.keep_bytes=0.02", "--keys"])
        is None
    )
    shown = capsys.readouterr().out
    assert "  search_ekg.target=0.3  " in shown and "  share.keep_bytes=0.02  " in shown
    with pytest.raises(UsageError, match="no step 'shar'|Did you mean 'share'"):
        choose(["--recipe", "smallest", "--set", "shar.keep_bytes=0.02", "--keys"])


@pytest.mark.parametrize("words", ["--no-Knowledge", "--train_epoch 9", "--criterion l1"])
def test_flags_of_steps_that_a_recipe_leaves_out_are_none_of_its(words):
    with pytest.raises(UsageError, match="unrecognized arguments"):
        choose(["--recipe", "smallest", *words.split()])


def test_a_bank_of_interim_networks_needs_a_search():
    options = choose(["--recipe", "smallest", "--set", "search_ekg.criterion=l1"])
    with pytest.raises(UsageError, match="needs a search by EKG"):
        program_of(options)
