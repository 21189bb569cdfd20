"""Prunes, distils and fine-tunes a CIFAR network: python train_cifar.py --help, or --recipe list"""

import sys

from secateur.runs.errors import cli
from secateur.runs.quiet import start_tensorflow


def main() -> None:
    """argv → recipe and its options → report."""
    from secateur.recipes.engine.registry import choose

    recipe, options = choose()
    if recipe:
        start_tensorflow()
        recipe.start(options)


if __name__ == "__main__":
    sys.exit(cli(main))
