"""The programs on a model of one's own, and the evaluation of snapshots."""
