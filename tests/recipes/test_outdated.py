"""A folder that goes on with other options does again what depends on them, and nothing else."""

import shutil

import pytest

from secateur import dataloader
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.outdated import DEFAULTS, IMAGES, MAY_DIFFER, forget_changed, images_of
from secateur.recipes.engine.program import program_of
from secateur.runs import MetricsLog, RunFolder, RunFolderError, read_json, read_jsonl, sha256, write_json

NETWORK = ["--arch", "ResNet-8", "--dataset", "DIGITS", "--target_rate", 0.9, "--train_epoch", 2]
NETWORK += ["--train_images", 512, "--time_seconds", 0.1]


def again(programs, folder, *options) -> str:
    """Runs the command in `folder`; returns the first line that it prints."""
    done = programs.run("train_cifar.py", *NETWORK, *options, "--train_path", folder, cwd=folder.parent)
    assert done.code == 0, done.err[-2000:]
    return done.out.splitlines()[0]


def times(folder) -> dict[str, str]:
    """When each step was done, and what came out."""
    steps = read_json(folder / "manifest.json")["steps"]
    return {name: (entry["time"], entry["seconds"], entry["sha256"]) for name, entry in steps.items()}


@pytest.mark.slow
def test_after_searching_the_whole_command_goes_on(published, programs, tmp_path):
    """… and ends in the bits of a run that did not stop in between."""
    folder, source = tmp_path / "run", ["--trained_param", published.folder / "snap_baseline.pkl"]
    again(programs, folder, *source, "--searching")
    before = times(folder)
    assert list(before) == ["baseline", "warm_up", "search_ekg", "search_ekg-cut", "bank", "report"]
    line = again(programs, folder, *source)
    assert line.endswith("until=bank is now None, searching=True is now False; to be done again: report")
    after = times(folder)
    assert {name: after[name] for name in before if name != "report"} == {
        name: entry for name, entry in before.items() if name != "report"
    }
    assert sha256(folder / "trained_param.pkl") == sha256(published.folder / "trained_param.pkl")
    report = read_json(folder / "report.json")
    assert [row["name"] for row in report["rows"]] == ["baseline", "slimmed", "trained"]
    assert report["config"]["flags"]["searching"] is False
    assert read_json(folder / "config.json")["flags"]["searching"] is False


def test_without_knowledge_only_the_fine_tuning_is_done_again(published, programs, tmp_path):
    folder = shutil.copytree(published.folder, tmp_path / "run")
    before = times(folder)
    line = again(programs, folder, "--baseline_epoch", 2, "--no-Knowledge")
    expected = "Knowledge=True is now False; to be done again: bank, fine_tune, compact, litert, report"
    assert line == f"{folder}: {expected}"
    after = times(folder)
    redone = {"fine_tune", "compact", "litert", "report"}
    assert set(after) == set(before) - {"bank"}
    assert {name for name in after if after[name] != before[name]} == redone
    assert sha256(folder / "trained_param.pkl") != sha256(published.folder / "trained_param.pkl")
    rows = read_jsonl(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["phase"] == "fine_tune"] == [1, 2]
    report = read_json(folder / "report.json")
    assert report["bank"] == {} and "bank" not in report["seconds"]  # the one on disk was not used
    assert not again(programs, folder, "--baseline_epoch", 2, "--no-Knowledge").startswith(str(folder))


STEPS = ["search_ekg", "search_ekg-cut", "bank", "fine_tune", "report"]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("", STEPS),
        ("--setting night --do_log 1", STEPS),
        ("--bn batch", STEPS[:4]),
        ("--learning_rate 0.1 --bn batch", STEPS[:3]),
        ("--num_teacher 3", STEPS[:2]),
        ("--target_rate 0.4", []),
    ],
)
def test_the_earliest_change_decides(tmp_path, change, left, capsys):
    first, second = (program_of(choose(words.split())).to_json() for words in ("", change))
    with RunFolder(tmp_path, first) as folder, MetricsLog(folder, tensorboard=False) as log:
        for step in STEPS:
            folder.write(step, b"made")
            folder.record(step, step, 1.0)
        log.log(1, phase="fine_tune", loss=1.0)
        forget_changed(folder, log, second)
        assert [step for step in STEPS if folder.done(step)] == left
        assert len(log.rows("fine_tune")) == ("fine_tune" in left)
        assert (tmp_path / "fine_tune").read_bytes() == b"made"
    assert capsys.readouterr().out.count("to be done again") == (left != STEPS)


