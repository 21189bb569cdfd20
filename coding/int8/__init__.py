"""Networks in whole numbers of 8 bits: BatchNorm folded, rounding inside of training."""
