"""Speed and accuracy, side by side with a peer in one run: `python -m benchmarks.NAME` in this folder."""
