"""One file per form in which a model comes."""
