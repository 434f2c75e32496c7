"""Randomization: whether the map depends on what the model has learned, and on what is asked of it."""
