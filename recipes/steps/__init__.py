"""Kinds of steps that a recipe file names, one file each: what it can be told, and what it does."""
