"""Every row of a table of runs: its words are understood before hours of training."""

import pytest

from benchmarks import fastnas, recipe_accuracy, teaching
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
