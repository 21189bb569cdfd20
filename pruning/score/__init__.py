"""From a criterion to one score for each channel of each group."""
