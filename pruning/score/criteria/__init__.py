"""Scores of channels: pure functions of arrays, larger = keep. One file for each idea."""
