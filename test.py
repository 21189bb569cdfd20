"""Evaluates one pickled snapshot, or several as an ensemble: python test.py --help"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """argv → snapshots → accuracy on the test images."""
    from recipes.testing import parse

    options = parse()
    from recipes.testing import run

    run(options)


if __name__ == "__main__":
    from runs.errors import cli

    sys.exit(cli(main))
