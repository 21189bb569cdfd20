"""A pipeline's images inside the compiled step: what training sees, and what evaluation sees. TensorFlow."""

from __future__ import annotations

import math

import tensorflow as tf

from secateur.dataloader.augment import (
    BITS,
    augment,
    draw_integers,
    fold_seed,
    jitter,
    normalise,
    two_views,
)
from secateur.dataloader.pipelines import Pipeline
from secateur.dataloader.splits import Facts

AREA = (0.08, 1.0)
"""Range of the share of an image that a random resized crop shows (Szegedy et al. 2015)."""
RATIO = (3 / 4, 4 / 3)
"""Range of that crop's width / height, drawn on a logarithmic scale."""


def training_view(images: tf.Tensor, seed: tf.Tensor, pipeline: Pipeline, facts: Facts) -> tf.Tensor:
    """Return augmented images on the 0–255 scale, float32 [views·b, h, w, 3].

    Args:
        images: uint8 [b, h, w, 3]; h and w static.
        seed: see `dataloader.augment`.
        pipeline: of `dataloader.pipelines`. With `crop` the images come out at that size.
        facts: of the data set: whether its images may be mirrored, and their colours jittered.
    """
    flip = facts.flip and pipeline.flip
    if pipeline.crop:
        seeds = [fold_seed(seed, view) for view in range(pipeline.views)] if pipeline.views > 1 else [seed]
        views = [random_resized_crop(images, one, pipeline.crop, flip) for one in seeds]
        if pipeline.views > 1 and facts.colours:
            views = [jitter(view, one) for view, one in zip(views, seeds, strict=True)]
        return tf.concat(views, 0)
    options = {"pad": pipeline.pad, "pad_mode": pipeline.pad_mode, "per_batch_crop": pipeline.per_batch_crop}
    if pipeline.views == 2:
        return two_views(images, seed, flip=flip, colour=facts.colours, **options)
    return augment(images, seed, flip=flip, **options)


def evaluation_view(images: tf.Tensor, pipeline: Pipeline) -> tf.Tensor:
    """Return images as they are evaluated, whole or their centre: float32 [b, h, w, 3], 0–255."""
    side, resize = pipeline.crop, pipeline.resize or pipeline.crop
    if not side or (side == resize and tuple(images.shape[1:3]) == (side, side)):
        return tf.cast(images, tf.float32)
    return centre_crop(images, resize, side)


def as_read(images: tf.Tensor, facts: Facts) -> tf.Tensor:
    """Return images as the network reads them, float32: the order of channels and constants of `facts`."""
    return normalise(images[..., ::-1] if facts.exchanged else images, facts.mean, facts.std)


def random_resized_crop(images: tf.Tensor, seed: tf.Tensor, side: int, flip: bool = True) -> tf.Tensor:
    """Return a random part of each image at side × side, float32, half of them mirrored if `flip`.

    The part has 8 to 100 % of the area and an aspect of 3:4 to 4:3, in whole pixels; where it would be longer
    than the image it is cut to it (torchvision draws again instead). Bilinear, without anti-aliasing: it is
    meant for images that are enlarged. The integers drawn are the same with and without XLA.
    """
    height, width = images.shape[1:3]
    unit = tf.unstack(tf.cast(draw_integers(seed, 5, tf.shape(images)[0]), tf.float32) / (1 << BITS), num=5)
    area = (AREA[0] + (AREA[1] - AREA[0]) * unit[0]) * (height * width)
    aspect = tf.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * unit[1])
    rows = tf.clip_by_value(tf.round(tf.sqrt(area / aspect)), 1, height)
    columns = tf.clip_by_value(tf.round(tf.sqrt(area * aspect)), 1, width)
    top, left = _offset(unit[2], height - rows), _offset(unit[3], width - columns)
    mirrored = (unit[4] >= 0.5) & flip
    down, across = _bilinear(top, rows, side, height), _bilinear(left, columns, side, width)
    return _sampled(images, down, tf.where(mirrored[:, None, None], across[:, ::-1], across))


def centre_crop(images: tf.Tensor, resize: int, side: int) -> tf.Tensor:
    """Return the middle side × side of each image at resize × resize, float32; bilinear as above."""
    height, width = images.shape[1:3]
    start, whole = tf.constant([(resize - side) // 2 / resize]), tf.constant([side / resize])
    down = _bilinear(start * height, whole * height, side, height, clip=False)
    across = _bilinear(start * width, whole * width, side, width, clip=False)
    count = tf.shape(images)[0]
    return _sampled(images, *(tf.repeat(matrix, count, axis=0) for matrix in (down, across)))


def _offset(unit: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Return 0 … room, whole, from numbers in [0, 1); their product may round up to room + 1."""
    return tf.minimum(tf.floor(unit * (room + 1)), room)


def _sampled(images: tf.Tensor, down: tf.Tensor, across: tf.Tensor) -> tf.Tensor:
    """Return [b, i, j, c]: rows mixed by `down` [b, i, h], columns by `across` [b, j, w]."""
    mixed = tf.einsum("bih,bhwc->biwc", down, tf.cast(images, tf.float32))
    return tf.einsum("bjw,biwc->bijc", across, mixed)


def _bilinear(start: tf.Tensor, length: tf.Tensor, new: int, old: int, clip: bool = True) -> tf.Tensor:
    """Return matrices [b, new, old] that stretch pixels start … start + length to `new`; rows sum to 1.

    Pixel centres lie at half integers. With `clip` nothing outside of that part is mixed in at its border.
    """
    centre = (tf.range(new, dtype=tf.float32) + 0.5) / new * length[:, None] + start[:, None] - 0.5
    low, high = (start[:, None], start[:, None] + length[:, None] - 1) if clip else (0.0, float(old - 1))
    centre = tf.clip_by_value(centre, low, high)
    return tf.nn.relu(1 - tf.abs(centre[:, :, None] - tf.range(old, dtype=tf.float32)))