IMAGES_OF_ANTS = {"classes": ["ant", "bee"], "count": 40, "left out": 0, "labels": "1f"}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, STEPS),
        ({"classes": ["cat", "dog"]}, None),
        ({"labels": "2e"}, None),
        ({"count": 41}, None),
        ({"count": 38, "left out": 2, "labels": "2e"}, []),
    ],
)
def test_a_folder_belongs_to_its_images_wherever_they_lie(tmp_path, change, left, capsys):
    program = program_of(choose([])).to_json()
    with RunFolder(tmp_path, program | {IMAGES: IMAGES_OF_ANTS, "data": "here"}, MAY_DIFFER) as folder:
        for step in STEPS:
            folder.write(step, b"made")
            folder.record(step, step, 1.0)
    other = program | {IMAGES: IMAGES_OF_ANTS | change, "data": "there"}
    with RunFolder(tmp_path, other, MAY_DIFFER) as folder, MetricsLog(folder, tensorboard=False) as log:
        if left is None:
            with pytest.raises(RunFolderError, match="holds a run on other images, 40 of"):
                forget_changed(folder, log, other)
        else:
            forget_changed(folder, log, other)
            assert folder.steps() == left
            said = "0 images were left out, now 2; to be done again" in capsys.readouterr().out
            assert said == bool(change) and (read_json(tmp_path / "config.json")["data"] == "there") == said


def test_a_run_that_has_done_nothing_takes_other_images(tmp_path):
    program = program_of(choose([])).to_json()
    first, other = (program | {IMAGES: IMAGES_OF_ANTS | {"count": n}, "data": str(n)} for n in (40, 41))
    for config in (first, other):
        with RunFolder(tmp_path, config, MAY_DIFFER) as folder, MetricsLog(folder, tensorboard=False) as log:
            forget_changed(folder, log, config)
    assert read_json(tmp_path / "config.json") == other


def test_images_are_known_by_their_labels(tmp_path):
    digits = images_of(dataloader.load("DIGITS"))
    assert digits == images_of(dataloader.load("DIGITS")) and len(digits["classes"]) == 10
    fewer = dataloader.load("DIGITS").first(100)
    assert digits["labels"] != images_of(fewer)["labels"] and images_of(fewer)["count"] < digits["count"]


def test_a_folder_of_before_an_option_goes_on_as_with_its_default(tmp_path, capsys):
    """Options of the run, and of a step; neither refuses it or makes a step outdated."""
    program, other = (program_of(choose(words)).to_json() for words in ([], ["--sync_bn"]))
    before = {key: value for key, value in program.items() if key not in ("sync_bn", "nan")}
    before["program"] = [{k: v for k, v in step.items() if k != "dtype"} for step in program["program"]]
    assert before["program"] != program["program"]
    with RunFolder(tmp_path, before) as folder:
        folder.write("bank", b"made")
        folder.record("bank", "bank", 1.0)
    with RunFolder(tmp_path, program, MAY_DIFFER, DEFAULTS) as folder:
        with MetricsLog(folder, tensorboard=False) as log:
            forget_changed(folder, log, program)
        assert folder.done("bank") and capsys.readouterr().out == ""
    with pytest.raises(RunFolderError, match="sync_bn=False there. Received: sync_bn=True"):
        with RunFolder(tmp_path, other, MAY_DIFFER, DEFAULTS):
            pass


def test_a_folder_of_an_older_engine_is_refused_in_one_line(programs, tmp_path):
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "config.json", {"arch": "ResNet-8", "search_target_rate": 0.8})
    done = programs.run("train_cifar.py", *NETWORK, "--train_path", tmp_path / "run", cwd=tmp_path)
    (line,) = [text for text in done.err.splitlines() if not text.startswith("warning")]
    assert done.code == 5 and "another version" in line and "--train_path" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
