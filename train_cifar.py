"""Prunes, distils and fine-tunes a CIFAR network: python train_cifar.py --help, or --recipe list"""

import sys

from runs.errors import cli
from runs.quiet import start_tensorflow


def main() -> None:
    """argv → recipe and its options → report."""
    from recipes.registry import choose

    recipe, options = choose()
    if recipe:
        start_tensorflow()
        recipe.start(options)


if __name__ == "__main__":
    sys.exit(cli(main))
