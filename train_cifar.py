"""Prunes and fine-tunes a CIFAR network: python train_cifar.py --help"""

import sys

from runs.errors import cli
from runs.quiet import start_tensorflow


def main() -> None:
    """argv → config → recipe → report."""
    from recipes.config import parse

    config = parse()
    start_tensorflow()
    from recipes.ekg import run

    run(config)


if __name__ == "__main__":
    sys.exit(cli(main))
