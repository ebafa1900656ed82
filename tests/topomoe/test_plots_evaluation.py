"""Figures of evaluations show the table's numbers, whatever it holds or lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from topomoe.plots import (
    evaluation,
    evaluation_curves,
    evaluation_policies,
    evaluation_switches,
    evaluation_timeline,
)
from topomoe.plots.evaluation_rows import KINDS, kind_of
from topomoe.plots.style import look, topology_styles
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

AGENTS = ("never-switch", "greedy", "clairvoyant", "my-ppo")
RATIOS = (1.0, 1.02, 0.83, 0.86)


def summary(scenario: str = "default", agents: Sequence[str] = AGENTS) -> pd.DataFrame:
    ratio = np.array(RATIOS)[: len(agents)]
    return pd.DataFrame(
        {
            "record": "summary",
            "scenario": scenario,
            "agent": agents,
            "ratio_to_never_switch": ratio,
            "ratio_to_never_switch_low": ratio - 0.01,
            "ratio_to_never_switch_high": ratio + 0.02,
            "regret_closed": np.nan,
            "topology_switches_per_100_epochs": np.arange(len(agents), dtype=float),
            "placement_switches_per_100_epochs": 0.5,
            "switching": "reachable",
        }
    )


def timeline(
    scenario: str = "default",
    agents: Sequence[str] = AGENTS,
    epochs: int = 6,
    placements: Sequence[str] = ("eplb", "domain 1"),
) -> pd.DataFrame:
    tables = []
    for number, agent in enumerate(agents):
        epoch = np.arange(epochs)
        changes = agent != "never-switch"
        tables.append(
            pd.DataFrame(
                {
                    "record": "timeline",
                    "scenario": scenario,
                    "agent": agent,
                    "seed": 0,
                    "episode": 0,
                    "epoch": epoch,
                    "topology": np.where(changes & (epoch >= 3), "torus", "mesh"),
                    "placement": np.array(placements)[(changes * epoch) % len(placements)],
                    "cost": RATIOS[number] * (1.0 + epoch),
                    "switching": "reachable",
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def curve(scenario: str = "default", seeds: int = 3) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {
                "record": "curve",
                "scenario": scenario,
                "agent": "my-ppo",
                "seed": seed,
                "timesteps": [1000, 2000, 4000],
                "cost_relative_to_never_switch": [1.2 + 0.1 * seed, 1.0, 0.9],
                "switching": "reachable",
            }
        )
        for seed in range(seeds)
    ]
    return pd.concat(tables, ignore_index=True)


def traffic(scenario: str = "default") -> pd.DataFrame:
    """Return a feature that follows the phases, and one that never changes and says nothing."""
    return pd.DataFrame(
        {
            "record": "traffic",
            "scenario": scenario,
            "seed": 0,
            "episode": 0,
            "epoch": np.arange(6).repeat(2),
            "feature": ["domain 0", "tokens"] * 6,
            "value": [0.0, 7.0, 0.0, 7.0, 2.0, 7.0, 4.0, 7.0, 4.0, 7.0, 0.0, 7.0],
            "switching": "reachable",
        }
    )


def validation(seeds: int = 2) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "record": "validation",
            "agent": "fitted-q",
            "seed": np.arange(seeds).repeat(3),
            "episode": np.tile(np.arange(3), seeds),
            "ratio_to_never_switch": np.linspace(0.8, 0.9, 3 * seeds),
            "ratio_to_clairvoyant": 1.25,
            "switching": "reachable",
        }
    )


def draw(rows: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Return the figures of a run with those results by name, laid out but not written."""
    drawn: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        figure.draw_without_rendering()
        drawn[name] = figure
        return [folder / name]

    monkeypatch.setattr(evaluation, "save", keep)
    monkeypatch.setattr(RunFolder, "results", lambda self: rows)
    evaluation.draw_evaluation(RunFolder(folder))
    return drawn


