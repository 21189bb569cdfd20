"""Real CIFAR files: facts of the data sets, files that are damaged, folders that are empty."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader
from secateur.dataloader.sources import tfds
from secateur.runs.errors import DataError

FROG, TRUCK = 6, 9


@pytest.fixture
def cifar100_copy(data_dir, tmp_path):
    """A writable copy of CIFAR-100 (here: ten training images a class)."""
    source = data_dir / "tfds" / "cifar100"
    if not source.is_dir():
        pytest.skip(f"no prepared cifar100 in {source.parent}")
    shutil.copytree(source, tmp_path / "cifar100", copy_function=shutil.copyfile)
    for path in [tmp_path / "cifar100", *(tmp_path / "cifar100").rglob("*")]:
        path.chmod(0o755)
    return tmp_path


def train_file(folder):
    return next(folder.rglob("cifar100-train.tfrecord*"))


def load100(folder) -> dataloader.Splits:
    return dataloader.load("CIFAR100", str(folder), download=False)


def official_train(splits: dataloader.Splits) -> dataloader.Images:
    """Put the training images back together, by their ids."""
    parts = [splits.train, splits.search, splits.holdout]
    order = np.argsort(np.concatenate([part.ids for part in parts]))
    columns = ([part.images for part in parts], [part.labels for part in parts], [part.ids for part in parts])
    return dataloader.Images(*(np.concatenate(column)[order] for column in columns))


@pytest.fixture(scope="module")
def cifar10_train(cifar10) -> dataloader.Images:
    return official_train(cifar10)


def test_cifar10_has_5000_training_images_a_class(cifar10, cifar10_train):
    assert np.array_equal(cifar10_train.ids, np.arange(50000))
    assert np.bincount(cifar10_train.labels).tolist() == [5000] * 10
    sizes = [len(part) for part in (cifar10.train, cifar10.search, cifar10.warmup, cifar10.holdout)]
    assert sizes == [47120, 320, 2560, 2560]
    assert cifar10_train.images.shape == (50000, 32, 32, 3) and cifar10_train.images.dtype == np.uint8


def test_cifar10_is_in_official_order(cifar10_train):
    """data_batch_1 begins with a frog, two trucks, a deer, an automobile."""
    assert cifar10_train.labels[:5].tolist() == [FROG, TRUCK, TRUCK, 4, 1]
    assert cifar10_train.images[0, 0, 0].tolist() == [59, 62, 63]


def test_cifar10_has_its_published_mean_and_deviation(cifar10, cifar10_train):
    """(125.3, 123.0, 113.9) and (63.0, 62.1, 66.7), red first: counted exactly, from histograms."""
    values = np.arange(256)
    counts = np.stack([np.bincount(cifar10_train.images[..., c].ravel(), minlength=256) for c in range(3)])
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    np.testing.assert_allclose(mean, cifar10.facts.mean, atol=0.1)
    np.testing.assert_allclose(std, cifar10.facts.std, atol=0.1)


def test_ids_index_the_official_order_in_every_part(cifar10, cifar10_train):
    for part in (cifar10.train, cifar10.search, cifar10.warmup, cifar10.holdout):
        assert np.array_equal(part.labels, cifar10_train.labels[part.ids])
        assert np.array_equal(part.images, cifar10_train.images[part.ids])


def test_the_search_images_are_ekgs_last_32_of_each_class(cifar10, cifar10_train):
    for label in range(10):
        last = np.flatnonzero(cifar10_train.labels == label)[-32:]
        assert set(last) == set(cifar10.search.ids[cifar10.search.labels == label])


def test_cifar10_test_images_are_read_late_and_in_order(data_dir, cifar10):
    """test_batch begins with a cat, two ships, an aeroplane, a frog."""
    before = cifar10.test_reads
    test = cifar10.test
    assert cifar10.test_reads == before + 1
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert test.labels[:5].tolist() == [3, 8, 8, 0, FROG]


def test_cifar100_is_read_with_its_fine_labels(cifar100_copy):
    """`label`, not `coarse_label`: 100 of them; test_batch begins with a mountain, a forest, a seal."""
    splits = load100(cifar100_copy)
    assert splits.facts.num_classes == len(np.unique(splits.train.labels)) == 100
    assert np.bincount(splits.test.labels).tolist() == [100] * 100
    assert splits.test.labels[:3].tolist() == [49, 33, 72]


def test_the_order_does_not_depend_on_that_of_the_files(cifar100_copy):
    before = load100(cifar100_copy)
    path = train_file(cifar100_copy)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index in np.random.default_rng(0).permutation(len(records)):
            writer.write(records[index])
    after = load100(cifar100_copy)
    for part in ("train", "search", "warmup", "holdout"):
        assert np.array_equal(getattr(before, part).images, getattr(after, part).images)
        assert np.array_equal(getattr(before, part).labels, getattr(after, part).labels)


def test_reading_writes_nothing(cifar100_copy):
    """So a read-only folder will do."""

    def state():
        return {path: path.stat().st_mtime_ns for path in sorted(cifar100_copy.rglob("*"))}

    before = state()
    load100(cifar100_copy)
    assert state() == before


def test_a_missing_test_file_matters_only_when_test_is_used(cifar100_copy):
    next(cifar100_copy.rglob("cifar100-test.tfrecord*")).unlink()
    splits = load100(cifar100_copy)
    with pytest.raises(DataError):
        _ = splits.test


def cut_in_half(folder):
    path = train_file(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_after_three_records(folder):
    path = train_file(folder)
    records = tf.data.TFRecordDataset(str(path)).take(3).as_numpy_iterator()
    kept = list(records)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in kept:
            writer.write(record)


def empty(folder):
    train_file(folder).write_bytes(b"")


def flip_one_bit(folder):
    path = train_file(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def garble_one_image(folder):
    """A record with an intact checksum, whose PNG is none."""
    path = train_file(folder)
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, record in enumerate(records):
            writer.write(record.replace(b"\x89PNG", b"JUNK") if number == 500 else record)


def remove_the_records(folder):
    train_file(folder).unlink()


def break_the_description(folder):
    next(folder.rglob("dataset_info.json")).write_text('{"name": "cifar100", ')


DAMAGES = [
    cut_in_half,
    cut_after_three_records,
    empty,
    flip_one_bit,
    garble_one_image,
    remove_the_records,
    break_the_description,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_reported_in_one_line(cifar100_copy, damage):
    damage(cifar100_copy)
    with pytest.raises(DataError) as caught:
        load100(cifar100_copy)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert "CIFAR100" in message and str(cifar100_copy) in message and "--data_path" in message


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_a_missing_data_set_without_network_is_reported_in_one_line(tmp_path, monkeypatch, name, download):
    """Connections go to a closed port of this machine, as behind a proxy that is down."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    folder = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        dataloader.load(name, str(folder), download=download)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name} is not in {folder}") and f"{name.lower()}/3.0.2" in message
    assert not folder.exists(), "nothing may be left behind"


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(DataError, match="not a folder. Received: data_path="):
        dataloader.load("CIFAR10", str(path))


def test_official_numbers_are_those_at_the_end():
    ids = np.array([b"train_16399", b"cifar10_test_00007", b"0"])
    assert tfds.official_numbers(ids).tolist() == [16399, 7, 0]
    with pytest.raises(ValueError, match="ends in no number"):
        tfds.official_numbers(np.array([b"train_1", b"train_"]))
