"""The nouns: they know torch, and no method, file format or screen."""
