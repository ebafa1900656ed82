"""Figures of the decision study: lines and cells are the table's numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from topomoe.plots import decision_delay, decision_map
from topomoe.plots.style import look
from topomoe.topologies.errors import InputError

DELAYS = (0.0, 1e-3, 1.0)
PHASES = (5.0, 50.0)


def study() -> pd.DataFrame:
    """Return a study in which switching pays at short delays and long phases."""
    rows = []
    for redundancy in (1.0, 1.5):
        for phase in PHASES:
            for place, delay in enumerate(DELAYS):
                gain = 0.1 * redundancy - 0.08 * place * (5.0 / phase)
                ratios = {
                    "never-switch": 1.0,
                    "hysteresis": 1.0 - max(gain, 0.0),
                    "clairvoyant": 0.99 - max(gain, 0.0),
                }
                rows += [
                    {
                        "delay_s": delay,
                        "phase_epochs": phase,
                        "redundancy": redundancy,
                        "agent": agent,
                        "ratio": ratio,
                        "low": ratio - 0.01,
                        "high": ratio + 0.01,
                        "chosen": agent == ("hysteresis" if gain > 0 else "never-switch"),
                    }
                    for agent, ratio in ratios.items()
                ]
    return pd.DataFrame(rows)


def test_lines_over_the_delay_are_the_ratios_and_no_delay_lies_left_of_all() -> None:
    frame = study()
    with look():
        figure = decision_delay.draw(frame)
    assert len(figure.axes) == 4
    first = figure.axes[0]
    assert first.get_title("left") == "phases of 5 epochs, redundancy 1"
    own = frame[(frame["phase_epochs"] == 5) & (frame["redundancy"] == 1)]
    for line in first.lines[1:]:
        expected = own.loc[own["agent"] == line.get_label(), "ratio"]
        np.testing.assert_allclose(line.get_ydata(), expected)
        np.testing.assert_allclose(line.get_xdata(), [1e-4, 1e-3, 1.0])
    figure.draw_without_rendering()
    texts = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert texts == ["0", "1 ms", "1 s"]


def test_a_study_of_one_phase_length_and_redundancy_is_one_panel() -> None:
    frame = study()
    frame = frame[(frame["phase_epochs"] == 5) & (frame["redundancy"] == 1)]
    plain = frame.drop(columns=["phase_epochs", "redundancy", "low", "high"])
    with look():
        figure = decision_delay.draw(plain)
    assert [axis.get_title("left") for axis in figure.axes] == [""]


def test_slots_stand_in_for_redundancy() -> None:
    frame = study().rename(columns={"redundancy": "slots"})
    with look():
        figure = decision_delay.draw(frame)
    assert figure.axes[0].get_title("left") == "phases of 5 epochs, 1 slots"


def cells(axis: object) -> dict[tuple[float, float], bool]:
    """Return by cell whether it is hatched."""
    patches = [p for p in axis.patches if isinstance(p, Rectangle)]  # type: ignore[attr-defined]
    return {(p.get_x() + 0.5, p.get_y() + 0.5): bool(p.get_hatch()) for p in patches}


def test_never_switchs_region_is_hatched() -> None:
    frame = study()
    with look():
        figure = decision_map.draw(frame)
    assert [axis.get_title("left") for axis in figure.axes] == ["redundancy 1", "redundancy 1.5"]
    for axis, redundancy in zip(figure.axes, (1.0, 1.5), strict=True):
        found = cells(axis)
        assert len(found) == len(DELAYS) * len(PHASES)
        for (x, y), hatched in found.items():
            gain = 0.1 * redundancy - 0.08 * x * (5.0 / PHASES[int(y)])
            assert hatched == (gain <= 0.01), (redundancy, x, y)
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert "0.900\n(0.890)" in texts


def test_a_gain_whose_interval_reaches_1_is_none() -> None:
    frame = study()
    frame["high"] = np.where(frame["agent"] == "hysteresis", 1.0, frame["high"])
    with look():
        figure = decision_map.draw(frame)
    assert all(all(cells(axis).values()) for axis in figure.axes)


def test_the_map_of_one_agent_needs_nobody_chosen() -> None:
    with look():
        figure = decision_map.draw(study().drop(columns="chosen"), agent="clairvoyant")
    assert not cells(figure.axes[0])[0.0, 0.0]


@pytest.mark.parametrize("column", ["delay_s", "agent", "ratio", "phase_epochs", "chosen"])
def test_a_column_that_is_missing_is_named(column: str) -> None:
    with pytest.raises(InputError, match=f"lacks column {column}"):
        decision_map.draw(study().drop(columns=column))


def test_empty_tables_and_two_chosen_agents_are_refused() -> None:
    frame = study()
    with pytest.raises(InputError, match="no rows for cost_by_delay"):
        decision_delay.draw(frame[:0])
    with pytest.raises(InputError, match="no rows for where_switching_pays"):
        decision_map.draw(frame, agent="nobody")
    with pytest.raises(InputError, match="two rows for delay_s 0, phase_epochs 5"):
        decision_map.draw(frame.assign(chosen=True))
