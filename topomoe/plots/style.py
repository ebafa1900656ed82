"""One look for all figures: sizes, and a colour for each topology and each part of a step."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from topomoe.topologies.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 10.0  # inches; a report shows figures at about this width
DPI = 150
COLUMNS = 4  # panels side by side at most
_TICKS = 5  # of a log axis at least

# Okabe and Ito's palette, told apart with any colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
# Darker ones beside it, where nine do not suffice.
OLIVE, WINE, INDIGO, BROWN = "#999933", "#882255", "#332288", "#8C5A2B"

PARTS = {
    "dispatch": BLUE,
    "combine": SKY,
    "compute": ORANGE,
    "backward": PURPLE,
    "attention and dense": "#DDDDDD",
}
_TOPOLOGIES = {
    "fat-tree": BLUE,
    "leaf-spine": SKY,
    "mesh": VERMILLION,
    "torus": ORANGE,
    "twisted-torus": PURPLE,
    "optical": GREEN,
    "rails": BLACK,
    "jellyfish": GREY,
    "hypercube": INDIGO,
    "dragonfly": WINE,
    "torus-3d": BROWN,
    "hamming-mesh": OLIVE,
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
# Of routings, beside which black and grey are bounds.
ROUTINGS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, INDIGO, OLIVE, WINE, BROWN)

_SETTINGS: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "pdf.fonttype": 42,
    "svg.hashsalt": "topomoe",
    "path.simplify": False,
}


@contextmanager
def look() -> Iterator[None]:
    """Draw with these settings alone, whatever a user's own say."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of that many inches, in constrained layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(
    figure: Figure, folder: Path, name: str, kinds: Sequence[str] = ("png", "pdf")
) -> list[Path]:
    """Write name.png and name.pdf, the same bytes for the same figure, and return their paths."""
    nothing: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both
    paths = []
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=nothing[kind])
        path = folder / f"{name}.{kind}"
        write_atomic(path, buffer.getvalue())
        paths.append(path)
    return paths


def topology_styles(topologies: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return colour, marker and line width of each topology.

    Earlier lines are wider, so that a later one on top of them hides nothing.
    """
    looks = dict(zip(_TOPOLOGIES, zip(_TOPOLOGIES.values(), MARKERS, strict=True), strict=True))
    # A topology of the user's own looks like a named one that is not there.
    spare = [look for name, look in reversed(looks.items()) if name not in topologies]
    spare += [(YELLOW, marker) for marker in MARKERS]
    own = [name for name in topologies if name not in looks]
    looks |= {name: spare[place % len(spare)] for place, name in enumerate(own)}
    styles = {}
    for number, name in enumerate(topologies):
        colour, marker = looks[name]
        width = 1.2 + 1.6 * (len(topologies) - 1 - number) / max(1, len(topologies) - 1)
        styles[name] = {"color": colour, "marker": marker, "linewidth": width}
    return styles


def panels(
    figure: Figure, count: int, sharey: bool = True, columns: int = COLUMNS, sharex: bool = True
) -> list[Axes]:
    """Return ``count`` panels that share their axes, at most ``columns`` side by side."""
    across = min(count, columns)
    down = -(-count // across)
    grid = figure.subplots(down, across, sharex=sharex, sharey=sharey, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for number, spare in enumerate(axes[count:], count):
        spare.remove()
        axes[number - across].tick_params(labelbottom=True)
    return axes[:count]


def label_below(axes: list[Axes], text: str, columns: int = COLUMNS) -> None:
    """Label the x axes of the lowest panel of each column."""
    for axis in axes[-columns:]:
        axis.set_xlabel(text)


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from low to high, about evenly apart on a log scale.

    >>> log_ticks(0.08, 7), log_ticks(12, 65)
    ([0.1, 0.2, 0.5, 1.0, 2.0, 5.0], [15.0, 20.0, 30.0, 40.0, 60.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        numbers = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [number for number in numbers if low <= number <= high]
        if len(ticks) >= _TICKS:
            return ticks
    numbers = [float(n) for n in MaxNLocator(6).tick_values(low, high)]
    return [float(f"{n:.10g}") for n in numbers if low <= n <= high]


def columns_of(entries: int, most: int) -> int:
    """Return the columns of a legend: as few rows as ``most`` allows, filled evenly.

    >>> columns_of(5, 8), columns_of(9, 8)
    (5, 5)
    """
    rows = max(1, -(-entries // most))
    return max(1, -(-entries // rows))


def panel_rows(count: int, columns: int = COLUMNS) -> int:
    """Return how many rows ``panels`` takes."""
    return -(-count // min(count, columns))
