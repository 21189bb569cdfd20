"""Image folders in every layout, made here: what is train and what test, sizes, greys, refusals."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader
from secateur.dataloader.sources.decoding import decode_files, fits_memory
from secateur.dataloader.sources.stored import Stored
from secateur.runs.errors import DataError, UsageError


def write(path: Path, level: int, size: tuple[int, int] = (32, 32), channels: int = 3) -> None:
    """An image of one grey level, as PNG or JPEG by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((*size, channels), level, np.uint8)
    encode = tf.io.encode_png if path.suffix.lower() == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(pixels).numpy())


def fill(folder: Path, count: int, classes=("ant", "bee"), **options) -> None:
    """Image i of class c has the level 100·c + i."""
    for number, name in enumerate(classes):
        for i in range(count):
            write(folder / name / f"{i:03}.png", 100 * number + i, **options)


def levels(images: dataloader.Images) -> list[int]:
    return sorted(images.images[:][:, 0, 0, 0].tolist())


def everything(splits: dataloader.Splits) -> list[int]:
    return sorted(levels(splits.train) + levels(splits.search) + levels(splits.holdout))


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_train_and_test_lie_beside_each_other(tmp_path, name):
    fill(tmp_path / "train", 12)
    fill(tmp_path / name, 3)
    (tmp_path / "train" / "ant" / "Thumbs.db").write_text("no image")
    splits = dataloader.load("folder", str(tmp_path))
    assert splits.facts.num_classes == 2 and splits.facts.shape == (32, 32, 3)
    assert everything(splits) == [*range(12), *range(100, 112)]
    assert splits.test_reads == 0
    assert levels(splits.test) == [0, 1, 2, 100, 101, 102]
    assert np.array_equal(splits.test.labels, splits.test.images[:, 0, 0, 0] // 100)


def test_the_test_images_are_not_touched_before_they_are_asked_for(tmp_path):
    fill(tmp_path / "train", 12)
    fill(tmp_path / "test", 1)
    (tmp_path / "test" / "bee" / "000.png").write_bytes(b"no image")
    splits = dataloader.load("folder", str(tmp_path))
    with pytest.raises(DataError, match=r"bee/000\.png"):
        _ = splits.test


def test_without_a_folder_of_test_images_all_are_trained_on_and_none_is_made_up(tmp_path):
    fill(tmp_path / "flat", 25)
    fill(tmp_path / "lone" / "train", 25)
    for name in ("flat", "lone"):
        splits = dataloader.load("folder", str(tmp_path / name))
        assert everything(splits) == [*range(25), *range(100, 125)]
        assert list(splits.measured) == ["holdout"] and splits.test_reads == 0
        with pytest.raises(DataError, match="no test images. Received: folder"):
            _ = splits.test


def test_images_of_other_sizes_and_greys_are_brought_to_one(tmp_path):
    fill(tmp_path / "train", 10, size=(20, 24))
    write(tmp_path / "train" / "bee" / "grey.JPG", 150, (9, 31), channels=1)
    fill(tmp_path / "test", 1)
    splits = dataloader.load("folder", str(tmp_path))
    assert splits.facts.shape == (20, 20, 3), "the shorter side of the first image"
    assert 150 in everything(splits)
    assert dataloader.load("folder@8", str(tmp_path)).train.images.shape[1:] == (8, 8, 3)


def test_what_has_the_right_size_keeps_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    for name in ("ant", "bee"):
        for i, image in enumerate(pixels):
            path = tmp_path / "train" / name / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
    fill(tmp_path / "test", 1, size=(16, 16))
    splits = dataloader.load("folder", str(tmp_path))
    for part in (splits.train, splits.search, splits.holdout):
        assert np.array_equal(part.images, pixels[part.ids % 12])


def remove_the_test(folder):
    (folder / "test").rename(folder / "other")


def add_a_class(folder):
    write(folder / "test" / "cat" / "0.png", 1)


def empty_a_class(folder):
    for path in (folder / "train" / "bee").iterdir():
        path.unlink()


def spoil_an_image(folder):
    (folder / "train" / "bee" / "007.png").write_bytes(b"\x89PNG and no more")


@pytest.mark.parametrize(
    "damage, message",
    [(remove_the_test, "no test images"), (add_a_class, "not in train. Received: .'cat'."),
     (empty_a_class, "no image in .*'bee'"), (spoil_an_image, "Received: .*bee/007.png")],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path, damage, message):
    fill(tmp_path / "train", 12)
    fill(tmp_path / "test", 2)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        _ = dataloader.load("folder", str(tmp_path)).test


def test_what_is_hidden_is_no_class_and_no_image(tmp_path):
    """Folders of notebooks, and what macOS leaves beside files."""
    fill(tmp_path, 12)
    before = dataloader.load("folder", str(tmp_path))
    for hidden in (tmp_path / ".ipynb_checkpoints", tmp_path / "bee" / ".thumbnails"):
        write(hidden / "0.png", 1)
    (tmp_path / "bee" / "._000.png").write_bytes(b"of the Finder")
    after = dataloader.load("folder", str(tmp_path))
    assert after.facts.class_names == before.facts.class_names
    assert len(after.train) + len(after.holdout) == len(before.train) + len(before.holdout)


def spoil(folder: Path, count: int = 0) -> list[Path]:
    """A file of each kind that is no image, first in its class, and so many empty ones behind them."""
    names = ("0fifo.png", "0folder.png", "0link.png", "0loop.png", "0text.jpg", "0cut.png", "0empty.gif")
    fifo, inside, link, loop, text, cut, empty = paths = [folder / name for name in names]
    os.mkfifo(fifo)
    inside.mkdir()
    link.symlink_to("nowhere")
    loop.symlink_to(loop.name)
    text.write_text("<html>404</html>")
    cut.write_bytes((folder / "000.png").read_bytes()[:-30])
    empty.touch()
    more = [folder / f"z{i}.png" for i in range(count)]
    for path in more:
        path.touch()
    return sorted([*paths, *more])


def test_files_that_are_no_images_are_all_named_up_to_ten(tmp_path):
    fill(tmp_path / "train", 12)
    bad = spoil(tmp_path / "train" / "ant")
    with pytest.raises(DataError, match="7 of 31 images cannot be read or decoded.*--skip_bad") as refused:
        dataloader.load("folder", str(tmp_path))
    text = str(refused.value)
    assert len(text.splitlines()) == 2 and all(str(path) in text for path in bad)
    reasons = ("empty", "no regular file", "no such file or directory", "too many levels of symbolic links")
    assert all(f"({reason})" in text for reason in reasons) and text.count("damaged one") == 2
    more = [tmp_path / "train" / "bee" / f"z{i}.png" for i in range(5)]
    for path in more:
        path.touch()
    with pytest.raises(DataError, match="12 of 36 images") as refused:
        dataloader.load("folder", str(tmp_path))
    assert str(refused.value).endswith("and 2 more") and str(more[-1]) not in str(refused.value)


def test_with_skip_bad_they_are_left_out_and_counted(tmp_path, capsys):
    fill(tmp_path / "train", 12)
    fill(tmp_path / "test", 2)
    bad = spoil(tmp_path / "train" / "bee", 5)
    (tmp_path / "test" / "ant" / "000.png").write_bytes(b"no image")
    splits = dataloader.load("folder", str(tmp_path), skip_bad=True)
    assert everything(splits) == [*range(12), *range(100, 112)]
    for part in (splits.train, splits.search, splits.holdout):
        assert np.array_equal(part.labels, part.images[:, 0, 0, 0] // 100)
    assert splits.skipped == {"train": len(bad)}
    assert f"warning: {len(bad)} of 36 images cannot be read and are left out" in capsys.readouterr().err
    assert levels(splits.test) == [1, 100, 101] and splits.skipped == {"train": len(bad), "test": 1}
    with pytest.raises(UsageError, match="Only files of a folder"):
        dataloader.load("DIGITS", skip_bad=True)


def test_a_class_without_a_single_image_is_no_class(tmp_path):
    fill(tmp_path / "train", 6)
    for path in (tmp_path / "train" / "ant").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="2 classes. Received: images of 1"):
        dataloader.load("folder", str(tmp_path), skip_bad=True)
    for path in (tmp_path / "train" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="12 of 12 images"):
        dataloader.load("folder", str(tmp_path), skip_bad=True)
    for path in tmp_path.glob("train/*/*"):
        path.unlink()
        path.symlink_to("nowhere")
    with pytest.raises(DataError, match="12 of 12 images"):
        dataloader.load("folder@8", str(tmp_path))
    with pytest.raises(DataError, match="12 of 12 images"):
        decode_files([*tmp_path.glob("train/*/*")], (8, 8, 3), skip_bad=True)


@pytest.mark.parametrize("name", ["folder", "TINY_IMAGENET", "CINIC10"])
@pytest.mark.parametrize("path", [None, "nowhere"])
def test_a_folder_has_to_be_given(name, path):
    with pytest.raises(DataError, match=f"{name} is read from a folder.*Received: data_path="):
        dataloader.load(name, path)


CINIC = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_cinic10_reports_on_test_and_haps_on_valid(tmp_path):
    for part, count in (("train", 10), ("valid", 3), ("test", 2)):
        for number, name in enumerate(CINIC):
            for i in range(count):
                write(tmp_path / part / name / f"{part}-{i}.png", 20 * number + i)
    ours, haps = (dataloader.load(name, str(tmp_path), "hap") for name in ("CINIC10", "CINIC10_VALID"))
    assert (len(ours.test), len(haps.test)) == (20, 30)
    assert everything(ours) == everything(haps) == sorted(20 * c + i for c in range(10) for i in range(10))
    assert ours.facts.shape == (32, 32, 3) and ours.facts.mean == pytest.approx(
        (122.12, 120.44, 109.78), abs=0.01
    )


def tiny(folder: Path) -> Path:
    """Tiny-ImageNet with two classes, unpacked."""
    root = folder / "tiny-imagenet-200"
    for number, wnid in enumerate(("n01443537", "n02124075")):
        for i in range(10):
            write(
                root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG",
                100 * number + i,
                (64, 64),
                1 + 2 * (i % 2),
            )
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n_0.JPEG\t0\t0\t9\t9\n")
    for i, wnid in enumerate(("n02124075", "n01443537", "n02124075")):
        write(root / "val" / "images" / f"val_{i}.JPEG", 50 + i, (64, 64))
        with (root / "val" / "val_annotations.txt").open("a") as file:
            file.write(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "wnids.txt").write_text("n02124075\nn01443537\n")
    return root


@pytest.mark.parametrize("parent", [False, True])
def test_tiny_imagenet_is_tested_on_its_validation_images(tmp_path, parent):
    root = tiny(tmp_path)
    splits = dataloader.load("TINY_IMAGENET", str(tmp_path if parent else root), "kesi")
    assert splits.facts.num_classes == 2 and splits.facts.shape == (64, 64, 3)
    assert splits.facts.mean == pytest.approx((123.675, 116.28, 103.53))
    assert everything(splits) == [*range(10), *range(100, 110)]
    assert splits.test.labels.tolist() == [1, 0, 1] and splits.test.images[:, 0, 0, 0].tolist() == [
        50,
        51,
        52,
    ]


def test_an_incomplete_tiny_imagenet_is_named(tmp_path):
    root = tiny(tmp_path)
    (root / "wnids.txt").write_text("n02124075\nn01443537\nn09999999\n")
    with pytest.raises(DataError, match="not the classes of wnids.txt"):
        dataloader.load("TINY_IMAGENET", str(root))
    (root / "wnids.txt").unlink()
    with pytest.raises(DataError, match="there is no .*wnids.txt"):
        dataloader.load("TINY_IMAGENET", str(root))


def test_the_real_tiny_imagenet(data_dir):
    """As downloaded, or some of its classes: 64×64, greys as RGB, Egyptian cat = n02124075."""
    folder = data_dir / "tiny-imagenet-200"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    splits = dataloader.load("TINY_IMAGENET", str(folder))
    wnids = sorted((folder / "wnids.txt").read_text().split())
    assert splits.facts.num_classes == len(wnids) == len(np.unique(splits.test.labels))
    assert (np.bincount(splits.test.labels) == 50).all()
    assert splits.train.images.shape[1:] == (64, 64, 3)
    grey = (splits.train.images[..., :1] == splits.train.images).all(axis=(1, 2, 3))
    assert 0 < grey.mean() < 0.1
    row = next(r.split("\t") for r in (folder / "val/val_annotations.txt").open() if "n02124075" in r)
    cat = tf.io.decode_jpeg((folder / "val" / "images" / row[0]).read_bytes(), 3).numpy()
    (found,) = [label for image, label in zip(splits.test.images, splits.test.labels, strict=True)
                if np.array_equal(image, cat)]  # fmt: skip
    assert found == wnids.index("n02124075")


def test_what_does_not_fit_in_memory_is_said(capsys):
    """1,281,167 images of 224×224, twice: 386 GB."""
    assert not fits_memory("IMAGENET", 1281167, (224, 224, 3), 16_000_000_000)
    assert "385.7 GB of memory, there are 16.0:" in capsys.readouterr().err
    assert fits_memory("IMAGENET", 1281167, (32, 32, 3), 16_000_000_000)
    assert not capsys.readouterr().err


def test_what_does_not_fit_in_memory_stays_in_its_files(tmp_path, monkeypatch):
    fill(tmp_path, 12)
    monkeypatch.setattr("os.sysconf", lambda name: 100)  # 10,000 bytes
    splits = dataloader.load("folder", str(tmp_path))
    assert isinstance(splits.train.images, Stored) and len(everything(splits)) == 24


def test_every_set_comes_in_other_sizes_and_in_grey():
    assert dataloader.load("DIGITS@16").train.images.shape[1:] == (16, 16, 3)
    grey = dataloader.load("DIGITS", shape=(12, 8, 1), normalisation="torch")
    assert grey.train.images.shape[1:] == (12, 8, 1)
    assert grey.facts.mean == (255 * (0.485 + 0.456 + 0.406) / 3,)
    with pytest.raises(UsageError, match="1×1.*DIGITS@0"):
        dataloader.load("DIGITS@0")
