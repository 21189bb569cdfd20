"""Every published recipe from beginning to end on the digits, in a network of eight layers."""

import keras
import numpy as np
import pytest

from recipes.recipe_file import published_recipes
from runs import load_snapshot, read_json, sha256

SMALL = (
    "--arch ResNet-8 --dataset DIGITS --pipeline ekg --batch_size 64 --train_images 256 --time_seconds 0.02"
)
# What is shorter here, and the widths that the recipe leaves of the stages' 16, 32 and 64 inner channels.
RUNS: dict[str, tuple[str, tuple[int, int, int] | None]] = {
    "baseline_rethinking": ("dense.epochs=2", None),
    "baseline_hap": ("dense.epochs=2", None),
    "hap_quant": ("train.epochs=1", None),
    "kesi": ("train.epochs=1 rounds.times=2 distil.epochs=1", (12, 20, 30)),
    "kesi_small_rate": ("train.epochs=1 rounds.times=1", (14, 25, 44)),
    "kesi_steps": ("train.epochs=1 rounds.times=1 distil.epochs=1 distil.batch_size=32", (14, 25, 44)),
    "kesi_weights": ("train.epochs=1 rounds.times=1 distil.epochs=1", None),
    "lottery": (
        "train.epochs=1 rounds.times=1 dense.epochs=1 dense.keep_epoch=1 reset.to=epoch",
        (8, 16, 32),
    ),
    "lottery_weights": ("train.epochs=1 rounds.times=1 dense.epochs=1", None),
    "lottery_nni": ("recover.epochs=1 rounds.times=1 distil.epochs=1", (4, 8, 16)),
    "lottery_admm": ("recover.epochs=1 admm_train.epochs=1 rounds.times=1 distil.epochs=1", (4, 8, 16)),
    "backward": ("visit.criterion=clustering recover.epochs=1 rounds.times=2 distil.epochs=1", (16, 32, 44)),
    "sfp": ("soft_train.epochs=2", (10, 20, 39)),
    "fpgm": ("soft_train.epochs=2", (10, 20, 39)),
    "slimming": ("sparse_train.epochs=1 train.epochs=1", None),
    "agp": ("rounds.times=2 train.epochs=1 finish.epochs=1", (10, 20, 39)),
    "netadapt": ("netadapt.keep=0.9 train.epochs=1", None),
    "annealing": ("anneal.tries=3 train.epochs=1", None),
    "autocompress": (
        "admm_train.epochs=1 anneal.tries=2 recover.epochs=1 rounds.times=1 train.epochs=1",
        None,
    ),
}
OTHER_NETS = {  # their plans are for other architectures, or only the schedule is theirs
    "baseline": "--arch ResNet-8 --set dense.epochs=1 dense.batch_size=64",
    "baseline_wrn": "--arch ResNet-8 --set dense.epochs=1 dense.batch_size=64",
    "kesi_tiny": "--arch ResNet-18 --set dense.epochs=1 train.epochs=1 rounds.times=1 distil.epochs=1",
    "baseline_cinic": "--arch ResNet-8 --set dense.epochs=1",
    "pfec_a": "--arch ResNet-56 --set dense.epochs=1 train.epochs=1",
    "pfec_b": "--arch ResNet-56 --set dense.epochs=1 train.epochs=1",
    "scratch_e": "--arch ResNet-56 --set dense.epochs=1 train.epochs=1",
    "scratch_b": "--arch ResNet-56 --set dense.epochs=1 train.epochs=1",
}


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
    folder, done = recipe("baseline", "--set", "dense.epochs=6", "dense.batch_size=64")
    assert done.code == 0, done.err[-2000:]
    return folder / "snap_dense.pkl"


def plain(folder):
    """The model that the user takes home; only layers of Keras itself may be in it."""
    model = keras.models.load_model(folder / "compact.keras")
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    return model


def test_every_published_recipe_is_run_here():
    assert {*RUNS, *OTHER_NETS} == set(published_recipes())


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_ends_in_a_plain_network_of_its_widths(name, recipe, dense):
    settings, widths = RUNS[name]
    start = () if "dense.epochs" in settings else ("--trained_param", dense)
    folder, done = recipe(name, *start, "--set", *settings.split())
    assert done.code == 0, done.err[-3000:]
    model, report = plain(folder), read_json(folder / "report.json")
    assert report["test_reads"] == 1
    assert np.isfinite([row["test_accuracy"] for row in report["rows"]]).all()
    if widths:
        found = [model.get_layer(f"BasicBlock{stage}.0_conv1").filters for stage in range(3)]
        assert tuple(found) == widths


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_NETS)
def test_a_recipe_of_another_network_runs_too(name, recipe):
    folder, done = recipe(name, *OTHER_NETS[name].split())
    assert done.code == 0, done.err[-3000:]
    plain(folder)


