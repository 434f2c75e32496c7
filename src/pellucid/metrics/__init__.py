"""Metrics, one property a file or package."""
