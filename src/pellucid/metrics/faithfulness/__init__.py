"""Faithfulness: whether what a map ranks high is what the model uses."""
