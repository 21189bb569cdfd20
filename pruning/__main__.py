"""Prunes a saved Keras model: python -m pruning MODEL.keras --keep_macs 0.5 -o SMALL.keras, or --help."""

import sys

from secateur.runs.errors import cli
from secateur.runs.quiet import start_tensorflow


def main() -> None:
    """argv → options → the recipe."""
    from secateur.recipes.commands.prune_options import parse

    options = parse()
    start_tensorflow()
    from secateur.recipes.commands.prune import run

    run(options)


if __name__ == "__main__":
    sys.exit(cli(main, interrupted="interrupted: the model was not written; start it again"))
