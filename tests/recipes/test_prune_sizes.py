"""Models that leave their input size open are pruned by all that does not depend on it."""

import html
import json
import re

import keras
import numpy as np
import pytest

from secateur.exports.signature import OPEN_SIZES, sample_sizes
from secateur.pruning import complexity, make_plan, summary
from secateur.runs import UsageError


def convolutional(size: int | None) -> keras.Model:
    """A net with a skip, for images of one size or of any; its weights do not depend on it."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(24, 3, padding="same", use_bias=False, name="inner")(x)
    y = layers.PReLU(shared_axes=(1, 2))(layers.BatchNormalization()(y))
    x = layers.Add()([x, layers.SeparableConv2D(16, 3, padding="same", name="outer")(y)])
    x = layers.Conv2DTranspose(8, 2, strides=2, name="up")(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Conv2D(1, 1, name="map")(x), name="net")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where net.keras lies, which is for images of any size."""
    folder = tmp_path_factory.mktemp("open")
    convolutional(None).save(folder / "net.keras")
    return folder


@pytest.mark.parametrize("budget", ["keep", "keep_params", "keep_bytes"])
@pytest.mark.parametrize("convention", ["mac", "ekg"])
def test_an_open_size_changes_no_plan(budget, convention):
    options = {budget: 0.5, "allocation": "global", "convention": convention}
    assert make_plan(convolutional(None), **options) == make_plan(convolutional(32), **options)


def test_parameters_of_a_channel_are_known_and_its_operations_are_a_dash():
    rows, fixed = (
        {line.split()[0]: line.split() for line in summary(convolutional(size)).splitlines() if line}
        for size in (None, 32)
    )
    for name in ("stem", "inner", "up"):
        assert rows[name][-1] == fixed[name][-1] and rows[name][:-2] == fixed[name][:-2]
        assert rows[name][-2] == "–" != fixed[name][-2]


def test_it_is_pruned_compared_and_exported_at_some_size(secateur, folder, tmp_path):
    options = ["--keep_params", 0.5, "-o", "s.keras", "--export", "litert", "--report", "r.html"]
    out = secateur("prune", folder / "net.keras", *options)
    assert re.search(r"^MACs +– +– +–$", out, re.M)
    assert re.search(r"^milliseconds +– +– +–$", out, re.M)
    assert "masked and compact model: " in out and (tmp_path / "s.tflite").exists()
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(row["macs"], row["ms"]) for row in report["costs"]] == [(None, None)] * 2
    before, after = (row["params"] for row in report["costs"])
    assert before == complexity(convolutional(32)).params and 0.45 * before < after <= 0.5 * before
    assert report["parities"]["masked model"]["relative"] < 1e-5
    assert "leaves open" in html.unescape((tmp_path / "r.html").read_text())
    small = keras.models.load_model(tmp_path / "s.keras")
    assert [small(np.zeros((1, n, n, 3))).shape for n in (8, 20)] == [(1, 8, 8, 1), (1, 20, 20, 1)]


@pytest.mark.parametrize("budget", ["keep_macs", "keep_ms", "max_ms"])
def test_budgets_that_need_a_size_name_the_others(secateur, folder, budget):
    said = rf"(?s)^--{budget} needs inputs of fixed size.*\(None, None, None, 3\).*--keep_params"
    with pytest.raises(UsageError, match=said):
        secateur("prune", folder / "net.keras", f"--{budget}", 0.5, "--dry_run")


@pytest.mark.parametrize(("window", "size"), [(9, 32), (33, 64), (200, 256), (5000, OPEN_SIZES[0])])
def test_samples_have_the_first_size_that_a_model_takes(window, size):
    x = keras.Input((None, 3))
    model = keras.Model(x, keras.layers.Conv1D(2, window)(x))
    assert sample_sizes(model) == [(size, 3)]
