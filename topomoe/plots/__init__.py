"""Figures, each from a run folder alone. Importing this loads matplotlib."""

from topomoe.plots.draw import FIGURES, draw_study

__all__ = ["FIGURES", "draw_study"]
