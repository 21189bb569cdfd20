"""Prunes and fine-tunes a CIFAR network: python train_cifar.py --help"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """argv → config → recipe → report."""
    from recipes.config import parse

    config = parse()
    from recipes.ekg import run

    run(config)


if __name__ == "__main__":
    from runs.errors import cli

    sys.exit(cli(main))
