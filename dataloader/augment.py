"""Augmentation inside the compiled step: batched, stateless TensorFlow that compiles with and without XLA.

Every random number is an integer drawn with Philox, so the same seed gives the same crop and flip whether XLA
compiles the step or not. (Floats drawn directly differ between the two.)

A seed is int32 [2], or [3] for a part of a batch: the last number is then the place of the part's first image
in the whole batch. What an image draws depends on the first two and on its place in the whole batch alone, so
a batch may be divided over devices and micro-batches in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from secateur.runs.errors import UsageError

BRIGHTNESS = 0.2
"""Largest shift of all pixels. On EKG's 0–255 pixels it changes next to nothing; kept as published."""
CONTRAST = (0.8, 1.2)
"""Range of the factor on each pixel's distance from its image's mean."""
SATURATION = (0.8, 1.2)
"""Range of the factor on the saturation, as in hue–saturation–value."""

BITS = 24
"""Of every draw. A float32 holds integers of 24 bits exactly."""
WORDS = 8
"""Numbers that an image may draw from a seed: two blocks of Philox, of four words of 32 bits."""


def normalise(images: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """Return (images − mean) / std per channel, float32; `images` [b, h, w, 3], 0–255, of any number type."""
    return (tf.cast(images, tf.float32) - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)


def fold_seed(seed: tf.Tensor, data: int | tf.Tensor) -> tf.Tensor:
    """Return another seed of the same images: of stream `data` (an integer: step, view …) of `seed`."""
    folded = tf.random.experimental.stateless_fold_in(seed[:2], tf.cast(data, tf.int32), alg="philox")
    return tf.concat([folded, seed[2:]], 0)


def seed_of_part(seed: tf.Tensor, start: int | tf.Tensor) -> tf.Tensor:
    """Return the seed, int32 [3], of images `start` … of those that `seed` is for."""
    return tf.concat([seed[:2], [tf.reduce_sum(seed[2:]) + start]], 0)


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    pad: int = 4,
    pad_mode: str = "reflect",
    per_batch_crop: bool = False,
    flip: bool = True,
    colour: bool = False,
) -> tf.Tensor:
    """Return randomly cropped and flipped images, and jitter their colours if asked to.

    Each image is padded, cropped back to its size at a random offset and flipped left to right in half of the
    cases. EKG pads by reflection; the other systems with zeros, see `dataloader.pipelines`.

    Args:
        images: uint8 [b, h, w, 3]; h and w static.
        seed: int32 [2] or [3]. `colour` does not change which crops and flips a seed gives.
        pad: pixels on each side, 0 ≤ pad < min(h, w).
        pad_mode: "reflect" or "zero". It does not change which crops and flips a seed gives.
        per_batch_crop: one offset for the whole batch, that of its first image: what EKG's program does.
        flip: whether to mirror at all; digits and letters must not be.
        colour: see `jitter_colours`.

    Returns:
        float32 [b, h, w, 3] on the 0–255 scale, not clipped: jittered colours may leave 0–255.
    """
    draws = draw_integers(seed, 6 if colour else 3, tf.shape(images)[0])
    offsets = draws[:2]
    if per_batch_crop:
        offsets = tf.broadcast_to(draw_integers(seed[:2], 2, 1), tf.shape(offsets))
    down, right = tf.unstack(offsets % (2 * pad + 1), num=2)
    mirrored = (draws[2] % 2 == 1) & flip
    cropped = crop_and_flip(images, down, right, mirrored, pad, pad_mode)
    return jitter_colours(cropped, *_factors(draws[3:])) if colour else cropped


def two_views(images: tf.Tensor, seed: tf.Tensor, *, colour: bool = True, **options: Any) -> tf.Tensor:
    """Return two independent colour-jittered views, [2b, h, w, 3]: the first of all images, then the second.

    EKG's fine-tuning sees every image twice (specified with `per_batch_crop`: one offset per view and batch).
    Arguments as in `augment`.
    """
    views = [augment(images, fold_seed(seed, view), colour=colour, **options) for view in range(2)]
    return tf.concat(views, axis=0)


