"""Every published recipe from beginning to end on the digits, in a network of eight layers."""

import os
import shutil
import signal
import time

import keras
import numpy as np
import pytest

from secateur import coding, nets
from secateur.pruning import complexity, plan_of_widths, published_widths
from secateur.recipes.engine.recipe import find_recipe, published_recipes, tables_of
from secateur.runs import load_snapshot, read_json, save_snapshot, sha256

SMALL = (
    "--arch ResNet-8 --dataset DIGITS --pipeline ekg --batch_size 64 --train_images 256 --time_seconds 0.02"
)
# What is shorter here, and the widths that the recipe leaves of the stages' 16, 32 and 64 inner channels.
RUNS: dict[str, tuple[str, tuple[int, int, int] | None]] = {
    "baseline": ("dense.epochs=6 dense.batch_size=64", None),
    "baseline_wrn": ("dense.epochs=1 dense.batch_size=64", None),
    "baseline_rethinking": ("dense.epochs=1", None),
    "baseline_hap": ("dense.epochs=1", None),
    "baseline_cinic": ("dense.epochs=1", None),
    "kesi_tiny": ("train.epochs=1 rounds.times=2 distil.epochs=1", (12, 20, 30)),
    "hap_quant": ("share.linear=false share.bits=0 share.keep_bytes=0.1 train.epochs=1", None),
    "int8": ("int8.tolerance=0 int8.epochs=1", None),
    "fewest_bytes": (
        "rounds.times=1 train.epochs=1 finish.epochs=1 tune.epochs=1 int8.tolerance=0 int8.epochs=1",
        None,
    ),
    "smallest": (
        "search_ekg.target=0.8 rounds.times=1 train.epochs=1 finish.epochs=1 tune.epochs=1 int8.tolerance=1",
        None,
    ),
    "kesi": ("train.epochs=1 rounds.times=2 distil.epochs=1", (12, 20, 30)),
    "kesi_small_rate": ("train.epochs=3 rounds.times=1", (14, 25, 44)),
    "kesi_steps": ("train.epochs=1 rounds.times=1 distil.epochs=1 distil.batch_size=32", (14, 25, 44)),
    "kesi_weights": ("train.epochs=1 rounds.times=1 distil.epochs=1", None),
    "lottery": (
        "train.epochs=1 rounds.times=1 dense.epochs=2 dense.keep_epoch=1 reset.to=epoch",
        (8, 16, 32),
    ),
    "lottery_weights": ("train.epochs=1 rounds.times=1 dense.epochs=1", None),
    "lottery_nni": ("recover.epochs=1 rounds.times=1 distil.epochs=1", (4, 8, 16)),
    "lottery_admm": ("recover.epochs=1 admm_train.epochs=1 rounds.times=1 distil.epochs=1", (4, 8, 16)),
    "backward": ("visit.criterion=clustering recover.epochs=1 rounds.times=2 distil.epochs=1", (16, 32, 44)),
    "sfp": ("soft_train.epochs=2", (10, 20, 39)),
    "fpgm": ("soft_train.epochs=2", (10, 20, 39)),
    "slimming": ("sparse_train.epochs=1 train.epochs=1", None),
    "group_sparse": ("sparse_train.epochs=1 sparse_train.alpha=2 train.epochs=1", None),
    "growing": (
        "sparse_train.epochs=2 sparse_train.growth=1 sparse_train.learning_rate=0.05 train.epochs=1",
        (10, 20, 40),
    ),
    "agp": ("rounds.times=2 train.epochs=1 finish.epochs=1", (10, 20, 39)),
    "netadapt": ("netadapt.keep=0.9 train.epochs=1", None),
    "annealing": ("anneal.tries=3 train.epochs=1", None),
    "autocompress": (
        "admm_train.epochs=1 anneal.tries=2 recover.epochs=1 rounds.times=1 train.epochs=1",
        None,
    ),
    "landscape": ("landscape.side=3 landscape.eigen_steps=4 landscape.noises=2", None),
}
BUDGETS = {"netadapt": 0.9, "annealing": 0.5, "autocompress": 0.5}  # of the parameters
OF_RESNET_56 = {  # parameters and MACs that Li et al. 2017 publish as percentages
    "pfec_a": ("train.epochs=1", 773_336, 112_435_840),
    "pfec_b": ("train.epochs=1", 735_712, 90_907_264),
    "scratch_e": ("train.epochs=1", 735_712, 90_907_264),
    "scratch_b": ("train.epochs=1", 735_712, 90_907_264),
}
# Run by `make test-slow`: steps, switches and choices by name are those of other runs, the numbers differ.
SLOW = {"annealing", "baseline_cinic", "baseline_hap", "baseline_rethinking", "baseline_wrn", "int8", "kesi"}
SLOW |= {"kesi_small_rate", "kesi_steps", "kesi_weights", "lottery_admm", *OF_RESNET_56}
SLOW |= {"smallest", "agp", "autocompress", "backward", "lottery_nni", "netadapt"}
OWN = """
about = "mine"
[[steps]]
kind = "dense"
[[steps]]
kind = "prune"
keep_macs = 0.5
criterion = "taylor"
[[steps]]
kind = "reset"
to = "random"
[[steps]]
kind = "train"
epochs = 1
stretch = true
teacher = "dense"
distill = "kd+at"
[[steps]]
kind = "bank"
teachers = "ensemble"
[[steps]]
kind = "train"
name = "again"
epochs = 1
teacher = "bank"
filter = "sample"
"""
PARTS = """
about = "what else the published ones are made of"
[[steps]]
kind = "dense"
[[steps]]
kind = "admm_train"
epochs = 1
sparsity = 0.2
[[steps]]
kind = "anneal"
keep = 0.9
cost = "params"
tries = 2
[[steps]]
kind = "netadapt"
keep = 0.8
cost = "params"
[[steps]]
kind = "repeat"
name = "rounds"
times = 60
until_macs = 0.6
[[steps.steps]]
kind = "prune_backward"
criterion = "l1"
keep = 0.7
[[steps]]
kind = "prune_ladder"
ladder = "agp"
criterion = "fpgm"
coupling = "union"
sparsity = 0.4
[[steps]]
kind = "reset"
to = "dense"
"""


