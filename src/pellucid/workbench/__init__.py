"""The one wiring: image and model in, explanations, scores and reports out."""
