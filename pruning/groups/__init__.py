"""Channel groups of a network, read off its graph."""
