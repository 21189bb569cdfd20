"""Speed and accuracy, side by side with a peer in one run: `python -m benchmarks.NAME` from the project's folder."""
