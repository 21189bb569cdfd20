"""Keras models in fewer bytes: python -m coding encode|decode|inspect|int8 FILE, or --help."""

import sys

from secateur.__main__ import CODING, main

if __name__ == "__main__":
    sys.exit(main("python -m coding", CODING))