def some_slow(names):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in names]


@pytest.fixture(scope="module")
def recipe(programs, tmp_path_factory):
    """Runs a recipe in a folder, a new one if none is given."""

    def start(name, *words, folder=None):
        folder = folder or tmp_path_factory.mktemp("recipe") / "run"
        done = programs.run(
            "train_cifar.py",
            "--recipe",
            name,
            *SMALL.split(),
            *words,
            "--train_path",
            folder,
            cwd=folder.parent,
        )
        return folder, done

    return start


@pytest.fixture(scope="module")
def dense(recipe):
    """A snapshot of the dense network that most recipes here start from."""
    folder, done = recipe("baseline", "--set", *RUNS["baseline"][0].split())
    assert done.code == 0, done.err[-2000:]
    return folder / "snap_dense.pkl"


@pytest.fixture(scope="module")
def ran(recipe, dense):
    """Folder of a recipe of `RUNS`, which is run once."""
    folders = {"baseline": dense.parent}

    def finished(name):
        if name not in folders:
            settings = RUNS[name][0]
            start = () if "dense.epochs" in settings else ("--trained_param", dense)
            folders[name], done = recipe(name, *start, "--set", *settings.split())
            assert done.code == 0, done.err[-3000:]
        return folders[name]

    return finished


def plain(folder):
    """The model that the user takes home; only layers of Keras itself may be in it."""
    model = keras.models.load_model(folder / "compact.keras")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    return model


def arrays(folder, name):
    """Weights of a step's snapshot, by name."""
    return load_snapshot(folder / f"snap_{name}.pkl").arrays


