"""Studies: many cases, models and methods into one table, and protocols held against it."""
