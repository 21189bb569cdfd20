"""Networks that are deeper than Python's stack."""

import sys

import keras
import numpy as np
import pytest

from secateur.pruning import compact, make_plan
from secateur.runs.recursion import deep

DEPTH = 1100


def test_a_network_deeper_than_the_stack_is_pruned():
    images = keras.Input((4,))
    x = keras.layers.Dense(8, name="first")(images)
    relu = keras.layers.ReLU(name="again")
    for _ in range(DEPTH):
        x = relu(x)
    logits = keras.layers.Dense(2, name="logits")(x)
    with pytest.raises(RecursionError):
        keras.Model(images, logits)
    before = sys.getrecursionlimit()
    with deep(DEPTH):
        model = keras.Model(images, logits)
    small = compact(model, make_plan(model, keep=0.5))
    assert small.get_layer("first").units == 4 and sys.getrecursionlimit() == before
    assert np.isfinite(small(np.ones((1, 4), np.float32))).all()
