"""One program: secateur prune | train | test | encode | decode | inspect | int8 | report, or --help."""

from __future__ import annotations

import runpy
import sys

PROGRAMS = {
    "prune": ("secateur.pruning", "a saved Keras model in, a smaller plain one out"),
    "train": ("secateur.train_cifar", "published systems as recipes: prune, distil, fine-tune"),
    "test": ("secateur.test", "accuracy of pickled snapshots, one or several as an ensemble"),
    "encode": ("secateur.coding", "a model in the fewest bytes"),
    "decode": ("secateur.coding", "the model of a .kpz file"),
    "inspect": ("secateur.coding", "what is in a .kpz file"),
    "int8": ("secateur.coding", "a LiteRT file of whole numbers"),
}


def main() -> None:
    """The first word names the program, which reads the others."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("-h", "--help"):
        print("usage: secateur PROGRAM [--help]\n")
        print("\n".join(f"  {name:8} {about}" for name, (_, about) in PROGRAMS.items()))
        return
    if word not in PROGRAMS:
        from secateur.runs.suggest import nearest

        print(f"secateur: unknown program. Received: {word!r}. {nearest(word, PROGRAMS)}", file=sys.stderr)
        sys.exit(2)
    module = PROGRAMS[word][0]
    sys.argv = [f"secateur {word}", *sys.argv[1 if module == "secateur.coding" else 2 :]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
