"""Metrics, one property a file."""
