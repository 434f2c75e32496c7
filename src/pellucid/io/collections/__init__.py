"""Public data sets as data: one TOML each, and the code that reads a folder by it."""