def test_every_published_recipe_is_run_here():
    # By their published flags; by time in test_auto; ekg's steps with other numbers, in test_own_model.
    elsewhere = {"ekg", "distill", "hap", "auto", "ekg_imagenet"}
    assert {*RUNS, *OF_RESNET_56} | elsewhere == set(published_recipes())


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Files with recipes of one's own."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in {"own": OWN, "parts": PARTS}.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def looked_at(name: str) -> set[tuple[str, object]]:
    """What the code looks at in a recipe's steps: words and switches; of numbers and lists only the type."""
    pairs = [pair for table in tables_of(find_recipe(name).steps) for pair in table.items()]
    return {
        (key, value if isinstance(value, str | bool) else type(value))
        for key, value in pairs
        if key not in ("name", "widths")  # widths: the counts below
    }


def test_runs_that_are_slow_are_made_of_what_others_run(own):
    files = map(str, own.iterdir())
    fast = set().union(*(looked_at(name) for name in {*RUNS, *OF_RESNET_56, *files} - SLOW))
    assert {name: looked_at(name) - fast for name in SLOW} == dict.fromkeys(SLOW, set())


@pytest.mark.parametrize("name", some_slow(RUNS))
def test_a_recipe_ends_in_a_plain_network_of_its_widths(name, ran):
    folder, widths = ran(name), RUNS[name][1]
    model, report = plain(folder), read_json(folder / "report.json")
    assert report["test_reads"] == 1
    assert np.isfinite([row["test_accuracy"] for row in report["rows"]]).all()
    if widths:
        found = [model.get_layer(f"BasicBlock{stage}.0_conv1").filters for stage in range(3)]
        assert tuple(found) == widths
    if budget := BUDGETS.get(name):
        assert budget - 0.06 < report["rows"][-1]["params"] / report["rows"][0]["params"] <= budget


