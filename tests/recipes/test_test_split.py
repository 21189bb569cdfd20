"""No decision reads the test images: every recipe of the tests runs under a spy, which sees who does."""

import pytest

from tests.helpers.spy import READ_EARLY

PEEKING = """
from secateur.recipes.engine.step import Step, step


@step("peek")
class Peek(Step):
    '''Reads the test images, or nothing.'''

    split: str = "test"

    def run(self, context, state):
        len(getattr(context.splits, self.split))
        return state
"""
RECIPE = """
[[steps]]
kind = "dense"
epochs = 1
[[steps]]
kind = "peek"
"""
pytestmark = pytest.mark.runs


def test_the_spy_sees_a_step_that_reads_test_images_and_lets_the_report_read_them(programs, tmp_path):
    (tmp_path / "peek.py").write_text(PEEKING)
    (tmp_path / "peek.toml").write_text(RECIPE)
    words = "--recipe peek.toml --import peek.py --arch ResNet-8 --dataset DIGITS --train_images 64"
    words = [*words.split(), "--batch_size", 32, "--time_seconds", 0.01, "--train_path", "run"]
    peeked = programs.run("train_cifar.py", *words, cwd=tmp_path)
    assert peeked.code == 1 and f"AssertionError: {READ_EARLY}" in peeked.err
    honest = programs.run("train_cifar.py", *words, "--set", "peek.split=holdout", cwd=tmp_path)
    assert honest.code == 0, honest.err
    assert "test" in honest.out
