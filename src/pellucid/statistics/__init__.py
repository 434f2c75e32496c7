"""Statistics of scores and readers: numbers in, numbers with intervals out; knows no image and no model."""
