"""Figure of a delay sweep: policies that rewire against never switching, over the delay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from topomoe.durations import duration_text
from topomoe.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    label_below,
    look,
    new_figure,
    panel_rows,
    panels,
    save,
)
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError
from topomoe.topologies.reconfiguration import DELAYS

if TYPE_CHECKING:
    import pandas as pd

_POLICIES: dict[str, tuple[str, Any, str]] = {
    "rotor": (GREEN, "-", "rotor: fixed matchings in turn"),
    "birkhoff": (BLUE, "-", "Birkhoff: matchings for each collective's demand"),
    "layer-plan": (PURPLE, "-", "planned layer by layer: wirings and schedules"),
    "layer-wirings": (SKY, "-", "planned layer by layer: wirings alone"),
    "mixnet": (GREY, "-", "circuits from the step before (MixNet)"),
    "hysteresis": (ORANGE, (0, (3, 3)), "hysteresis over wirings, step by step"),
    "queue": (VERMILLION, "-", "hysteresis that sees the queue"),
}
_UNROUTED = "never-switch-default"
_UNROUTED_LABEL = "never-switch under default routing"
_BOUNDS: dict[str, tuple[Any, str]] = {
    "clairvoyant": ((0, (4, 2)), "clairvoyant: the optimum over these actions"),
    "port-bound": ((0, (1, 1.5)), "ports alone: no wiring or schedule is faster"),
}
_TITLES = {
    "prefill": "Prefill",
    "decode": "Decode, domains in phases",
    "training": "Training",
    "cluster": "Cluster between prefill and decode",
}
_COLUMNS = (
    "workload",
    "policy",
    "delay_s",
    "ratio_to_never_switch",
    "ratio_to_never_switch_low",
    "ratio_to_never_switch_high",
    "chosen",
)
_ACROSS = 2
_BEST = "best online policy, chosen in training (95 %)"
_ROOM = 1.5  # decades that the note on never-switch needs
_TOP = 1.3  # at least; slower than this is cut off: such policies are of no use at that delay


def draw_delays(folder: RunFolder) -> list[Path]:
    """Draw reconfiguration_delay as PNG and PDF; InputError where the results lack a column."""
    results = folder.results()
    missing = [column for column in _COLUMNS if column not in results]
    if missing:
        raise InputError(f"{folder.path}: results.parquet lacks column {missing[0]}")
    with look():
        return save(draw(results), folder.path / "figures", "reconfiguration_delay")


def draw(results: pd.DataFrame) -> Any:
    """Return a panel a workload."""
    workloads = list(dict.fromkeys(results["workload"]))
    figure = new_figure(1.2 + 3.0 * panel_rows(len(workloads), _ACROSS))
    axes = panels(figure, len(workloads), columns=_ACROSS)
    low = float(results["ratio_to_never_switch"].min())
    unrouted = results.loc[results["policy"] == _UNROUTED, "ratio_to_never_switch"]
    top = max(_TOP, 1.04 * float(unrouted.max()))
    for number, (axis, workload) in enumerate(zip(axes, workloads, strict=True)):
        _panel(axis, results[results["workload"] == workload], (low, top))
        axis.set_title(_TITLES.get(workload, workload), loc="left", fontweight="bold", pad=22)
        if number % _ACROSS == 0:
            axis.set_ylabel("held-out step time / never-switch")
    label_below(axes, "reconfiguration delay", _ACROSS)
    handles, labels = axes[0].get_legend_handles_labels()
    for axis in axes[1:]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    shown = dict(zip(labels, handles, strict=True))
    order = [_BEST, _UNROUTED_LABEL, *(label for *_, label in _BOUNDS.values())]
    order += [label for *_, label in _POLICIES.values() if label in shown]
    figure.legend([shown[label] for label in order], order, loc="outside lower center", ncols=3)
    return figure


def _panel(axis: Any, rows: pd.DataFrame, limits: tuple[float, float]) -> None:
    delays = np.sort(rows["delay_s"].unique())
    bottom, top = np.floor(10 * limits[0] - 0.2) / 10, limits[1]
    chosen = rows[rows["chosen"]].sort_values("delay_s")
    _technologies(axis)
    _never_wins(axis, chosen, delays)
    axis.axhline(1.0, color=GREY, linewidth=1.0)

    def line(policy: str, label: str, **look: Any) -> None:
        own = rows[rows["policy"] == policy].sort_values("delay_s")
        axis.plot(own["delay_s"], own["ratio_to_never_switch"], label=label, **look)

    line(_UNROUTED, _UNROUTED_LABEL, color=BLACK, linewidth=0.8)
    least = rows.groupby("policy")["ratio_to_never_switch"].min()
    for policy, (colour, dashes, label) in _POLICIES.items():
        if policy in least and least[policy] <= top:
            line(policy, label, color=colour, linestyle=dashes, linewidth=1.4)
    for policy, (style, label) in _BOUNDS.items():
        line(policy, label, color=BLACK, linestyle=style, linewidth=1.1)
    axis.fill_between(
        chosen["delay_s"],
        chosen["ratio_to_never_switch_low"],
        chosen["ratio_to_never_switch_high"],
        color=BLACK,
        alpha=0.18,
        linewidth=0,
    )
    axis.plot(
        chosen["delay_s"],
        chosen["ratio_to_never_switch"],
        color=BLACK,
        linewidth=2.6,
        alpha=0.85,
        label=_BEST,
    )
    axis.set_xscale("log")
    axis.set_xlim(delays[0] / 1.5, delays[-1] * 1.5)
    axis.set_ylim(bottom, top)
    axis.xaxis.set_major_locator(FixedLocator([10.0**e for e in range(-8, 1)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(_time))
    axis.tick_params(labelbottom=True)


def _technologies(axis: Any) -> None:
    """Mark the delay of each switching technology; names stand above the panel."""
    for delay in DELAYS.values():
        axis.axvline(delay.total, color="#CCCCCC", linewidth=0.8, zorder=0.5)
    beside = {
        "siph": "right",
        "rotor": "left",
        "mems": "right",
        "mems-control": "left",
        "nic-bring-up": "right",
    }
    for delay in DELAYS.values():
        name = {"nic-bring-up": "NIC\nbring-up", "mems-control": "MEMS +\ncontrol"}.get(
            delay.name, {"plzt": "PLZT", "siph": "SiPh", "mems": "MEMS"}.get(delay.name, delay.name)
        )
        axis.annotate(
            name,
            (delay.total, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha=beside.get(delay.name, "center"),
            va="bottom",
            fontsize=7,
            color="#555555",
            linespacing=0.9,
        )


def _never_wins(axis: Any, chosen: pd.DataFrame, delays: Any) -> None:
    """Shade the delays from which on never-switch is chosen."""
    others = chosen.loc[chosen["policy"] != "never-switch", "delay_s"]
    after = delays[delays > (others.max() if len(others) else 0.0)]
    if len(after) == 0:
        return
    axis.axvspan(after[0], delays[-1] * 1.5, color="#F2F2F2", linewidth=0, zorder=0.1)
    wide = np.log10(delays[-1] / after[0]) > _ROOM
    axis.annotate(
        f"never-switch wins\nfrom {_time(after[0])}",
        (after[0], 0.42 if wide else 0.3),
        xycoords=("data", "axes fraction"),
        xytext=(6 if wide else -6, 0),
        textcoords="offset points",
        ha="left" if wide else "right",
        va="center",
        fontweight="bold",
        color="#555555",
    )


def _time(seconds: float, _position: int | None = None) -> str:
    return duration_text(seconds).replace("us", "µs")
