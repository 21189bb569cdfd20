"""Evaluates one pickled snapshot, or several as an ensemble: python test.py --help"""

import sys

from secateur.__main__ import alone

if __name__ == "__main__":
    sys.exit(alone("test", "test.py"))
