"""Milliseconds as a budget: layers measured once, whole networks predicted, the result measured again."""