def test_a_landscape_is_in_the_report_and_the_network_as_it_was(ran, dense):
    folder = ran("landscape")
    report = read_json(folder / "report.json")
    found = report["landscapes"]["landscape"]
    assert np.shape(found["plane"]) == (3, 3) and found["plane"][1][1] == pytest.approx(found["loss"])
    assert found["condition"] == pytest.approx(abs(found["smallest"] / found["largest"]))
    before, after = (load_snapshot(path).arrays for path in (dense, folder / "snap_dense.pkl"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_slimming_cuts_seventy_per_cent_of_all_channels(ran):
    widths = read_json(ran("slimming") / "report.json")["widths"]
    before, after = (sum(row[key] for row in widths) for key in ("before", "after"))
    assert 0.29 <= after / before <= 0.32  # no group may lose its last channel


def test_growing_presses_what_is_cut(ran):
    before, after = (arrays(ran("growing"), name) for name in ("dense", "sparse_train"))
    plan = load_snapshot(ran("growing") / "snap_prune.pkl").plan["keep"]
    for stage in range(3):
        shares = []
        for weights in (before, after):
            energies = (weights[f"BasicBlock{stage}.0/conv1/kernel:0"] ** 2).sum((0, 1, 2))
            removed = np.delete(energies, plan[f"BasicBlock{stage}.0_conv1"])
            shares.append(removed.sum() / energies.sum())
        assert len(removed) and shares[1] < 0.8 * shares[0]


@pytest.fixture(scope="module")
def resnet_56():
    """The network that PFEC's plans are made for."""
    return nets.build("ResNet-56", shortcut="A")


@pytest.mark.parametrize("name", OF_RESNET_56)
def test_a_plan_of_resnet_56_has_the_published_counts(name, resnet_56):
    (cut,) = [table for table in tables_of(find_recipe(name).steps) if table["kind"] == "prune_fixed"]
    plan = plan_of_widths(resnet_56, published_widths(cut["widths"], resnet_56))
    count = complexity(resnet_56, plan=plan)
    assert (count.params, count.macs) == OF_RESNET_56[name][1:]


@pytest.mark.parametrize("name", some_slow(OF_RESNET_56))
def test_a_plan_of_resnet_56_ends_in_the_published_counts(name, recipe, resnet_56, tmp_path):
    settings, params, macs = OF_RESNET_56[name]
    save_snapshot(tmp_path / "dense.pkl", nets.snapshot_of(resnet_56))
    words = ("--arch", "ResNet-56", "--trained_param", tmp_path / "dense.pkl", "--train_images", 64)
    folder, done = recipe(name, *words, "--set", *settings.split())
    assert done.code == 0, done.err[-3000:]
    plain(folder)
    last = read_json(folder / "report.json")["rows"][-1]
    assert (last["params"], last["macs"]) == (params, macs)


@pytest.mark.slow  # zeros under every optimizer and the penalty of weights: tests/pruning/constrain
def test_weights_that_went_stay_away(ran):
    """KESI's weight track: exactly the same zeros after training with momentum, decay and a teacher."""
    before, after = (arrays(ran("kesi_weights"), name) for name in ("prune_weights-1", "distil"))
    kernels = [name for name, array in before.items() if array.ndim == 4]
    zeros = sum(int((before[name] == 0).sum()) for name in kernels)
    assert zeros == int(0.22 * sum(before[name].size for name in kernels)) + 1
    for name in kernels:
        assert np.array_equal(before[name] == 0, after[name] == 0)


def test_the_files_of_the_fewest_bytes_are_what_they_say(ran):
    folder = ran("fewest_bytes")
    rows = {row["name"]: row for row in read_json(folder / "report.json")["files"]}
    assert list(rows) == ["model.tflite", "int8.tflite", "small.kpz"]
    assert all(row["bytes"] == (folder / name).stat().st_size for name, row in rows.items())
    whole, small = rows["model.tflite"], rows["small.kpz"]
    assert small["bytes"] < rows["int8.tflite"]["bytes"] < whole["bytes"] / 2
    assert abs(small["holdout_accuracy"] - whole["holdout_accuracy"]) < 0.05  # 8 bits of vectors
    network = [v.numpy() for v in plain(folder).weights]
    for mine, other in zip(coding.decode(folder / "small.kpz").weights, network, strict=True):
        if other.ndim > 1:  # of a kernel's values none leaves its place
            pairs = set(zip(other.ravel().tolist(), mine.numpy().ravel().tolist(), strict=True))
            assert len(pairs) == len(np.unique(other)) and (0.0, 0.0) in pairs
        finest = mine.numpy().astype(np.float64) * 2.0**40
        assert (finest == np.round(finest)).all()
    before, after = (arrays(folder, name) for name in ("prune_weights-1", "tune"))
    for name, array in before.items():  # through training, sharing and training
        if array.ndim == 4:
            assert (after[name][array == 0] == 0).all() and (array == 0).mean() > 0.1
    page = (folder / "report.html").read_text()
    assert "small.kpz" in page and f"{small['bytes']:,}" in page


def test_the_better_of_two_files_in_8_bits_is_kept(ran):
    folder = ran("fewest_bytes")
    facts = read_json(folder / "manifest.json")["steps"]["int8"]["facts"]
    row = read_json(folder / "report.json")["files"][1]
    assert row["name"] == "int8.tflite"
    assert row["holdout_accuracy"] == max(facts["rounded"], facts.get("trained", 0))


def test_weights_that_a_budget_made_equal_stay_equal(ran):
    """A tenth of the float32 bytes is about three bits a weight, and more where the outputs ask for them."""
    folder = ran("hap_quant")
    rows = read_json(folder / "manifest.json")["steps"]["share"]["facts"]["kernels"]
    weights = sum(row["weights"] for row in rows)
    assert 0.08 * 4 * weights < sum(row["bytes"] for row in rows) <= 0.1 * 4 * weights
    assert len({row["values"] for row in rows}) > 1
    before, after = (load_snapshot(folder / f"snap_{name}.pkl").arrays for name in ("share", "train"))
    kernels = [name for name, array in before.items() if array.ndim == 4]
    assert len(kernels) == len(rows) == 9
    for name in kernels:
        old, firsts, labels = np.unique(before[name], return_index=True, return_inverse=True)
        new = after[name].ravel()[firsts]
        assert not np.array_equal(old, new)
        np.testing.assert_array_equal(after[name], new[labels].reshape(after[name].shape))
    home = [len(np.unique(v)) for v in plain(folder).weights if len(v.shape) == 4]
    assert sorted(home) == sorted(row["values"] + bool(row["zeros"]) for row in rows)


@pytest.mark.parametrize("name", ["sfp", "fpgm"])
def test_what_soft_training_left_at_zero_is_what_the_cut_removes(name, ran):
    kernel = arrays(ran(name), "soft_train")["BasicBlock1.0/conv1/kernel:0"]
    kept = load_snapshot(ran(name) / "snap_cut.pkl").plan["keep"]["BasicBlock1.0_conv1"]
    assert kept == np.flatnonzero(np.abs(kernel).sum((0, 1, 2))).tolist()


def test_a_lottery_ticket_starts_with_the_weights_of_its_epoch(ran):
    whole = arrays(ran("lottery"), "epoch1")["BasicBlock0.0/conv1/kernel:0"]
    part = arrays(ran("lottery"), "reset-1")["BasicBlock0.0/conv1/kernel:0"]
    keep = load_snapshot(ran("lottery") / "snap_reset-1.pkl").plan["keep"]
    assert np.array_equal(whole[:, :, keep["conv"]][..., keep["BasicBlock0.0_conv1"]], part)


def test_a_folder_goes_on_and_does_only_what_has_changed(ran, recipe, dense):
    folder = ran("kesi_tiny")
    before = read_json(folder / "manifest.json")["steps"]
    settings = RUNS["kesi_tiny"][0].replace("distil.epochs=1", "distil.epochs=2").split()
    _, done = recipe("kesi_tiny", "--trained_param", dense, "--set", *settings, folder=folder)
    assert "to be done again: distil, compact, litert, report" in done.out
    after = read_json(folder / "manifest.json")["steps"]
    same = {name for name in before if before[name] == after[name]}
    assert same == {"dense", "prune_fixed-1", "train-1", "prune_fixed-2", "train-2"}


def test_a_recipe_of_ones_own_runs_in_all_its_parts(recipe, dense, own):
    """Twice the epochs for half the MACs; a bank and a filter of teachers, as every recipe may have."""
    folder, done = recipe(str(own / "own.toml"), "--trained_param", dense)
    assert done.code == 0, done.err[-2000:]
    report = read_json(folder / "report.json")
    first, *_, last = report["rows"]
    assert 0.45 < last["macs"] / first["macs"] <= 0.5
    epochs = {name: [row for row in report["epochs"] if row["phase"] == name] for name in ("train", "again")}
    assert len(epochs["train"]) == round(first["macs"] / last["macs"]) == 2
    assert np.load(folder / "bank.npy").shape == (256, 10, 2)
    assert report["taught"]["again"]["filter"]["by"] == "sample"
    (epoch,) = epochs["again"]
    assert epoch["unweighted_kd"] > 0
    _, done = recipe(str(own / "own.toml"), "--trained_param", dense, "--set", "bank.skip=true")
    assert done.code == 2 and "needs a step bank" in done.err


def test_steps_of_many_recipes_follow_one_another(recipe, dense, own):
    folder, done = recipe(str(own / "parts.toml"), "--trained_param", dense)
    assert done.code == 0, done.err[-3000:]
    assert plain(folder).count_params() > 0
    names = [path.stem.removeprefix("snap_") for path in folder.glob("snap_*.pkl")]
    cost = {name: complexity(nets.load_params(None, folder / f"snap_{name}.pkl")) for name in names}
    whole, annealed, adapted = (cost[name].params for name in ("dense", "anneal", "netadapt"))
    assert adapted <= 0.8 * whole < annealed <= 0.9 * whole
    *_, before, last = (name for name in sorted(cost, key=lambda n: -cost[n].macs) if "backward" in name)
    assert cost[last].macs <= 0.6 * cost["dense"].macs < cost[before].macs
    first, last = arrays(folder, "dense"), arrays(folder, "reset")
    keep = load_snapshot(folder / "snap_reset.pkl").plan["keep"]
    kernel = first["BasicBlock0.0/conv1/kernel:0"][:, :, keep["conv"]][..., keep["BasicBlock0.0_conv1"]]
    assert np.array_equal(kernel, last["BasicBlock0.0/conv1/kernel:0"])


def test_shared_weights_stay_equal_under_every_training_that_moves_gradients(recipe, dense, tmp_path):
    own = tmp_path / "tied.toml"
    kinds = ["dense", "share", "sparse_train", "admm_train"]
    steps = [f'[[steps]]\nkind = "{kind}"\n' + "epochs = 1\n" * kind.endswith("train") for kind in kinds]
    own.write_text("\n".join(steps))
    folder, done = recipe(str(own), "--trained_param", dense, "--set", "share.bits=3")
    assert done.code == 0, done.err[-2000:]
    before, after = (arrays(folder, name) for name in ("share", "admm_train"))
    for name in [name for name, array in before.items() if array.ndim == 4]:
        assert not np.array_equal(before[name], after[name])
        values, places = np.unique(before[name], return_inverse=True)
        for place in range(len(values)):
            assert len(np.unique(after[name][places.reshape(before[name].shape) == place])) == 1


def test_ekg_is_followed_by_sharing_coding_and_rounding_in_one_run(recipe, dense, tmp_path):
    own = tmp_path / "small_ekg.toml"
    kinds = ['kind = "share"\nbits = 4', 'kind = "train"\nepochs = 1', 'kind = "encode"', 'kind = "int8"']
    settings = 'set = ["warm_up.skip=true", "search_ekg.target=0.9", "fine_tune.epochs=1"]\n'
    steps = "".join(f"[[steps]]\n{kind}\n" for kind in kinds)
    own.write_text(f'about = "mine"\nbased_on = "ekg"\n{settings}{steps}')
    folder, done = recipe(str(own), "--trained_param", dense, "--num_teacher", 2, "--set", "int8.epochs=0")
    assert done.code == 0, done.err[-2000:]
    report = read_json(folder / "report.json")
    assert [row["name"] for row in report["files"]] == ["model.tflite", "int8.tflite", "encode.kpz"]
    assert [row["name"] for row in report["rows"]] == ["baseline", "slimmed", "trained", "train"]
    assert report["search"][-1]["rate"] <= 0.9 and len(report["bank"]["teachers"]) == 2
    assert report["taught"]["fine_tune"]["stored"] and report["config"]["flags"]["train_epoch"] == 1
    kernels = [array for array in arrays(folder, "train").values() if array.ndim == 4]
    assert all(len(np.unique(kernel)) <= 17 for kernel in kernels)


def test_filters_that_become_zero_cannot_share(recipe, dense, tmp_path):
    own = tmp_path / "soft.toml"
    own.write_text("\n".join(f'[[steps]]\nkind = "{kind}"' for kind in ("dense", "share", "soft_train")))
    _, done = recipe(str(own), "--trained_param", dense)
    assert done.code == 2 and "soft_train behind a step that shares" in done.err


@pytest.mark.slow  # kills are those of test_interrupted
def test_a_killed_run_goes_on_to_the_same_bits_and_begins_anew_with_another_rate(
    programs, recipe, ran, dense, tmp_path
):
    words = ["kesi_small_rate", "--trained_param", dense, "--until", "rounds"]
    words += ["--set", *RUNS["kesi_small_rate"][0].split()]
    folder, other = tmp_path / "killed", tmp_path / "other"
    command = ["train_cifar.py", "--recipe", words[0], *SMALL.split(), *words[1:], "--train_path", folder]
    process = programs.start(*command, cwd=tmp_path)
    while not list(folder.glob("checkpoint_train-1-*.pkl")):
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert programs.wait().code == -signal.SIGKILL
    shutil.copytree(folder, other)
    _, done = recipe(*words, folder=folder)
    assert "train-1: continuing after epoch" in done.out
    first, second = (sha256(path / "snap_train-1.pkl") for path in (folder, ran(words[0])))
    assert first == second
    _, done = recipe(*words, "train.learning_rate=0.01", folder=other)
    assert "to be done again: prune_fixed-1, train-1\n" in done.out and "continuing" not in done.out
    rates = [row["learning_rate"] for row in read_json(other / "report.json")["epochs"]]
    assert rates == pytest.approx([0.01] * 3)
