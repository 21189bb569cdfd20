"""The LiteRT file is compared with its network when it is written."""

import keras
import pytest

from secateur.exports import to_litert
from secateur.recipes.engine import files
from secateur.recipes.engine.files import save_litert


def network(scale: float, seed: int = 1) -> keras.Model:
    """One dense layer whose logits are about `scale`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3))
    weights = keras.initializers.RandomNormal(stddev=scale)
    return keras.Model(
        inputs, keras.layers.Dense(4, kernel_initializer=weights)(keras.layers.Flatten()(inputs))
    )


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_file_that_computes_the_same_is_no_news(scale, tmp_path, capfd):
    """Sums of 768 numbers around 10⁶ differ by more than 10⁻³ in another order: little beside them."""
    found = save_litert(network(scale), tmp_path / "a.tflite")["max_difference"]
    assert (found > 1e-3) == (scale > 1) and "warning" not in capfd.readouterr().err


def test_one_warning_when_the_logits_differ(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(files, "to_litert", lambda model: to_litert(network(1.0, seed=2)))
    assert save_litert(network(1.0), tmp_path / "a.tflite")["max_difference"] > 1e-3
    lines = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(lines) == 1 and "LiteRT" in lines[0]
