"""Prunes a saved Keras model: python -m pruning MODEL.keras --keep_macs 0.5 -o SMALL.keras, or --help."""

import sys

from secateur.__main__ import alone

if __name__ == "__main__":
    sys.exit(alone("prune", "python -m pruning"))
