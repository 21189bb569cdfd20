"""Evaluates one pickled snapshot, or several as an ensemble: python test.py --help"""

import sys

from runs.errors import cli
from runs.quiet import start_tensorflow


def main() -> None:
    """argv → snapshots → accuracy on the test images."""
    from recipes.config import parse_evaluate

    config = parse_evaluate()
    start_tensorflow()
    from recipes.evaluate import run

    run(config)


if __name__ == "__main__":
    sys.exit(cli(main, interrupted="interrupted: nothing was saved; start it again"))
