"""The demo: small networks of our own, real images out of installed packages, and one case with exact truth."""
