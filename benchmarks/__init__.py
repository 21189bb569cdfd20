"""Speed and accuracy, side by side with a peer in one run: `python -m benchmarks.NAME` in this folder."""

from secateur.runs.start import prefer_onednn

prefer_onednn()  # as the program does; TensorFlow looks once, when it is imported
