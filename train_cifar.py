"""Prunes, distils and fine-tunes a CIFAR network: python train_cifar.py --help, or --recipe list"""

import sys

from secateur.__main__ import alone

if __name__ == "__main__":
    sys.exit(alone("train", "train_cifar.py"))
