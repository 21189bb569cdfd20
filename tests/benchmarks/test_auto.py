"""Every row of the table by time: its words are understood before the minutes pass."""

import pytest

from benchmarks.auto import ROWS
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.program import program_of


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_run(name):
    settings = ["--set", *ROWS[name]] if ROWS[name] else []
    options = choose(["--minutes", "15", "--keep_macs", "0.5", *settings])
    assert [step.kind for step in program_of(options).steps] == ["dense", "auto", "train"]
