"""Recipes of random crops, as `ekg_imagenet`: a model of one's own sees what a net of this project sees."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader
from secateur.recipes.commands.evaluate import run as evaluate
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.config import EvaluateOptions, RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.run import run
from secateur.recipes.engine.subject import Subject
from secateur.runs import load_snapshot, read_json
from tests.helpers import like_imagenet

layers = keras.layers
SEED = tf.constant([3, 4])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of JPEGs of many sizes."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(8):
        (folder := root / str(i % 2)).mkdir(exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(like_imagenet.encoded(20 + i))
    return root


def subject(*shapes) -> Subject:
    inputs = [keras.Input(shape) for shape in shapes]
    pooled = [layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(one)) for one in inputs]
    both = layers.Concatenate()(pooled) if len(pooled) > 1 else pooled[0]
    return Subject.own(keras.Model(inputs, layers.Dense(2)(both)))


def context_of(what: Subject, photos, stream=False, dataset="folder@256", **options) -> RunContext:
    """A run of `ekg_imagenet`, with its images."""
    config = RunOptions(
        train_path="none", recipe="ekg_imagenet", pipeline="imagenet", dataset=dataset, **options
    )
    shape = what.loaded(config.images, dataset)
    splits = dataloader.load(dataset, str(photos), "torch", shape=shape, stream=stream)
    return RunContext(config, None, None, splits, tf.distribute.get_strategy(), what)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("augmentation", ["recipe", "none", "flip", "flip+crop"])
def test_ones_own_model_is_shown_what_a_net_of_equal_side_is_shown(photos, stream, augmentation):
    given = {"stream": stream, "augmentation": augmentation}
    own, ours = (context_of(what, photos, **given) for what in (subject((224, 224, 3)), Subject()))
    batch = {"images": own.splits.train.images[:3]}
    assert np.array_equal(batch["images"], ours.splits.train.images[:3])
    assert batch["images"].shape == (3, 256, 256, 3)
    for see in ("augmented", "two_views", "plain"):
        seen, expected = (getattr(context, see)(batch, SEED).numpy() for context in (own, ours))
        assert seen.shape[1:] == (224, 224, 3) and np.array_equal(seen, expected), see
    middle = own.subject.reads(np.float32(batch["images"][:, 16:240, 16:240]), own.splits.facts)
    np.testing.assert_allclose(own.inputs(batch["images"]), middle, atol=1e-3)
    trained = own.augmented(batch, SEED).numpy()
    if augmentation == "none":
        np.testing.assert_allclose(trained, middle, atol=1e-3)
    elif augmentation == "flip":
        ways = np.abs([trained - middle, trained - middle[:, :, ::-1]]).max((2, 3, 4))
        assert (ways.min(0) < 1e-3).all() and (ways.max(0) > 0.1).all()
    else:
        assert np.abs(trained - middle).max() > 0.1


def test_images_have_room_for_the_crops_or_the_size_that_the_data_has(photos):
    sides = {"folder": 73, "folder@100": 100, "TINY_IMAGENET": 64, "CIFAR10": 32}
    for name, side in sides.items():
        images = RunOptions(train_path="none", pipeline="imagenet").images
        assert subject((64, 64, 3)).loaded(images, name) == (side, side, 3)
        assert subject((64, 64, 1)).loaded(images, name) == (side, side, 1)
    nets = {"folder": (256, 256, 3), "folder@100": None, "IMAGENET@256": None, "tfds:cifar10": None}
    assert {name: Subject().loaded(images, name) for name in nets} == nets
    own = choose("--recipe ekg_imagenet --data photos --arch ResNet-18".split())
    assert (own.dataset, own.data_path) == ("folder", "photos")
    whole = subject((64, 64, 3)).shown(images, (64, 64, 3))
    assert (whole.crop, whole.resize) == (64, 64), "images of its own size are evaluated whole"
    inputs = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    own = context_of(subject((64, 64, 3)), photos, dataset="folder@64")
    assert np.array_equal(own.inputs(inputs), own.subject.reads(inputs, own.splits.facts))


@pytest.mark.parametrize("shapes", [[(32, 48, 3)], [(32, 32, 3), (16, 16, 1)]])
def test_models_of_other_inputs_than_one_square_read_whole_images(photos, shapes):
    what = subject(*shapes)
    context = context_of(what, photos, dataset="folder")
    assert context.pipeline.crop is None and context.splits.facts.shape == shapes[0]


PEAK = """
import re, sys
from secateur.__main__ import call
call("train", sys.argv[1:], "train_cifar.py")
with open("/proc/self/status") as status:
    print("peak", 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1]))
"""
MOST = 6e9  # bytes; 8 images of 224 pixels a step


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resnet50_of_keras_applications_is_pruned_and_trained_at_224_pixels(programs, tmp_path):
    keras.applications.ResNet50(weights=None, classes=10).save(tmp_path / "resnet50.keras")
    like_imagenet.write(tmp_path, 50, tests=10, classes=10, name="few_of_imagenet")
    words = (
        "resnet50.keras --recipe ekg_imagenet --dataset tfds:few_of_imagenet@256 --data_path . --stream"
        " --force --criterion l1 --target_rate 0.5 --train_images 16 --train_epoch 1 --batch_size 8"
        " --val_batch_size 8 --time_seconds 0.02 --train_path run"
    )
    done = programs.run_code(PEAK, *words.split(), cwd=tmp_path)
    assert done.code == 0, done.err[-2000:]
    assert int(done.out.split()[-1]) < MOST
    before, _, after = read_json(tmp_path / "run" / "report.json")["rows"]
    assert before["macs"] == 3_855_945_728, "as published: 3.86 billion with 1,000 classes"
    assert after["macs"] <= 0.51 * before["macs"]
    facts = load_snapshot(tmp_path / "run" / "trained_param.pkl").facts
    assert (facts["crop"], facts["resize"]) == (224, 256)
    assert keras.models.load_model(tmp_path / "run" / "compact.keras").input_shape == (None, 224, 224, 3)


def ring(side: int) -> np.ndarray:
    """The outermost pixels of a square, bool."""
    return np.pad(np.zeros((side - 2, side - 2), bool), 1, constant_values=True)


@pytest.mark.runs
def test_a_run_evaluates_the_middle_of_the_images(tmp_path, monkeypatch):
    """Of 18 pixels the model's 16: what stands around them says the other class."""
    monkeypatch.chdir(tmp_path)
    for label in (0, 1):
        for i in range(12):
            image = np.full((18, 18, 3), 100.0 + i)
            image[1:17, 1:17][ring(16)] = 255 * label
            image[ring(18)] = 255 * (1 - label)
            path = tmp_path / "photos" / ("train" if i < 10 else "test") / str(label) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(path, image, scale=False)
    inputs = keras.Input((16, 16, 3))
    head = layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, head(layers.Flatten()(layers.Rescaling(1 / 127.5, -1)(inputs))))
    edge = np.repeat(ring(16).astype("float32").ravel(), 3)
    head.set_weights([np.stack([-edge, edge], 1), np.zeros(2)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.save("edge.keras")
    words = (
        "edge.keras --recipe ekg_imagenet --data photos --until baseline --batch_size 4 --time_seconds 0.01"
    )
    (row,) = run(choose([*words.split(), "--train_path", "run"]))["rows"]
    assert (row["holdout_accuracy"], row["test_accuracy"]) == (1, 1)
    found = evaluate(
        EvaluateOptions(dataset="folder", data_path="photos", trained_param=["run/snap_baseline.pkl"])
    )
    assert [one["accuracy"] for one in found] == [1]
