"""One file for each family of architectures; what any file of this folder registers is found by `build`."""
