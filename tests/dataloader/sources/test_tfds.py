"""Any name of tensorflow-datasets: prepared here, in its own format, without network."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from secateur import dataloader
from secateur.dataloader.registry import facts_of
from secateur.runs.errors import DataError, UsageError

COUNT = 24


def prepare(
    folder: Path, name: str, splits=("train", "test"), label: bool = True, fixed: bool = True
) -> None:
    """Image i of a split is a grey of level i (test: 200 + i) of class i % 2, with its number in `id`."""
    size = (16, 20, 1) if fixed else (None, None, 3)
    image = tfds.features.Image(shape=size, encoding_format="png" if fixed else "jpeg")
    features = {"image": image, "id": tfds.features.Text()}
    if label:
        features["label"] = tfds.features.ClassLabel(names=["even", "odd"])

    def rows(first: int, count: int):
        for i in range(count):
            shape = size if fixed else (16 + i, 40 - i, 3)
            row = {"image": np.full(shape, first + i, np.uint8), "id": f"number_{i}"}
            yield row | ({"label": i % 2} if label else {})

    signature = {"image": tf.TensorSpec(size, tf.uint8), "id": tf.TensorSpec((), tf.string)}
    signature |= {"label": tf.TensorSpec((), tf.int64)} if label else {}
    data = {
        split: tf.data.Dataset.from_generator(
            lambda first=first, n=n: rows(first, n), output_signature=signature
        )
        for split, first, n in (("train", 0, COUNT), ("test", 200, 6), ("validation", 100, 4))
        if split in splits
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.2.3",
        features=tfds.features.FeaturesDict(features),
        split_datasets=data,
        data_dir=str(folder),
        config="small",
    )


def levels(images: dataloader.Images) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


def everything(splits: dataloader.Splits) -> list[int]:
    return sorted(levels(splits.train) + levels(splits.search) + levels(splits.holdout))


@pytest.mark.parametrize("name", ["own_greys/small", "own_greys/small:1.2.3"])
def test_classes_and_shape_come_from_the_info(tmp_path, name):
    prepare(tmp_path, "own_greys")
    splits = dataloader.load(f"tfds:{name}", str(tmp_path), download=False)
    assert splits.facts.name == f"tfds:{name}" and splits.facts.num_classes == 2
    assert splits.facts.shape == splits.train.images.shape[1:] == (16, 20, 3)
    assert everything(splits) == list(range(COUNT))
    assert levels(splits.test) == list(range(200, 206)) and splits.test_reads == 1
    assert all(
        label == level % 2 for label, level in zip(splits.train.labels, levels(splits.train), strict=True)
    )
    assert splits.train.ids.tolist() == levels(splits.train), "in the order of the numbers in id"


def test_images_of_all_sizes_are_brought_to_224_or_what_was_asked_for(tmp_path):
    prepare(tmp_path, "own_photos", fixed=False)
    assert facts_of("tfds:own_photos/small", "rgb", str(tmp_path)).shape == (224, 224, 3)
    splits = dataloader.load("tfds:own_photos/small@12", str(tmp_path), "imagenet", download=False)
    assert splits.train.images.shape[1:] == splits.facts.shape == (12, 12, 3)
    assert everything(splits) == list(range(COUNT))
    assert splits.facts.mean == pytest.approx((123.675, 116.28, 103.53))


def test_without_a_test_split_the_validation_is_it_and_without_that_there_is_none(tmp_path):
    prepare(tmp_path, "own_first", ("train", "validation"))
    prepare(tmp_path, "own_second", ("train",))
    first, second = (
        dataloader.load(f"tfds:{n}/small", str(tmp_path), download=False) for n in ("own_first", "own_second")
    )
    assert levels(first.test) == [100, 101, 102, 103]
    assert list(second.measured) == ["holdout"] and everything(second) == list(range(COUNT))


def test_rows_without_a_label_are_named(tmp_path):
    prepare(tmp_path, "own_texts", label=False)
    with pytest.raises(
        DataError, match=r"no rows of one 8-bit image and one class. Received: id .Text., image .Image."
    ):
        dataloader.load("tfds:own_texts/small", str(tmp_path), download=False)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="Received: tfds:cifar11. Did you mean tfds:cifar1"):
        dataloader.load("tfds:cifar11", str(tmp_path))


@pytest.mark.parametrize("download", [False, True])
def test_imagenet_says_which_files_go_where(tmp_path, download):
    with pytest.raises(DataError) as caught:
        dataloader.load("IMAGENET", str(tmp_path / "nowhere"), download=download)
    message = str(caught.value)
    assert "ILSVRC2012_img_train.tar" in message and "ILSVRC2012_img_val.tar" in message
    assert str(tmp_path / "nowhere" / "downloads" / "manual") in message and "imagenet2012/5." in message
    assert not (tmp_path / "nowhere").exists()


def test_the_facts_of_imagenet_need_no_files():
    facts = facts_of("IMAGENET", "imagenet")
    assert facts.num_classes == 1000 and facts.shape == (224, 224, 3)
    assert facts_of("IMAGENET@64", "imagenet").shape == (64, 64, 3)
