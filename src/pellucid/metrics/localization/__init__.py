"""Localization: whether a map lies where an expert (or planted truth) says the finding is."""
