"""Engines: the same network evaluated faster, each checked against it before it is used."""
