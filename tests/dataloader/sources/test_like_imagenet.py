"""Data in the shape of ImageNet: images are decoded rightly, and memory does not grow with their number."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from secateur import dataloader
from secateur.dataloader.sources.decoding import memory_limit
from secateur.runs import read_json
from tests.helpers import like_imagenet

CAP, IMAGES = 1_500_000_000, 4000
GROWTH = 2000  # bytes that an image may add to the peak; 190 were measured
PARTS = """
from secateur.dataloader.pipelines import PIPELINES, Pipeline
PIPELINES.register(Pipeline("imagenet", crop=32, resize=37), name="crops_of_32")
"""
RUN = """
import re, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from secateur.__main__ import call
call("train", sys.argv[2:], "train_cifar.py")
with open("/proc/self/status") as status:
    print("peak", 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]))
"""
SMALL = (
    "--recipe ekg_imagenet --pipeline crops_of_32 --arch ResNet-8 --batch_size 64 --val_batch_size 64"
    " --search_batch_size 64 --baseline_epoch 1 --train_epoch 1 --num_teacher 2 --target_rate 0.8"
    " --time_seconds 0.02"
).split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("like_imagenet")
    like_imagenet.write(root, IMAGES, tests=200)
    return root


def run(programs, cwd, data, *options):
    """Peak memory of a run in bytes, its report, and what it said."""
    (cwd / "parts.py").write_text(PARTS)
    options = [*SMALL, "--import", "parts.py", "--data_path", data, "--train_path", "run", *options]
    done = programs.run_code(RUN, CAP, *options, cwd=cwd)
    assert done.code == 0, done.err[-2000:]
    return int(done.out.split()[-1]), read_json(cwd / "run" / "report.json"), done.err


def as_pillow_has_it(encoded, side):
    """The middle of an image whose shorter side is 8/7 as long, by another library."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    shorter = round(side * 8 / 7)
    scale = shorter / min(image.size)
    whole = image.resize([max(side, int(n * scale + 1e-6)) for n in image.size], Image.Resampling.BILINEAR)
    left, top = ((n - side) // 2 for n in whole.size)
    return np.asarray(whole.crop((left, top, left + side, top + side)), np.float32)


@pytest.fixture(scope="module")
def numbers(folder):
    """Of the training images, as they lie in the files."""
    rows = tfds.load(
        "imagenet2012",
        split="train",
        data_dir=str(folder),
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return np.array([int(row["file_name"][1:9]) for row in rows.as_numpy_iterator()])


@pytest.fixture(scope="module")
def splits(folder):
    return {stream: dataloader.load("IMAGENET@64", str(folder), stream=stream) for stream in (False, True)}


def test_the_order_is_the_same_in_memory_and_in_files(splits):
    for part in ("train", "search", "holdout"):
        memory, files = (getattr(splits[stream], part) for stream in (False, True))
        assert np.array_equal(memory.ids, files.ids) and np.array_equal(memory.labels, files.labels)
        assert np.array_equal(memory.images[:50], files.images[:50])


@pytest.mark.parametrize("stream", [False, True])
def test_grey_cmyk_and_a_png_that_is_called_jpeg_are_the_images_that_pillow_sees(stream, splits, numbers):
    known = {}
    for part in (splits[stream].train, splits[stream].search, splits[stream].holdout):
        some = part.take(np.flatnonzero(numbers[part.ids] < like_imagenet.SIZES))
        known |= dict(zip(numbers[some.ids], some.images[:], strict=True))
    assert sorted(known) == [*range(like_imagenet.SIZES)]
    for number, image in known.items():
        seen = as_pillow_has_it(like_imagenet.encoded(number), 64)
        assert np.abs(image - seen).mean() < 3, number
    for number, colour in like_imagenet.COLOURS.items():
        assert np.abs(known[number] - np.float32(colour)).max() < 3


@pytest.mark.runs
def test_data_larger_than_the_processs_memory_is_streamed(folder, programs, tmp_path):
    """Nobody says --stream: 4000 images take more than the limit."""
    peak, report, said = run(programs, tmp_path, folder, "--until", "baseline")
    assert "4000 images of IMAGENET at 256×256 take 1.6 GB of memory, there are 1.5" in said
    assert peak < CAP
    (row,) = report["rows"]
    for part in ("holdout", "test"):
        assert 0 <= row[f"{part}_accuracy"] <= row[f"{part}_top5_accuracy"] < 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_number_of_images(programs, tmp_path):
    """EKG from its baseline to the report, with 3000 images and with twice as many, of 12 kB each."""
    peaks = []
    for count in (3000, 6000):
        (cwd := tmp_path / str(count)).mkdir()
        like_imagenet.write(cwd, count, tests=200)
        options = "--dataset", "IMAGENET@64", "--stream"
        peak, report, _ = run(programs, cwd, cwd, *options)
        assert [row["name"] for row in report["rows"]] == ["baseline", "slimmed", "trained"]
        assert all("test_top5_accuracy" in row for row in report["rows"])
        assert np.load(cwd / "run" / "bank.npy", mmap_mode="r").dtype == np.float16
        peaks.append(peak)
    assert max(peaks) < CAP and peaks[1] - peaks[0] < 3000 * GROWTH, peaks


def test_the_limit_of_a_process_counts(monkeypatch):
    whole = memory_limit()
    monkeypatch.setattr("resource.getrlimit", lambda kind: (12345, 23456))
    assert memory_limit() == 12345 < whole
