"""Bad input as a shell sees it: a documented code, one or two lines, and nothing lost."""

import pickle
import shutil

import numpy as np
import pytest

from secateur.recipes.engine.program import ENGINE
from secateur.runs import (
    EXIT_CODES,
    RunFolder,
    Snapshot,
    load_snapshot,
    read_json,
    save_snapshot,
    sha256,
    write_json,
)

DIGITS = ["--arch", "ResNet-8", "--dataset", "DIGITS"]
WARNING = "warning: no GPU"


def refused(done, code: int, *said: str) -> None:
    """Asserts the code and that all of `said` is in at most two lines besides progress and GPU warning."""
    assert code in EXIT_CODES and done.code == code, done.err[-2000:]
    assert "Traceback" not in done.err
    lines = [line for line in done.err.split("\n") if line.strip() and not line.startswith(WARNING)]
    lines = [line for line in lines if "%|" not in line]  # progress bars
    assert 1 <= len(lines) <= 2 and lines[0].startswith("error: "), lines
    for part in said:
        assert part in done.err, (part, lines)


@pytest.fixture(scope="module")
def snapshots(published, tmp_path_factory) -> dict:
    """Name → a snapshot that cannot be used."""
    folder = tmp_path_factory.mktemp("snapshots")
    whole = (published.folder / "trained_param.pkl").read_bytes()
    good = load_snapshot(published.folder / "snap_baseline.pkl")
    contents = {
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "text": b"accuracy 93.82 %\n",
        "empty": b"",
        "list": pickle.dumps([1, 2, 3]),
        "foreign": pickle.dumps({"layer1.0.conv1.weight": np.zeros((3, 3), np.float32)}),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    narrow = dict(good.arrays)
    narrow["BasicBlock0.0/conv2/kernel:0"] = narrow["BasicBlock0.0/conv2/kernel:0"][..., :15]
    (folder / "odd").write_bytes(pickle.dumps({name: np.array(a) for name, a in narrow.items()}))
    save_snapshot(folder / "odd_ours", Snapshot(narrow, good.spec, good.plan, good.facts))
    (folder / "folder").mkdir()
    return {path.name: path for path in folder.iterdir()} | {"missing": folder / "missing"}


KINDS = ["missing", "folder", "truncated", "flipped", "text", "empty", "list", "foreign", "odd", "odd_ours"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_that_cannot_be_used_is_code_4(programs, snapshots, tmp_path, kind):
    path = snapshots[kind]
    options = [*DIGITS, "--trained_param", path]
    done = programs.run("train_cifar.py", *options, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, 4, str(path))
    assert not (tmp_path / "run").exists()  # the next, right command finds no folder that another one claimed
    if kind in ("missing", "odd"):
        refused(programs.run("test.py", *options, cwd=tmp_path), 4, str(path))


@pytest.mark.parametrize("program", ["train_cifar.py", "test.py"])
def test_a_snapshot_of_another_network_is_code_4(programs, published, tmp_path, program):
    path = published.folder / "trained_param.pkl"
    options = ["--arch", "ResNet-56", "--dataset", "DIGITS", "--trained_param", path]
    said = [str(path), "Received: arch=ResNet-8", "ResNet-56", "Pass --arch ResNet-8"]
    refused(programs.run(program, *options, cwd=tmp_path), 4, *said)
    options = ["--arch", "ResNet-8", "--dataset", "CIFAR100", "--trained_param", path]
    said = ["Received: classes=10", "CIFAR100", "Pass --dataset CIFAR10 or DIGITS"]
    refused(programs.run(program, *options, cwd=tmp_path), 4, *said)


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (
            ["--arch", "ResNet-57", "--dataset", "DIGITS"],
            2,
            ["arch='ResNet-57'", "Did you mean 'ResNet-56'?"],
        ),
        (["--arch", "ResNet-8", "--dataset", "DIGTIS"], 2, ["dataset='DIGTIS'", "Did you mean 'DIGITS'?"]),
        ([*DIGITS, "--batch_size", 5000], 3, ["Received: batch_size=5000", "training images of DIGITS"]),
        ([*DIGITS, "--tpu", "local"], 2, ["Received: tpu='local'"]),
        ([*DIGITS, "--gpu_id", -1], 2, ["Received: gpu_id=[-1]"]),
        ([*DIGITS, "--target_rate", 0.001], 2, ["Received: target_rate=0.001", "out of reach"]),
        ([*DIGITS, "--target_rate", 0.001, "--criterion", "l1"], 2, ["Received: target_rate=0.001"]),
    ],
)
def test_what_cannot_be_is_answered_before_a_folder_is_claimed(programs, tmp_path, options, code, said):
    done = programs.run("train_cifar.py", *options, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, code, *said)
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_is_not_there_is_code_3(programs, tmp_path):
    """An empty file where the folder should be: nothing can be found or downloaded."""
    (tmp_path / "file").write_bytes(b"")
    options = ["--arch", "ResNet-8", "--dataset", "CIFAR10", "--data_path", tmp_path / "file" / "tfds"]
    done = programs.run("train_cifar.py", *options, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, 3, "CIFAR10", str(tmp_path / "file"))


# --- run folders -------------------------------------------------------------------------------------------

RUN = [*DIGITS, "--gpu_id", 0, "--target_rate", 0.9, "--baseline_epoch", 2, "--train_epoch", 2]
RUN += ["--train_images", 512, "--time_seconds", 0.1]