def crop_and_flip(
    images: tf.Tensor,
    down: tf.Tensor,
    right: tf.Tensor,
    flip: tf.Tensor,
    pad: int,
    pad_mode: str = "reflect",
) -> tf.Tensor:
    """Crop each image out of its padded self, then flip it.

    Padding, crop and flip only permute and repeat pixels, so they are one gather of pixels from the unpadded
    images. Per 128 images of 32×32 on two CPU cores that takes 0.8 ms; rows and columns in turn 1.6, one-hot
    products 1.3 to 1.8, `gather_nd` 2.2, `crop_and_resize` 4.8, a slice for each image 9.3. Under XLA 0.3.

    Args:
        images: [b, h, w, c], any type; h and w static, above `pad`.
        down, right: int32 [b], the window's offset in the padded image, 0 … 2·pad. `pad` is the middle.
        flip: bool [b], left to right.
        pad: pixels on each side.
        pad_mode: "reflect" = mirrored at the outermost pixels, "zero" = black.

    Returns:
        float32 [b, h, w, c], each value one of the image's own, or 0.

    Raises:
        UsageError: another `pad_mode`.
    """
    if pad_mode not in ("reflect", "zero"):
        raise UsageError(f"Images are padded by reflect or zero. Received: pad_mode={pad_mode!r}")
    height, width, channels = images.shape[1:]
    columns = tf.where(flip[:, None], tf.range(width)[::-1], tf.range(width))
    rows, columns = tf.range(height) + down[:, None] - pad, columns + right[:, None] - pad
    first = tf.range(tf.shape(images)[0])[:, None] * height
    pixel = (first + _reflect(rows, height))[:, :, None] * width + _reflect(columns, width)[:, None, :]
    cropped = tf.cast(tf.gather(tf.reshape(images, [-1, channels]), pixel), tf.float32)
    if pad_mode == "reflect":
        return cropped
    inside = _inside(rows, height)[:, :, None, None] * _inside(columns, width)[:, None, :, None]
    return cropped * inside


def jitter(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Change the colours of each image by what it draws of the published ranges; see `jitter_colours`."""
    return jitter_colours(images, *_factors(draw_integers(fold_seed(seed, -1), 3, tf.shape(images)[0])))


def jitter_colours(
    images: tf.Tensor, shift: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor
) -> tf.Tensor:
    """Change brightness, then contrast, then saturation of each image: [b, h, w, 3] and [b], all float32.

    Brightness adds `shift`; contrast scales the distance from the mean of each channel; saturation is
    multiplied in hue–saturation–value, cut at 1. The results equal `tf.image.adjust_*`. A change of
    saturation at constant hue and value v = max(r, g, b) moves the channels linearly away from v, so no
    conversion to HSV and back is needed.
    """
    shift, contrast, saturation = (factor[:, None, None, None] for factor in (shift, contrast, saturation))
    images = images + shift
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    images = mean + (images - mean) * contrast
    value = tf.reduce_max(images, axis=-1, keepdims=True)
    chroma = value - tf.reduce_min(images, axis=-1, keepdims=True)
    # Saturation = chroma / value, and 0 where no channel is positive; the factor may bring it to 1 at most.
    factor = tf.minimum(saturation, tf.maximum(value, 0.0) / tf.maximum(chroma, 1e-6))
    return value + (images - value) * factor


def draw_integers(seed: tf.Tensor, kinds: int, batch: int | tf.Tensor) -> tf.Tensor:
    """Return integers, [kinds, batch], below 2^24. Fewer of the `WORDS` kinds are a prefix of more."""
    blocks = WORDS // 4 * tf.reduce_sum(seed[2:])
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[batch, WORDS],
        key=tf.bitcast(seed[None, :2], tf.uint64),
        counter=tf.cast(tf.stack([blocks, 0]), tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.uint32,
    )
    upper = tf.bitwise.right_shift(words, tf.constant(32 - BITS, tf.uint32))
    return tf.cast(tf.transpose(upper)[:kinds], tf.int32)


def _factors(draws: tf.Tensor) -> list[tf.Tensor]:
    """Map integers below 2^24, [3, b], to brightness shifts, contrast and saturation factors, [b] each."""
    unit = tf.unstack(tf.cast(draws, tf.float32) / float(1 << BITS), num=3)
    ranges = ((-BRIGHTNESS, BRIGHTNESS), CONTRAST, SATURATION)
    return [low + (high - low) * share for (low, high), share in zip(ranges, unit, strict=True)]


def _inside(position: tf.Tensor, size: int) -> tf.Tensor:
    """1 where 0 ≤ position < size, else 0; float32."""
    return tf.cast((position >= 0) & (position < size), tf.float32)


def _reflect(position: tf.Tensor, size: int) -> tf.Tensor:
    """Map positions −size < p < 2·size − 1 into 0 … size − 1, mirrored at the outermost pixels."""
    return size - 1 - tf.abs(size - 1 - tf.abs(position))
