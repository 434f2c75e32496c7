"""Files in and out: images, cases, models, and saved explanations."""
