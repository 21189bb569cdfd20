"""Evaluates one pickled snapshot, or several as an ensemble: python test.py --help"""

import sys

from secateur.runs.errors import cli
from secateur.runs.quiet import start_tensorflow


def main() -> None:
    """argv → snapshots → accuracy on the test images."""
    from secateur.recipes.engine.config import parse_evaluate

    config = parse_evaluate()
    start_tensorflow()
    from secateur.recipes.commands.evaluate import run

    run(config)


if __name__ == "__main__":
    sys.exit(cli(main, interrupted="interrupted: nothing was saved; start it again"))
