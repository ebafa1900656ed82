"""Experts near their tokens: few bytes between rows of devices."""
