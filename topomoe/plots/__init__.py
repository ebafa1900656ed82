"""Figures, each from a run folder alone. Importing this loads matplotlib."""

from topomoe.plots.draw import FIGURES, caption, draw_study, figures_of

__all__ = ["FIGURES", "caption", "draw_study", "figures_of"]
