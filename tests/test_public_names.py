"""Every name that a room offers is there, and none of them is hidden by a module."""

import importlib
import pkgutil

import pytest

LAZY = ("coding", "exports", "pruning")
ROOMS = (*LAZY, "dataloader", "distillation", "nets")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_there(room):
    package = importlib.import_module(f"secateur.{room}")
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


@pytest.mark.parametrize("room", LAZY)
def test_no_name_that_is_found_late_is_that_of_a_module(room):
    """Importing the module `pruning.plan` sets the attribute `plan`: a function of this name were gone."""
    package = importlib.import_module(f"secateur.{room}")
    assert {module.name for module in pkgutil.iter_modules(package.__path__)}.isdisjoint(package.__all__)