def names_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def test_a_run_gets_png_and_pdf_of_each_figure_and_the_same_bytes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.concat([timeline(), curve()], ignore_index=True)
    monkeypatch.setattr(RunFolder, "results", lambda self: rows)
    paths = evaluation.draw_evaluation(RunFolder(tmp_path))
    names = ("timeline", "learning_curve")
    assert [path.name for path in paths] == [f"{n}.{e}" for n in names for e in ("png", "pdf")]
    before = [path.read_bytes() for path in paths]
    assert [p.read_bytes() for p in evaluation.draw_evaluation(RunFolder(tmp_path))] == before


def test_every_scenario_has_a_panel_and_a_timeline_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenarios = ("pools", "hard", "stationary")
    rows = pd.concat(
        [table(name) for name in scenarios for table in (summary, timeline, curve)],
        ignore_index=True,
    )
    drawn = draw(rows, tmp_path, monkeypatch)
    assert set(drawn) == {
        "policies",
        "switches",
        "learning_curve",
        *(f"timeline_{name}" for name in scenarios),
    }
    for name in ("policies", "switches", "learning_curve"):
        assert [axis.get_title("left") for axis in drawn[name].axes] == list(scenarios)


def test_policies_are_sorted_and_lie_where_the_table_says() -> None:
    with look():
        figure = evaluation_policies.draw(summary())
    (axis,) = figure.axes
    assert names_of(axis) == ["clairvoyant", "my-ppo", "never-switch", "greedy"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in dots] == sorted(RATIOS)
    colours = [str(line.get_color()) for line in dots]
    assert colours == [KINDS[kind] for kind in ("clairvoyant", "learned", "fixed", "rule")]
    bars = [c for c in axis.collections if isinstance(c, LineCollection)]
    for bar, ratio in zip(bars, sorted(RATIOS), strict=True):
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], [ratio - 0.01, ratio + 0.02])
    assert "n/a" in {text.get_text() for text in axis.texts}  # no regret to close


def test_a_hopeless_agent_does_not_squeeze_the_others() -> None:
    rows = pd.concat(
        [summary(), summary(agents=("random",)).assign(ratio_to_never_switch=400.0)]
    ).reset_index(drop=True)
    rows.loc[4, ["ratio_to_never_switch_low", "ratio_to_never_switch_high"]] = (390.0, 410.0)
    with look():
        (axis,) = evaluation_policies.draw(rows).axes
    assert axis.get_xlim()[1] < 1.5
    assert [line.get_marker() for line in axis.lines].count(">") == 1
    assert "400.000" in {text.get_text() for text in axis.texts}


@pytest.mark.parametrize("agents", [("never-switch",), AGENTS[:2]])
def test_one_agent_or_no_interval_is_drawn(agents: Sequence[str]) -> None:
    rows = summary(agents=agents)
    rows[["ratio_to_never_switch_low", "ratio_to_never_switch_high"]] = np.nan
    with look():
        for figure in (evaluation_policies.draw(rows), evaluation_switches.draw(rows)):
            figure.draw_without_rendering()
            assert len(names_of(figure.axes[0])) == len(agents)


def test_an_agent_without_a_number_is_named_last_and_marked() -> None:
    rows = summary()
    rows.loc[2, list(evaluation_policies.COLUMNS)] = np.nan
    with look():
        (axis,) = evaluation_policies.draw(rows).axes
    assert names_of(axis)[-1] == "clairvoyant"
    assert sum(line.get_marker() == "o" for line in axis.lines) == 3