def test_weights_that_went_stay_away(recipe, dense):
    """KESI's weight track: exactly the same zeros after training with momentum, decay and a teacher."""
    settings = "train.epochs=1 rounds.times=1 distil.epochs=1"
    folder, done = recipe("kesi_weights", "--trained_param", dense, "--set", *settings.split())
    assert done.code == 0, done.err[-2000:]
    before, after = (
        load_snapshot(folder / f"snap_{name}.pkl").arrays for name in ("prune_weights-1", "distil")
    )
    kernels = [name for name, array in before.items() if array.ndim == 4]
    zeros = sum(int((before[name] == 0).sum()) for name in kernels)
    assert zeros == int(0.22 * sum(before[name].size for name in kernels)) + 1
    for name in kernels:
        assert np.array_equal(before[name] == 0, after[name] == 0)


def test_weights_that_a_budget_made_equal_stay_equal(recipe, dense):
    """A tenth of the float32 bytes is about three bits a weight, and more where the loss asks for them."""
    settings = ("share.keep_bytes=0.1", "train.epochs=1")
    folder, done = recipe("hap_quant", "--trained_param", dense, "--set", *settings)
    assert done.code == 0, done.err[-2000:]
    rows = read_json(folder / "manifest.json")["steps"]["share"]["facts"]["kernels"]
    weights = sum(row["weights"] for row in rows)
    assert 0.08 * 4 * weights < sum(row["bytes"] for row in rows) <= 0.1 * 4 * weights
    assert len({row["bits"] for row in rows}) > 1
    before, after = (load_snapshot(folder / f"snap_{name}.pkl").arrays for name in ("share", "train"))
    kernels = [name for name, array in before.items() if array.ndim == 4]
    assert len(kernels) == len(rows) == 9
    for name in kernels:
        old, firsts, labels = np.unique(before[name], return_index=True, return_inverse=True)
        new = after[name].ravel()[firsts]
        assert not np.array_equal(old, new)
        np.testing.assert_array_equal(after[name], new[labels].reshape(after[name].shape))
    home = [len(np.unique(v)) for v in plain(folder).weights if len(v.shape) == 4]
    assert sorted(home) == sorted(row["values"] for row in rows)


def test_a_folder_goes_on_and_does_only_what_has_changed(recipe, dense):
    settings = ["train.epochs=1", "rounds.times=1", "distil.epochs=1"]
    start = ("--trained_param", dense, "--set")
    folder, _ = recipe("kesi", *start, *settings)
    before = read_json(folder / "manifest.json")["steps"]
    _, done = recipe("kesi", *start, *settings[:2], "distil.epochs=2", folder=folder)
    assert "to be done again: distil, compact, litert, report" in done.out
    after = read_json(folder / "manifest.json")["steps"]
    same = {name for name in before if before[name] == after[name]}
    assert same == {"dense", "prune_fixed-1", "train-1"}


def test_a_lottery_ticket_starts_with_the_weights_of_its_epoch(recipe):
    settings = "train.epochs=1 rounds.times=1 dense.epochs=2 dense.keep_epoch=1 reset.to=epoch"
    folder, done = recipe("lottery", "--set", *settings.split())
    assert done.code == 0, done.err[-2000:]
    kept, ticket = (load_snapshot(folder / f"snap_{name}.pkl") for name in ("epoch1", "reset-1"))
    name = "BasicBlock0.0/conv1/kernel:0"
    whole, part = kept.arrays[name], ticket.arrays[name]
    channels = ticket.plan["keep"]["BasicBlock0.0_conv1"]
    stem = ticket.plan["keep"]["conv"]
    assert np.array_equal(whole[:, :, stem][..., channels], part)


def test_a_recipe_of_ones_own_runs_and_two_runs_end_in_the_same_bits(recipe, dense, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        'about = "mine"\n[[steps]]\nkind = "dense"\n[[steps]]\nkind = "prune"\nkeep_macs = 0.5\n'
        'criterion = "taylor"\n[[steps]]\nkind = "train"\nepochs = 1\nteacher = "dense"\ndistill = "kd+at"\n'
    )
    folders = [recipe(str(own), "--trained_param", dense)[0] for _ in range(2)]
    rows = read_json(folders[0] / "report.json")["rows"]
    assert 0.45 < rows[-1]["macs"] / rows[0]["macs"] <= 0.5
    first, second = (sha256(folder / "snap_train.pkl") for folder in folders)
    assert first == second