def digests(folder) -> dict[str, str]:
    return {p.name: sha256(p) for p in folder.iterdir() if p.is_file() and p.name != ".lock"}


def test_a_file_in_the_place_of_the_folder_is_code_5(programs, tmp_path):
    (tmp_path / "run").write_text("mine")
    done = programs.run("train_cifar.py", *DIGITS, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, 5, str(tmp_path / "run"), "--train_path")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_folder_in_use_is_code_5(programs, tmp_path):
    with RunFolder(tmp_path / "run", {"engine": ENGINE}):
        done = programs.run("train_cifar.py", *DIGITS, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, 5, "is busy", str(tmp_path / "run"), "--train_path")


def test_a_folder_of_another_run_is_code_5_and_stays_as_it_is(programs, published):
    before = digests(published.folder)
    done = programs.run(
        "train_cifar.py", *RUN, "--seed", 2, "--train_path", published.folder, cwd=published.cwd
    )
    refused(done, 5, "seed=1", "Received: seed=2", "--train_path")
    assert digests(published.folder) == before


@pytest.fixture
def unfinished(published, tmp_path):
    """A copy of the run in which some steps are not done yet."""

    def make(*steps: str):
        folder = shutil.copytree(published.folder, tmp_path / "run")
        manifest = read_json(folder / "manifest.json")
        for step in steps:
            (folder / manifest["steps"].pop(step)["file"]).unlink()
        write_json(folder / "manifest.json", manifest)
        return folder

    return make


@pytest.mark.parametrize(
    ("step", "file", "limit"),
    [
        ("bank", "bank.npy", 30_000),
        ("compact", "compact.keras", 100_000),
        ("litert", "model.tflite", 100_000),
    ],
)
def test_a_full_disk_is_code_5_and_loses_nothing(programs, published, unfinished, step, file, limit):
    folder = unfinished(step)
    before = digests(folder)
    options = [*RUN, "--train_path", folder]
    refused(
        programs.run("train_cifar.py", *options, cwd=folder.parent, file_limit=limit), 5, "disk full", file
    )
    assert digests(folder) == before  # and no half file is left
    if step == "bank":  # its bits depend on nothing but the networks
        again = programs.run("train_cifar.py", *options, cwd=folder.parent)
        assert again.code == 0 and "trained" in again.out, again.err
        assert sha256(folder / file) == sha256(published.folder / file)


def written(path) -> tuple[int, int]:
    """Which file it is, and when it was last written."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def test_a_repetition_mends_its_page_and_writes_nothing_else(programs, published, tmp_path):
    """So it needs no space on a full disk; nor does it need a standard stream."""
    folder = shutil.copytree(published.folder, tmp_path / "run")
    page = folder / "report.html"
    whole, untouched = page.read_bytes(), {p: written(p) for p in folder.rglob("*") if p.is_file()}
    for damaged in (whole, whole[:-1000]):
        page.write_bytes(damaged)
        closed = (0, 1, 2) if damaged is whole else ()
        options = {"cwd": published.cwd, "closed": closed}
        done = programs.run("train_cifar.py", *RUN, "--train_path", folder, **options)
        assert done.code == 0, done.err[-2000:]
        assert page.read_bytes() == whole
        assert ("report.html is gone, damaged or changed" in done.err) == (damaged is not whole)
        for path in untouched.keys() - {page, folder / ".lock"}:
            if damaged is whole or path.name != "manifest.json":
                assert written(path) == untouched[path], path


@pytest.mark.parametrize(
    "content", ["[1]", "null", '{"engine": 2, "program": 5}', '{"engine": 2, "flags": []}']
)
def test_options_that_no_run_has_written_are_code_5(programs, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(content)
    done = programs.run("train_cifar.py", *DIGITS, "--train_path", tmp_path / "run", cwd=tmp_path)
    refused(done, 5, "config.json is damaged", "--train_path")


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_a_name_that_no_folder_can_have_is_code_5(programs, tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    done = programs.run("train_cifar.py", *DIGITS, "--train_path", tmp_path / name, cwd=tmp_path)
    refused(done, 5, name, "--train_path")


def test_a_diverging_run_is_code_6_and_goes_on_with_what_it_has(programs, published, tmp_path):
    source = published.folder / "snap_baseline.pkl"
    options = [*DIGITS, "--criterion", "l1", "--trained_param", source, "--train_path", tmp_path / "run"]
    options += ["--time_seconds", 0.1]
    fast = [*options, "--learning_rate", "1e9", "--train_epoch", 3]
    said = ["fine_tune, epoch 1: ", "at learning rate 1e+09", "--set fine_tune.learning_rate=1e+08"]
    refused(programs.run("train_cifar.py", *fast, cwd=tmp_path), 6, *said)
    folder = tmp_path / "run"
    assert {"snap_baseline.pkl", "slimmed_param.pkl", "plan_l1.json"} <= set(digests(folder))
    for path in [*folder.glob("*.pkl")]:
        assert all(np.isfinite(array).all() for array in load_snapshot(path).arrays.values()), path.name
    before = digests(folder)
    slow = programs.run(
        "train_cifar.py", *options, "--learning_rate", "1e-3", "--train_epoch", 1, cwd=tmp_path
    )
    assert slow.code == 0 and "learning_rate=1000000000.0 is now 0.001" in slow.out, slow.err
    assert digests(folder)["slimmed_param.pkl"] == before["slimmed_param.pkl"]
