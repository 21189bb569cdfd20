"""Every row of the table of recipes: its words are understood before hours of training."""

import pytest

from benchmarks.recipe_accuracy import RECIPES
from secateur.recipes.engine.recipe import find_recipe
from secateur.recipes.engine.registry import choose
from secateur.recipes.engine.step import make_step


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_is_a_run(name):
    words = RECIPES[name]
    _, options = choose(["--recipe", words[0], "--arch", "ResNet-20", "--dataset", "CIFAR10", *words[1:]])
    if recipe := find_recipe(words[0]):
        assert [make_step(table) for table in recipe.changed(options.set)]