def test_bars_of_the_switches_are_as_long_as_the_rates() -> None:
    with look():
        (axis,) = evaluation_switches.draw(summary()).axes
    widths = [p.get_width() for p in axis.patches if isinstance(p, Rectangle)]
    assert widths == [2.0, 3.0, 0.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert names_of(axis) == ["clairvoyant", "my-ppo", "never-switch", "greedy"]


def test_bars_of_who_switches_at_random_are_cut_off() -> None:
    rows = pd.concat(
        [summary(), summary(agents=("random",)).assign(ratio_to_never_switch=1.5)]
    ).reset_index(drop=True)
    rows.loc[4, "topology_switches_per_100_epochs"] = 90.0
    with look():
        (axis,) = evaluation_switches.draw(rows).axes
    assert axis.get_xlim() == (0, pytest.approx(3.3))
    assert [len(line.get_xdata()) for line in axis.lines] == [1]
    assert "90.0" in {text.get_text() for text in axis.texts}


def strips(axis: Axes, line: int) -> list[tuple[float, float, float, str]]:
    """Return top, begin, end and colour of what is drawn on a line of the timeline."""
    found = []
    for strip in axis.collections:
        assert isinstance(strip, PolyCollection)
        x, y = strip.get_paths()[0].vertices.T
        if round(float(y.mean())) == line:
            colour = to_hex(strip.get_facecolor()[0])
            found.append((float(y.min()), float(x.min()), float(x.max()), colour))
    return sorted(found)


def test_a_timeline_shows_each_run_of_a_topology_and_of_a_placement() -> None:
    with look():
        figure = evaluation_timeline.draw(timeline())
    axis = figure.axes[-1]
    assert names_of(axis) == ["clairvoyant", "my-ppo", "never-switch", "greedy"]
    colour = {n: s["color"].lower() for n, s in topology_styles(("mesh", "torus")).items()}
    clairvoyant = strips(axis, 0)
    assert [strip[1:] for strip in clairvoyant[:2]] == [
        (0.0, 3.0, colour["mesh"]),
        (3.0, 6.0, colour["torus"]),
    ]
    assert [strip[1:3] for strip in clairvoyant[2:]] == [(e, e + 1.0) for e in range(6)]
    assert len(strips(axis, 2)) == 2  # never-switch: one topology, one placement
    cost = {line.get_label(): line.get_ydata() for line in figure.axes[-2].lines}
    np.testing.assert_allclose(cost["never-switch"][:6], np.arange(1, 7) / 3.5)
    np.testing.assert_allclose(cost["clairvoyant"][:6], 0.83 * np.arange(1, 7) / 3.5)


def test_what_is_not_chosen_among_takes_no_strip() -> None:
    with look():
        topologies = evaluation_timeline.draw(timeline(placements=("",)))
        placements = evaluation_timeline.draw(timeline().assign(topology="mesh"))
    assert len(strips(topologies.axes[-1], 0)) == 2
    assert len(strips(placements.axes[-1], 0)) == 6
    for figure, entries in ((topologies, 2), (placements, 2)):
        assert len(figure.legends[0].get_texts()) == entries


def test_queue_features_have_a_strip_where_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = traffic().assign(seed=1, value=1.0)
    unmatched = traffic("hard").assign(seed=7)
    rows = pd.concat([timeline(), other, traffic(), timeline("hard"), unmatched], ignore_index=True)
    drawn = draw(rows, tmp_path, monkeypatch)
    figure, plain = drawn["timeline_default"], drawn["timeline_hard"]
    assert (len(figure.axes), len(plain.axes)) == (3, 2)
    assert names_of(figure.axes[0]) == ["domain 0"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, [[0.0, 0.0, 0.5, 1.0, 1.0, 0.0]])


def test_a_training_without_a_curve_shows_its_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draw(validation(), tmp_path, monkeypatch)
    assert set(drawn) == {"validation"}
    (axis,) = drawn["validation"].axes
    assert names_of(axis) == ["fitted-q, seed 0", "fitted-q, seed 1"]
    means = [float(m.get_xdata()[0]) for m in axis.lines if m.get_markersize() == 7]
    np.testing.assert_allclose(means, [0.82, 0.88])
    bounds = [c.get_segments()[0][0, 0] for c in axis.collections if isinstance(c, LineCollection)]
    np.testing.assert_allclose(bounds, np.array([0.82, 0.88]) / 1.25)


def test_an_episode_of_one_epoch_and_one_agent_is_drawn() -> None:
    with look():
        figure = evaluation_timeline.draw(timeline(agents=("greedy",), epochs=1))
        figure.draw_without_rendering()
    assert len(strips(figure.axes[-1], 0)) == 1


def test_only_the_first_episode_of_the_first_seed_is_shown() -> None:
    rows = pd.concat(
        [timeline(), timeline().assign(seed=1), timeline().assign(episode=1)], ignore_index=True
    )
    with look():
        figure = evaluation_timeline.draw(rows)
    assert figure.axes[-1].get_xlim() == (0, 6)


def test_the_bold_learning_curve_is_the_mean_of_the_seeds() -> None:
    with look():
        (axis,) = evaluation_curves.draw(curve()).axes
    bold = next(line for line in axis.lines if line.get_label() == "my-ppo, 3 seeds")
    np.testing.assert_allclose(bold.get_ydata(), [1.3, 1.0, 0.9])
    np.testing.assert_allclose(bold.get_xdata(), [1, 2, 4])
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.9, pytest.approx(1.4))


