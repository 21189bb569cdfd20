"""Every row of the table of recipes: its words are understood before hours of training."""

import pytest

from benchmarks.recipe_accuracy import RECIPES
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.run import program_of


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_is_a_run(name):
    words = RECIPES[name]
    options = choose(["--recipe", words[0], "--arch", "ResNet-20", "--dataset", "CIFAR10", *words[1:]])
    assert program_of(options).steps
