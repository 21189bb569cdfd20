"""Faults on purpose: `make chaos` kills, starves and attacks runs and writes what they survived as JSON."""
