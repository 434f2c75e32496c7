"""An append-only, hash-chained record of what was done with a model and its explanations, without patient data."""
