"""Published pipelines: their constants, and what training and evaluation see of an image."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from secateur.dataloader import views
from secateur.dataloader.pipelines import NORMALISATIONS, PIPELINES
from secateur.dataloader.registry import facts_of
from secateur.runs.errors import UsageError

FACTS = facts_of("CIFAR10", "rgb")


def random_images(n: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(n).integers(1, 256, (n, side, side, 3), dtype=np.uint8)


def test_constants_as_published():
    """KESI's standard deviations are a fifth below HAP's and SFP's; the means agree to three digits."""
    kesi, hap = facts_of("CIFAR10", "kesi"), facts_of("CIFAR10", "hap")
    np.testing.assert_allclose(np.divide(kesi.mean, 255), (0.4914, 0.4822, 0.4465))
    np.testing.assert_allclose(np.divide(kesi.std, 255), (0.2023, 0.1994, 0.2010))
    np.testing.assert_allclose(np.divide(hap.std, 255), (0.2470, 0.2435, 0.2616))
    assert facts_of("CIFAR100", "kesi").mean == kesi.mean, "KESI has the constants of CIFAR-10 for both"
    assert facts_of("CIFAR100", "sfp").std == (68.2, 65.4, 70.4)
    assert facts_of("CIFAR10", "bgr").mean == (113.9, 123.0, 125.3), "EKG: blue's for red"
    np.testing.assert_allclose(NORMALISATIONS["hap"]["CINIC10"][0], (122.1195, 120.4365, 109.7775))


@pytest.mark.parametrize(
    ("name", "mode", "side"),
    [
        ("kesi", "zero", None), ("hap", "zero", None), ("sfp", "zero", None), ("ekg", "reflect", None),
        ("kesi_tiny", "zero", 224),
    ],
)  # fmt: skip
def test_pipelines_as_published(name, mode, side):
    pipeline = PIPELINES.find(name)
    assert (pipeline.pad_mode, pipeline.crop, pipeline.pad) == (mode, side, 4)
    assert pipeline.per_batch_crop == (name == "ekg") and pipeline.flip


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_shows_images_of_one_size(name):
    pipeline, images = PIPELINES.find(name), random_images(2)
    seen = tf.function(views.training_view, jit_compile=False)(
        tf.constant(images), tf.constant([1, 2]), pipeline, FACTS
    )
    tested = views.evaluation_view(tf.constant(images), pipeline)
    assert seen.dtype == tested.dtype == tf.float32
    assert seen.shape == (2 * pipeline.views, *tested.shape[1:])


def test_two_views_of_crops_are_two_crops_of_each_image_in_other_colours():
    """Of a grey ramp every crop shows another part; without colours no more than that differs."""
    pipeline = replace(PIPELINES.find("imagenet"), crop=16, views=2)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 4, (3, 32, 32, 3))
    seen, plain = (
        views.training_view(ramp, tf.constant([1, 1]), pipeline, replace(FACTS, colours=colours)).numpy()
        for colours in (True, False)
    )
    assert seen.shape == plain.shape == (6, 16, 16, 3)
    assert len({tuple(image[:, 0, 0]) for image in plain}) == 6 and plain.min() >= 0 and plain.max() <= 124
    assert all(np.abs(one - other).max() > 1 for one, other in zip(seen, plain, strict=True))


def test_zero_padding_is_black_and_reflection_is_not():
    images, seed = random_images(64), tf.constant([3, 1])
    zero, reflected = (views.training_view(images, seed, PIPELINES.find(n), FACTS) for n in ("kesi", "ekg"))
    # Of 81 offsets one shows no border.
    assert (zero.numpy() == 0).any(axis=(1, 2, 3)).mean() > 0.9
    assert not (reflected.numpy() == 0).any()


def test_what_must_not_be_mirrored_is_not():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, None, :, None] + 1, (64, 32, 32, 3))
    still = replace(FACTS, flip=False)
    for name in ("kesi", "kesi_tiny"):
        seen = views.training_view(ramp, tf.constant([1, 1]), PIPELINES.find(name), still).numpy()
        centre = seen.shape[1] // 2
        assert (seen[:, centre, centre + 1] >= seen[:, centre, centre - 1]).all()


def test_the_centre_crop_equals_tensorflows_resize():
    images = random_images(3, 64)
    expected = tf.image.resize(images, [256, 256]).numpy()[:, 16:240, 16:240]
    found = views.evaluation_view(images, PIPELINES.find("kesi_tiny")).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def coordinates(n: int, side: int) -> np.ndarray:
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.repeat(np.stack([row, column, 0 * row], -1)[None].astype(np.uint8), n, axis=0)


def test_random_resized_crops_are_parts_of_8_to_100_percent():
    """Area, aspect and position, read off images that say where their pixels lie; half are mirrored."""
    images, seed = tf.constant(coordinates(1000, 48)), tf.constant([5, 6])
    functions = [tf.function(views.random_resized_crop, jit_compile=jit) for jit in (False, True)]
    seen, jitted = (function(images, seed, 48).numpy() for function in functions)
    np.testing.assert_allclose(seen, jitted, atol=1e-3)
    rows, columns = (np.ptp(line, axis=1) + 1 for line in (seen[:, :, 0, 0], seen[:, 0, :, 1]))
    area, aspect = rows * columns / 48**2, columns / rows
    assert 0.07 < area.min() < 0.1 and 0.95 < area.max() <= 1.0
    assert 0.65 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.5
    small = rows < 40
    down = seen[small, 0, 0, 0] / (48 - rows[small])
    assert abs(down.mean() - 0.5) < 0.06 and down.min() < 0.01 and down.max() > 0.99
    flip = seen[:, 0, 0, 1] > seen[:, 0, -1, 1]
    assert abs(flip.mean() - 0.5) < 4 * 0.5 / 1000**0.5
    assert seen.min() >= 0 and seen.max() <= 47 and (np.diff(seen[:, :, 0, 0], axis=1) >= 0).all()


def test_an_unknown_pipeline_or_padding_is_refused():
    with pytest.raises(UsageError, match="pipeline='kessi'. Did you mean 'kesi'"):
        PIPELINES.find("kessi")
    with pytest.raises(UsageError, match="pad_mode='mirror'"):
        views.augment(random_images(1), tf.constant([1, 1]), pad_mode="mirror")
