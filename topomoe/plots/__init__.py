"""Figures, each from a run folder alone."""
