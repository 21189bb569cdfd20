"""Weights that share few values: k-means, bits for each kernel, training that keeps equals equal."""
