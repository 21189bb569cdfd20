"""Keras models in fewer bytes: python -m coding encode|decode|inspect|int8 FILE, or --help."""

import sys

from secateur.runs.errors import cli


def main() -> None:
    """argv → options → the work."""
    from secateur.recipes.commands.code_options import parse

    options = parse()
    if options.command != "inspect":
        from secateur.runs.quiet import start_tensorflow

        start_tensorflow()
    from secateur.recipes.commands.code import run

    run(options)


if __name__ == "__main__":
    sys.exit(cli(main, interrupted="interrupted: no file was written; start it again"))
