"""Every row of a table of runs: its words are understood before hours of training."""

import numpy as np
import pytest

from benchmarks import fastnas, recipe_accuracy, tasks, teaching
from secateur.dataloader import load
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.program import program_of

ROWS = dict(recipe_accuracy.RECIPES)
for name, (recipe, _) in fastnas.OURS.items():
    ROWS[name] = [*recipe, "--keep_macs", "0.7", "--set", *fastnas.settings(name, 12)]
for name, words in teaching.ROWS.items():
    ROWS[f"hap, {name}"] = ["hap", "--teacher", "net.pkl", "--distill", *words]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_run(name):
    words = ROWS[name]
    options = choose(["--recipe", words[0], "--arch", "ResNet-20", "--dataset", "CIFAR10", *words[1:]])
    assert program_of(options).steps


def test_the_labels_of_a_scene_say_the_same():
    splits = load("DIGITS", shape=(tasks.DIGIT, tasks.DIGIT, 1))
    images, labels = tasks.scenes(splits.train, 40, seed=3)
    assert images.shape == (40, 32, 32, 1) and np.abs(labels["numbers"]).max() <= 1
    for image, hot, rows, pixels in zip(images, *labels.values(), strict=True):
        assert set(np.unique(pixels)) - {0} == {digit + 1 for digit in np.flatnonzero(hot)}
        assert image[pixels > 0].mean() > image[pixels == 0].mean() + 0.3
        for half, row in enumerate(rows):
            inked = np.flatnonzero(pixels[:, 16 * half : 16 * half + 16].any(1))
            first = round((row + 1) * 9)
            assert first <= inked.min() and inked.max() < first + tasks.DIGIT
