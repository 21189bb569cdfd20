"""Augmentation against NumPy and `tf.image`, with and without XLA."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from secateur.dataloader import DATASETS
from secateur.dataloader import augment as aug

SEEDS = [(0, 0), (1, 2), (-5, 2**31 - 1)]


def random_images(n: int, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def coordinates(n: int, side: int = 32) -> np.ndarray:
    """Images whose pixels say where they lie: red = row, green = column, blue = 0."""
    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.repeat(np.stack([row, column, 0 * row], -1)[None].astype(np.uint8), n, axis=0)


def read_offsets(cropped: np.ndarray, pad: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return down, right and flip of cropped `coordinates`, read at the centre: no reflection reaches it."""
    centre = cropped.shape[1] // 2
    here, beside = cropped[:, centre, centre, :2], cropped[:, centre, centre + 1, 1]
    flip = beside < here[:, 1]
    source = np.where(flip, cropped.shape[2] - 1 - centre, centre)
    return here[:, 0] - centre + pad, here[:, 1] - source + pad, flip


def reference_crop(images, down, right, flip, pad, mode="reflect"):
    height, width = images.shape[1:3]
    padded = np.pad(images, [(0, 0), (pad, pad), (pad, pad), (0, 0)], mode=mode)
    windows = [p[y : y + height, x : x + width] for p, y, x in zip(padded, down, right, strict=True)]
    return np.stack([w[:, ::-1] if f else w for w, f in zip(windows, flip, strict=True)]).astype(np.float32)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("height, width, pad", [(32, 32, 4), (9, 14, 8), (8, 5, 0)])
def test_crop_and_flip_equal_numpy(height, width, pad, mode, jit):
    rng = np.random.default_rng(pad)
    images = random_images(64, height, width)
    down, right = rng.integers(0, 2 * pad + 1, (2, 64), dtype=np.int32)
    flip = rng.random(64) < 0.5
    function = tf.function(aug.crop_and_flip, jit_compile=jit)
    got = function(tf.constant(images), tf.constant(down), tf.constant(right), tf.constant(flip), pad, mode)
    assert got.dtype == tf.float32
    numpys = {"reflect": "reflect", "zero": "constant"}[mode]
    assert np.array_equal(got, reference_crop(images, down, right, flip, pad, numpys))


