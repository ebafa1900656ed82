"""All figures of routers, from a run's folder alone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from topomoe.plots import (
    router_adapters,
    router_assignments,
    router_balance,
    router_capacity,
    router_curves,
    router_layers,
    router_losses,
    router_pareto,
    router_rank,
)
from topomoe.plots.style import look, save
from topomoe.router_results import RouterResults, read_routers
from topomoe.run_folder import RunFolder

FIGURES: tuple[ModuleType, ...] = (
    router_pareto,
    router_curves,
    router_balance,
    router_layers,
    router_capacity,
    router_rank,
    router_losses,
    router_assignments,
    router_adapters,
)


def figures_of(results: RouterResults) -> tuple[ModuleType, ...]:
    """Return the figures for which the run has results."""
    with look():
        return tuple(module for module in FIGURES if module.draw(results) is not None)


def draw_routers(folder: RunFolder) -> list[Path]:
    """Draw figures/*.png and .pdf for what the run has results of; return their paths.

    The same results give the same bytes. Raises InputError where the results lack a column that a
    figure of theirs shows.
    """
    results = read_routers(folder)
    paths: list[Path] = []
    for module in FIGURES:
        with look():
            figure = module.draw(results)
            if figure is not None:
                paths += save(figure, folder.path / "figures", module.NAME)
    return paths
