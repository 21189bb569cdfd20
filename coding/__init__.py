"""How to store a pruned network in the fewest bytes."""