def test_the_middle_window_is_the_image_itself():
    images = random_images(8)
    middle = tf.fill([8], 4)
    for flip, expected in ((False, images), (True, images[:, :, ::-1])):
        assert np.array_equal(aug.crop_and_flip(images, middle, middle, tf.fill([8], flip), 4), expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_augmented_image_is_a_window_of_its_padded_self(seed):
    images = random_images(64)
    seed = tf.constant(seed)
    down, right, flip = read_offsets(aug.augment(coordinates(64), seed).numpy())
    expected = reference_crop(images, down.astype(int), right.astype(int), flip, 4)
    assert np.array_equal(aug.augment(images, seed), expected)


def test_offsets_and_flips_are_uniform():
    """81 windows of 20,000 crops; chi-square with 80 degrees of freedom is below 140 in 99.996 %."""
    n = 20000
    cropped = aug.augment(coordinates(n), tf.constant([3, 4])).numpy()
    down, right, flip = read_offsets(cropped)
    counts = np.bincount((down * 9 + right).astype(int), minlength=81)
    assert len(counts) == 81
    assert ((counts - n / 81) ** 2 / (n / 81)).sum() < 140
    assert abs(flip.mean() - 0.5) < 4 * 0.5 / n**0.5
    assert abs(np.corrcoef(down, right)[0, 1]) < 4 / n**0.5
    assert abs(np.corrcoef(down, flip)[0, 1]) < 4 / n**0.5


def test_per_batch_crop_moves_all_images_alike_and_flips_each():
    offsets = set()
    for number in range(20):
        cropped = aug.augment(coordinates(64), tf.constant([number, 0]), per_batch_crop=True).numpy()
        down, right, flip = read_offsets(cropped)
        assert len(set(down)) == len(set(right)) == 1
        assert 0 < flip.sum() < 64
        offsets.add((down[0], right[0]))
    assert len(offsets) > 10


@pytest.mark.parametrize("seed", SEEDS)
def test_xla_gives_the_same_crops_bit_for_bit(seed):
    images, seed = tf.constant(random_images(128)), tf.constant(seed)
    plain, jitted = (tf.function(aug.augment, jit_compile=jit)(images, seed) for jit in (False, True))
    assert np.array_equal(plain, jitted)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("jit", [False, True])
def test_an_image_draws_by_its_place_in_the_whole_batch(seed, jit):
    """So a part of a batch draws what it would in the whole, XLA or not; of a part of a part, too."""
    draw = tf.function(aug.draw_integers, jit_compile=jit)
    whole = draw(tf.constant(seed), aug.WORDS, 8)
    assert np.array_equal(whole, aug.draw_integers(tf.constant([*seed, 0]), aug.WORDS, 8))
    part = aug.seed_of_part(aug.seed_of_part(tf.constant(seed), 3), 2)
    assert np.array_equal(draw(part, 3, 3), whole[:3, 5:])
    folded = aug.fold_seed(part, 7)
    assert np.array_equal(draw(folded, 3, 3), draw(aug.fold_seed(tf.constant(seed), 7), 3, 8)[:, 5:])


@pytest.mark.parametrize("per_batch_crop", [False, True])
def test_xla_gives_the_same_views_to_rounding(per_batch_crop):
    images, seed = tf.constant(random_images(32)), tf.constant([5, 6])
    functions = [tf.function(aug.two_views, jit_compile=jit) for jit in (False, True)]
    plain, jitted = (function(images, seed, per_batch_crop=per_batch_crop) for function in functions)
    np.testing.assert_allclose(plain, jitted, atol=2e-3)


def test_same_seed_same_bits_other_seed_others():
    images = random_images(32)
    once, again, other = (aug.augment(images, tf.constant(s), colour=True) for s in ([1, 2], [1, 2], [2, 1]))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_folded_seeds_differ_from_each_other():
    inputs = itertools.product(range(4), range(4), range(8))
    folded = {tuple(aug.fold_seed(tf.constant([a, b]), step).numpy()) for a, b, step in inputs}
    assert len(folded) == 128


@pytest.mark.parametrize("jit", [False, True])
def test_colour_jitter_equals_tensorflows_own(jit):
    """`tf.image` takes one factor for all images and goes through HSV; ours one for each, without HSV."""
    rng = np.random.default_rng(7)
    images = random_images(16).astype(np.float32)
    images[0] = 0
    images[1] = 77
    images[2, :, :, 1:] = 0
    factors = [rng.uniform(a, b, 16).astype(np.float32) for a, b in ((-30, 30), (0.5, 1.5), (0, 3))]
    got = tf.function(aug.jitter_colours, jit_compile=jit)(images, *factors)
    for image, d, c, s, ours in zip(images, *factors, got.numpy(), strict=True):
        expected = tf.image.adjust_contrast(tf.image.adjust_brightness(image, d), c)
        expected = tf.image.adjust_saturation(expected, s)
        np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_colour_leaves_crops_alone_and_stays_in_its_ranges():
    """On grey images the jitter is affine in each image: slope 0.8–1.2, correlation 1 with the crop."""
    grey = np.repeat(random_images(64)[..., :1], 3, axis=-1)
    seed = tf.constant([9, 9])
    plain = aug.augment(grey, seed).numpy()[..., 0].reshape(64, -1)
    coloured = aug.augment(grey, seed, colour=True).numpy()[..., 0].reshape(64, -1)
    slopes = coloured.std(1) / plain.std(1)
    assert all(np.corrcoef(a, b)[0, 1] > 0.999999 for a, b in zip(plain, coloured, strict=True))
    assert 0.7999 < slopes.min() < 0.85 and 1.15 < slopes.max() < 1.2001
    assert 0.01 < abs(coloured.mean(1) - plain.mean(1)).max() < 0.2001


def test_two_views_hold_all_images_in_order_twice():
    """Grey images of one level each keep it, but for the brightness of ±0.2."""
    level = np.arange(0, 256, 2, dtype=np.uint8)
    images = np.broadcast_to(level[:, None, None, None], (128, 8, 8, 3))
    views = aug.two_views(images, tf.constant([1, 1])).numpy()
    assert views.shape == (256, 8, 8, 3) and views.dtype == np.float32
    assert abs(views - np.concatenate([images, images])).max() < 0.2001


def test_two_views_are_independent():
    """Contrast factors of 400 grey images: uncorrelated (4 standard errors), both spread over 0.8–1.2."""
    grey = np.repeat(random_images(400, 16, 16)[..., :1], 3, axis=-1)
    spread = aug.two_views(grey, tf.constant([1, 1])).numpy().std((1, 2, 3)).reshape(2, 400)
    factors = spread / grey.std((1, 2, 3))
    assert (np.ptp(factors, axis=1) > 0.35).all()
    assert abs(np.corrcoef(factors)[0, 1]) < 0.2


def test_two_views_with_one_crop_a_batch_use_one_offset_a_view():
    grey = np.repeat(coordinates(32)[..., :1], 3, axis=-1)
    pairs = set()
    for number in range(12):
        cropped = aug.two_views(grey, tf.constant([number, 7]), per_batch_crop=True).numpy()[..., 0]
        # Contrast and saturation keep the mean of a grey image, so it says which rows were cut out.
        means = np.split(cropped.mean((1, 2)), 2)
        assert all(np.ptp(mean) < 0.4001 for mean in means)
        pairs.add(tuple(round(float(mean.mean()), 1) for mean in means))
    assert any(abs(a - b) > 0.5 for a, b in pairs), "the views must not share their offset"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_normalise_equals_numpy(dtype):
    images = random_images(4).astype(dtype)
    mean, std = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    expected = (images.astype(np.float64) - mean) / std
    np.testing.assert_allclose(aug.normalise(images, mean, std), expected, atol=1e-6)


def test_what_must_not_be_mirrored_is_only_cropped():
    images = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    for seed in range(5):
        unpadded = aug.augment(images, tf.constant([seed, 1]), pad=0, flip=False)
        np.testing.assert_array_equal(unpadded, images)
    assert not DATASETS["DIGITS"].flip and DATASETS["CIFAR10"].flip
