"""What lies inside of TimeDistributed is pruned like what lies outside."""

import keras
import numpy as np

from secateur.pruning import compact, complexity, find_groups, make_plan, mask
from tests.helpers.subclassed import Residual

L = keras.layers


def test_a_model_for_every_frame():
    cnn = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(6, 3, name="first"),
            L.BatchNormalization(),
            L.ReLU(),
            Residual(6),
            L.Flatten(),
        ],
        name="cnn",
    )
    images = keras.Input((5, 8, 8, 3))
    x = L.TimeDistributed(L.Dense(7, activation="relu", name="each"), name="frames")(
        L.TimeDistributed(cnn)(images)
    )
    model = keras.Model(images, L.Dense(4, name="kinds")(L.GlobalAveragePooling1D()(x)))
    batch = np.random.default_rng(0).normal(size=(2, 5, 8, 8, 3)).astype(np.float32)
    assert np.array_equal(model(batch), compact(model)(batch))
    assert [g.size for g in find_groups(model)] == [6, 12, 7]
    plan = make_plan(model, "random", keep=0.5)
    masked, small = mask(model, plan), compact(model, plan)
    np.testing.assert_allclose(masked(batch), small(batch), atol=1e-6)
    assert {type(layer).__name__ for layer in small.layers if layer.weights} == {"TimeDistributed", "Dense"}
    assert complexity(model, plan=plan).macs == complexity(small).macs
    conv = next(row for row in complexity(model).layers if row.name.endswith("/first"))
    assert conv.macs == 5 * 6 * 6 * 3 * 3 * 3 * 6
