"""The same method here and in every installed peer: what deviates, and which defect of the peer explains it."""
