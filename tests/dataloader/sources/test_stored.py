"""Images that stay in their files are the images that are read into memory."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from secateur import dataloader
from secateur.dataloader import batches
from secateur.dataloader.sources import records
from secateur.dataloader.sources.decoding import FOR_CROPS, fitted
from secateur.dataloader.sources.stored import Stored
from secateur.runs.errors import DataError, out_of_memory

PARTS = ("train", "search", "warmup", "holdout", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise as PNG and JPEG, of many sizes, grey ones among them, one PNG that is called JPEG."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 7)):
        for name in ("ant", "bee"):
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (*rng.integers(20, 50, 2), rng.choice([1, 3])), np.uint8)
                encode, end = ((tf.io.encode_png, "png"), (tf.io.encode_jpeg, "jpg"))[i % 2]
                (place / f"{i}.{end}").write_bytes(encode(pixels).numpy())
            (place / "0.png").rename(place / "0.JPEG")
    return root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Rows of tensorflow-datasets in an order that is not that of their ids, with what else rows may hold."""
    root, rng = tmp_path_factory.mktemp("prepared"), np.random.default_rng(0)
    numbers = {"train": rng.permutation(60), "validation": rng.permutation(9)}
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
        "id": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["even", "odd", "none"]),
        "boxes": tfds.features.Tensor(shape=(4,), dtype=np.float32),
    }

    def rows(split):
        for number in numbers[split]:
            image = rng.integers(0, 256, (*rng.integers(20, 50, 2), 3), np.uint8)
            yield {"image": image, "id": f"{split}_{number}", "label": number % 3, "boxes": np.ones(4)}

    signature = {
        "image": tf.TensorSpec((None, None, 3), tf.uint8),
        "id": tf.TensorSpec((), tf.string),
        "label": tf.TensorSpec((), tf.int64),
        "boxes": tf.TensorSpec((4,), tf.float32),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="own_noise",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            split: tf.data.Dataset.from_generator(lambda split=split: rows(split), output_signature=signature)
            for split in numbers
        },
        data_dir=str(root),
    )
    return root


@pytest.mark.parametrize("source", ["folder", "tfds:own_noise"])
def test_the_same_splits_and_batches(source, folder, prepared):
    path = str(folder if source == "folder" else prepared)
    memory, files = (dataloader.load(f"{source}@24", path, stream=stream) for stream in (False, True))
    assert isinstance(files.train.images, Stored) and isinstance(memory.train.images, np.ndarray)
    for part in PARTS:
        one, other = getattr(memory, part), getattr(files, part)
        assert np.array_equal(one.images, other.images[:]), part
        assert np.array_equal(one.labels, other.labels) and np.array_equal(one.ids, other.ids)
    order = dataloader.epoch_order(len(files.train), seed=3, epoch=2)
    walks = [[*batches(s.train, 8, order, drop_remainder=True)] for s in (memory, files)]
    assert len(walks[0]) == len(files.train) // 8
    for one, other in zip(*walks, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_real_images_are_found_in_real_files(cifar10, data_dir):
    """50,000 PNGs in five files, whose order is not the official one."""
    files = dataloader.load("CIFAR10", str(data_dir / "tfds"), stream=True)
    some = np.random.default_rng(0).permutation(len(files.train))[:500]
    assert np.array_equal(files.train.labels, cifar10.train.labels)
    assert np.array_equal(files.train.images[some], cifar10.train.images[some])


def test_of_images_in_the_shape_of_imagenet_the_middle_is_taken():
    """Of 40×60 pixels brought to 64×96 the columns 20 to 75 for 56, and for crops of all 256 rows of 384."""
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (40, 60, 3))
    encoded = tf.io.encode_png(ramp)
    for side, shorter in ((56, 64), (FOR_CROPS, FOR_CROPS)):
        row = fitted(encoded, (side, side, 3), middle=True).numpy()[0, :, 0]
        long = shorter * 60 // 40
        whole = tf.image.resize(ramp, (shorter, long), antialias=True).numpy()[0, :, 0]
        first = (long - side) // 2
        assert np.array_equal(row, np.round(whole[first : first + side]))
    upright = tf.io.encode_png(ramp.transpose(1, 0, 2))
    assert np.array_equal(
        fitted(upright, (56, 56, 3), True), fitted(encoded, (56, 56, 3), True).numpy().transpose(1, 0, 2)
    )


