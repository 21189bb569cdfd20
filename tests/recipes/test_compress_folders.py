"""`secateur.compress` on the path of a folder of images."""

import shutil

import keras
import numpy as np
import pytest

import secateur
from secateur import dataloader
from secateur.recipes.engine import compress
from secateur.runs import DataError, UsageError, read_json

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def model(stripes):
    return keras.models.load_model(stripes / "stripes.keras")


@pytest.fixture
def read(monkeypatch, model):
    """The splits of a call, of which nothing is run."""

    class Read(Exception):
        pass

    def stop(options, subject, splits, in_memory):
        raise Read(splits)

    monkeypatch.setattr(compress, "run_on", stop)

    def call(*data, **options):
        with pytest.raises(Read) as found:
            secateur.compress(model, *data, **options)
        return found.value.args[0]

    return call


PARTS = ("train", "search", "warmup", "holdout")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_folder_is_what_data_reads_and_a_tenth_of_it_is_held_out(stripes, read, stream, kind):
    splits = read(kind(stripes / "images"), stream=stream)
    expected = dataloader.load("folder", str(stripes / "images"), "0..255", shape=(16, 16, 3), stream=stream)
    for part in PARTS:
        ours, theirs = getattr(splits, part), getattr(expected, part)
        assert type(ours.images) is type(theirs.images)
        assert np.array_equal(ours.images[:], theirs.images[:]) and np.array_equal(ours.labels, theirs.labels)
    assert len(splits.holdout) == 8 and list(splits.measured) == ["holdout"]
    assert splits.facts.class_names == ("lying", "upright")


def test_parts_are_folders_or_arrays(stripes, read, tmp_path, monkeypatch):
    for part in ("train", "valid"):
        shutil.copytree(stripes / "images", tmp_path / part)
    beside = read(tmp_path)
    assert list(beside.measured) == ["holdout", "test"] and len(beside.test) == 80
    splits = read(tmp_path, tmp_path / "valid")
    assert list(splits.measured) == ["holdout"] and len(splits.holdout) == 80, "one part has one purpose"
    some = beside.holdout.images[:], beside.holdout.labels
    splits = read(tmp_path, some, test=some)
    assert len(splits.train) + len(splits.search) == 80 and len(splits.holdout) == len(splits.test) == 8
    monkeypatch.chdir(tmp_path.parent)
    splits = read(tmp_path.name, tmp_path / "valid")
    assert list(splits.measured) == ["holdout"], "a path is one folder, however it is written"
    with pytest.raises(DataError, match="images to train on. Received: test=.*\ngive the one .* of test"):
        read(tmp_path, test=tmp_path)
    (tmp_path / "train" / "lying" / "a.png").touch()
    with pytest.raises(DataError, match="leave them out with skip_bad=True.*\nReceived: .*a.png"):
        secateur.compress(keras.models.load_model(stripes / "stripes.keras"), tmp_path)
    assert read(tmp_path, skip_bad=True).skipped == {"train": 1}


def test_a_folder_that_cannot_be_used_is_named(stripes, model, tmp_path):
    (tmp_path / "flat").mkdir()
    shutil.copy(stripes / "images" / "lying" / "00.png", tmp_path / "flat")
    shutil.copytree(stripes / "images" / "lying", tmp_path / "other" / "lying")
    shutil.copytree(stripes / "images" / "lying", tmp_path / "other" / "plain")
    for data, said in (
        (["nowhere"], "no such folder. Received: train=.*nowhere\n"),
        ([("here", "there")], r"One folder at a time.* Received: train=\('here', 'there'\)"),
        (["~no.such.user/x"], "no such folder. Received: train=.*~no.such.user/x\n"),
        ([tmp_path / "a--stream"], "no such folder. Received: train=.*/a--stream\n"),
        ([tmp_path / "flat"], "A sub-folder of images for each class.*Received: train=.*flat"),
        (
            [stripes / "images", tmp_path / "other"],
            r"the same sub-folders.*Received: holdout=.*other, \['plain', 'upright'\] not in each",
        ),
    ):
        with pytest.raises(DataError, match=said) as error:
            secateur.compress(model, *data)
        assert len(str(error.value).splitlines()) <= 2


def test_classes_of_a_folder_must_be_those_of_the_model(stripes):
    """A model of three learned two without a word, and one of numbers the numbers of the classes."""
    for units, loss, said in (
        (
            3,
            "sparse_categorical_crossentropy",
            r"outputs \[\(3,\)\], the data 2 classes \(lying, upright\): .*data=.*images",
        ),
        (1, "mse", "classes as labels.*\n?.*loss=mean_squared_error\ngive .images, labels"),
        (2, "binary_crossentropy", "classes as labels.*loss=binary_crossentropy"),
    ):
        x = keras.Input((16, 16, 3))
        y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
        model = keras.Model(x, keras.layers.Dense(units)(y))
        model.compile(loss=loss)
        with pytest.raises(UsageError, match=said):
            secateur.compress(model, stripes / "images", recipe="netadapt")


def test_a_run_on_a_folder_ends_in_a_smaller_model_and_knows_its_data(stripes, model, tmp_path):
    how = {"recipe": "pfec_b", "keep_macs": 0.6, "shorten": 0.03, "batch_size": 16, "time_seconds": 0.01}
    found = secateur.compress(model, stripes / "images", folder=tmp_path / "run", **how)
    before, after = found.report["rows"][0], found.report["rows"][-1]
    assert after["macs"] <= 0.6 * before["macs"] and before["holdout_accuracy"] == 1
    assert found.report["class_names"] == ["lying", "upright"]
    other = tmp_path / "other"
    shutil.copytree(stripes / "images", other)
    (other / "lying" / "39.png").unlink()
    with pytest.raises(secateur.runs.RunFolderError, match="other"):
        secateur.compress(model, other, folder=tmp_path / "run", **how)
    assert read_json(tmp_path / "run" / "config.json")["in_memory"]["train labels"]
