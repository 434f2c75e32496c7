"""Explanation methods, one family a file."""