def test_what_cannot_be_decoded_is_named_when_it_is_met(folder, tmp_path):
    images = dataloader.load("folder@24", str(folder), stream=True).train.images
    bad = tmp_path / "bad.png"
    bad.write_bytes(images.files[3].read_bytes()[:40])
    names = [*images.files[:3], bad, *images.files[4:9]]
    with pytest.raises(DataError, match=r"bad\.png"):
        _ = Stored.of_files(names, (24, 24, 3))[:]
    assert Stored.of_files(names, (24, 24, 3))[np.array([8, 0])].shape == (2, 24, 24, 3)


@pytest.mark.parametrize(("size", "place"), [(32, 40), (100, 120)])
def test_a_file_that_is_gone_is_named_at_any_batch_size(size, place, folder):
    images = dataloader.load("folder@24", str(folder), stream=True).train.images
    names = [images.files[i % len(images.files)] for i in range(150)]
    names[place] = names[place].with_name("gone.png")
    with pytest.raises(DataError, match=r"gone\.png"):
        list(Stored.of_files(names, (24, 24, 3)).walk(size))


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_runs_out_is_no_fault_of_the_images(error, folder, monkeypatch):
    """Whether it does for one image, too, or only for many at a time."""
    images = dataloader.load("folder@24", str(folder), stream=True).train.images
    read, failing = Stored._encoded, {"most": 1}

    def encoded(self, pieces):
        if len(pieces) > failing["most"]:
            raise error
        return read(self, pieces)

    monkeypatch.setattr(Stored, "_encoded", encoded)
    for failing["most"] in (1, 0):
        with pytest.raises((tf.errors.OpError, MemoryError, OSError)) as raised:
            _ = images[:5]
        assert out_of_memory(raised.value), raised.value


def test_files_that_cannot_be_read_are_left_out_without_keeping_the_others(folder, tmp_path):
    """A FIFO would wait for a writer: it is never opened."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    bad = copy / "train" / "ant" / "8.png"
    bad.write_bytes(b"no image")
    (bad.parent / "9.png").unlink(missing_ok=True)
    os.mkfifo(bad.parent / "9.png")
    memory, files = (dataloader.load("folder@24", str(copy), stream=s, skip_bad=True) for s in (False, True))
    assert memory.skipped == files.skipped and files.skipped["train"] == 2
    assert np.array_equal(memory.train.images, files.train.images[:])
    with pytest.raises(DataError, match=r"9\.png \(no regular file\)"):
        dataloader.load("folder@24", str(copy), stream=True)


def test_a_shard_may_be_empty(prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    (file,) = copy.rglob("*train.tfrecord*")
    info = json.loads((file.parent / "dataset_info.json").read_text())
    (split,) = (one for one in info["splits"] if one["name"] == "train")
    split["shardLengths"] = ["0", *split["shardLengths"]]
    (file.parent / "dataset_info.json").write_text(json.dumps(info))
    stem = file.name.partition("-of-")[0].removesuffix("00000")
    file.rename(file.with_name(f"{stem}00001-of-00002"))
    file.with_name(f"{stem}00000-of-00002").touch()
    one, other = (dataloader.load("tfds:own_noise@24", str(p), stream=True).train for p in (prepared, copy))
    assert np.array_equal(one.images[:], other.images[:]) and np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize("change", [{"image": []}, {"label": []}, {"label": [2**40]}])
def test_records_without_an_image_or_a_class_are_named(change, tmp_path):
    """Their checksums are right."""
    values, file = {"image": [b"x"], "label": [1]} | change, tmp_path / "own.tfrecord"
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=values["image"])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=values["label"])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    with tf.io.TFRecordWriter(str(file)) as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(ValueError, match="own.tfrecord does not hold"):
        next(records.index([file], "image", "label"))


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: data[:100] + data[110:]])
def test_a_damaged_file_of_records_is_no_data_set(damage, prepared, tmp_path):
    copy = shutil.copytree(prepared, tmp_path / "copy")
    (file,) = copy.rglob("*train.tfrecord*")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"own_noise.* cannot be read"):
        dataloader.load("tfds:own_noise@24", str(copy), stream=True)
