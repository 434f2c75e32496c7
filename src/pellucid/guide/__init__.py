"""The knowledge of the review and of clinical reading, as data."""