def test_seeds_logged_at_other_times_are_interpolated_inside_alone() -> None:
    rows = curve(seeds=2)
    rows.loc[rows["seed"] == 1, "timesteps"] = [1000, 3000, 4000]
    with look():
        (axis,) = evaluation_curves.draw(rows).axes
    bold = next(line for line in axis.lines if line.get_label() == "my-ppo, 2 seeds")
    np.testing.assert_allclose(bold.get_ydata(), [1.25, (1.0 + 1.15) / 2, 0.975, 0.9])


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (summary, "record"),
        (summary, "agent"),
        (summary, "ratio_to_never_switch_low"),
        (summary, "placement_switches_per_100_epochs"),
        (timeline, "topology"),
        (timeline, "cost"),
        (curve, "timesteps"),
        (traffic, "feature"),
        (validation, "ratio_to_clairvoyant"),
    ],
)
def test_a_missing_column_is_named_in_one_line(
    table: object, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: pd.DataFrame = table().drop(columns=column)  # type: ignore[operator]
    with pytest.raises(InputError, match=f"lacks column {column}") as caught:
        draw(rows, tmp_path, monkeypatch)
    assert "\n" not in str(caught.value)


def test_results_without_a_record_to_draw_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="holds no record to draw"):
        draw(summary().assign(record="episode"), tmp_path, monkeypatch)


@pytest.mark.parametrize("switching", ["hypothetical", "reachable"])
def test_the_note_on_an_evaluation_lies_on_nothing(
    switching: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pd.concat([summary(), timeline(), curve()], ignore_index=True)
    drawn = draw(rows.assign(switching=switching), tmp_path, monkeypatch)
    assert set(drawn) == {"policies", "switches", "timeline", "learning_curve"}
    for figure in drawn.values():
        notes = [text for text in figure.findobj(Text) if "hypothetical" in text.get_text()]
        assert len(notes) == (switching == "hypothetical")
        others = [*figure.legends, *figure.axes]
        for note in notes:
            box = note.get_window_extent()
            assert not any(box.overlaps(other.get_tightbbox()) for other in others)


def test_all_text_of_twenty_agents_lies_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = tuple(f"a long name of agent {number}" for number in range(20))
    tables = []
    for scenario in ("default", "pools", "hard"):
        rows = summary(scenario).loc[np.zeros(20, dtype=int)].reset_index(drop=True)
        tables.append(rows.assign(agent=agents, regret_closed=-3.0))
    drawn = draw(pd.concat(tables, ignore_index=True), tmp_path, monkeypatch)
    for figure in drawn.values():
        page = figure.bbox
        for axis in figure.axes:
            for text in (*axis.texts, *axis.get_yticklabels()):
                box = text.get_window_extent()
                assert page.x0 <= box.x0, text.get_text()
                assert box.x1 <= page.x1, text.get_text()
            heights = sorted(t.get_window_extent().y0 for t in axis.get_yticklabels())
            size = axis.get_yticklabels()[0].get_window_extent().height
            assert np.diff(heights).min() > 0.9 * size


def test_what_is_not_built_in_was_learned() -> None:
    assert [kind_of(agent) for agent in ("ppo", "runs-7", "rule", "static-best")] == [
        "learned",
        "learned",
        "rule",
        "fixed",
    ]


def test_every_built_in_agent_is_known_to_the_figures() -> None:
    from topomoe.agents.baselines import BASELINES

    assert [agent for agent in BASELINES if kind_of(agent) == "learned"] == []
