"""Figures of the router bench: every point and line is a row's number, from made-up results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from topomoe.plots import (
    router_adapters,
    router_assignments,
    router_balance,
    router_capacity,
    router_curves,
    router_figures,
    router_layers,
    router_losses,
    router_pareto,
    router_rank,
)
from topomoe.plots.router_figures import FIGURES, draw_routers
from topomoe.plots.router_style import beside_colours, router_styles
from topomoe.plots.style import look, save
from topomoe.router_results import RouterResults
from topomoe.topologies.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def results(made: SimpleNamespace) -> RouterResults:
    return RouterResults(Path("run"), made.results, made.timing)


def drawn(module: object, results: RouterResults) -> Figure:
    with look():
        figure = module.draw(results)  # type: ignore[attr-defined]
    assert isinstance(figure, Figure)
    return figure


def points(axis: object, marker: str | None = None) -> set[tuple[float, float]]:
    """Return the single points that are drawn as lines of one point."""
    return {
        (round(float(line.get_xdata()[0]), 9), round(float(line.get_ydata()[0]), 9))
        for line in axis.lines  # type: ignore[attr-defined]
        if len(line.get_xdata()) == 1 and marker in (None, line.get_marker())
    }


def test_a_run_of_every_part_has_every_figure(
    made: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topomoe.plots.style.DPI", 40)  # for speed
    monkeypatch.setattr(router_figures, "save", partial(save, kinds=("png",)))
    paths = draw_routers(made.folder(tmp_path / "run"))
    assert [path.name for path in paths] == [f"{module.NAME}.png" for module in FIGURES]
    assert all(path.read_bytes().startswith(PNG) for path in paths)


def test_the_same_results_give_the_same_bytes(results: RouterResults, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        with look():
            (path,) = save(drawn(router_pareto, results), tmp_path, name, ("png",))
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_only_figures_of_parts_that_were_run_are_drawn(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    frame = made.results
    paths = draw_routers(made.folder(tmp_path, frame[frame["record"] == "adapter"]))
    assert [path.name for path in paths] == ["router_adapters.png", "router_adapters.pdf"]


def test_a_routers_colour_depends_on_no_other_router(made: SimpleNamespace) -> None:
    every = router_styles(made.routers)
    assert router_styles(["hash", "softk"]) == {name: every[name] for name in ("softk", "hash")}
    assert len(set(every.values())) == len(made.routers)
    own = router_styles([*made.routers, "mine"])
    assert own["mine"] not in every.values()
    colours = {colour for colour, _ in every.values()}
    assert not colours & set(beside_colours(["one", "other"]).values())


def test_pareto_points_are_means_over_seeds_one_a_router_and_capacity(
    made: SimpleNamespace,
    results: RouterResults,
) -> None:
    figure = drawn(router_pareto, results)
    assert [axis.get_title("left") for axis in figure.axes] == list(made.topologies)
    frame = results.frame
    for axis, topology in zip(figure.axes, made.topologies, strict=True):
        steps = frame[(frame["record"] == "step") & (frame["topology"] == topology)]
        quality = frame[(frame["record"] == "quality") & (frame["part"] == "pareto")]
        expected = set()
        for router in made.routers:
            for factor in made.capacities:
                own = quality[
                    (quality["router"] == router) & (quality["capacity_factor"] == factor)
                ]
                at = steps[(steps["router"] == router) & (steps["capacity_factor"] == factor)]
                ms = round(1e3 * float(at["moe_p99_s"].mean()), 9)
                expected.add((ms, round(float(own["perplexity"].mean()), 9)))
                if router == "expert-choice":
                    expected.add((ms, round(float(own["causal_perplexity"].mean()), 9)))
        assert points(axis) == expected
        seeds = sum(
            len(collection.get_offsets())
            for collection in axis.collections
            if collection.get_offsets().shape[0] == len(made.seeds)
        )
        assert seeds == len(expected) * len(made.seeds)


def test_a_perplexity_that_sees_later_tokens_is_hollow_and_on_no_front(
    made: SimpleNamespace,
    results: RouterResults,
) -> None:
    axis = drawn(router_pareto, results).axes[0]
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == len(made.capacities)
    assert max(float(line.get_ydata()[0]) for line in hollow) < 25.5
    rings = next(line for line in axis.lines if line.get_markersize() == 14)
    x, y = np.asarray(rings.get_xdata()), np.asarray(rings.get_ydata())
    assert y.min() > 25.5  # better than any causal perplexity, and yet not on the front
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) < 0).all()


def test_without_a_causal_perplexity_expert_choice_is_hollow_alone(
    made: SimpleNamespace,
    results: RouterResults,
) -> None:
    frame = results.frame.drop(columns="causal_perplexity")
    axis = drawn(router_pareto, RouterResults(results.path, frame)).axes[0]
    assert len(points(axis)) == len(made.routers) * len(made.capacities)
    assert len([line for line in axis.lines if line.get_markerfacecolor() == "white"]) == 4


def test_every_placement_has_a_panel_of_its_own(
    made: SimpleNamespace, results: RouterResults
) -> None:
    frame = results.frame
    other = frame[frame["record"] == "step"].assign(placement="locality")
    figure = drawn(
        router_pareto, RouterResults(results.path, pd.concat([frame, other], ignore_index=True))
    )
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == [f"{t}, {p}" for p in ("eplb", "locality") for t in made.topologies]


def test_capacity_lines_are_the_rows_and_speed_needs_timing(
    made: SimpleNamespace, results: RouterResults
) -> None:
    figure = drawn(router_capacity, results)
    assert len(figure.axes) == 9
    rows = results.frame
    own = rows[(rows["part"] == "capacity") & (rows["experts"] == 128) & (rows["top_k"] == 2)]
    drops = 100 * own.sort_values("capacity_factor")["assignment_drop_rate"].to_numpy()
    assert any(np.allclose(line.get_ydata(), drops) for line in figure.axes[1].lines)
    timing = made.timing
    at = (timing["part"] == "capacity") & (timing["experts"] == 256) & (timing["top_k"] == 4)
    speed = 1e-3 * timing.loc[at, "tokens_per_second"].to_numpy()
    assert any(np.allclose(line.get_ydata(), speed) for line in figure.axes[8].lines)
    untimed = RouterResults(results.path, results.frame)
    assert len(drawn(router_capacity, untimed).axes) == 6


def test_ranks_are_those_of_the_means_and_bars_those_of_the_seeds(
    made: SimpleNamespace,
    results: RouterResults,
) -> None:
    left, right = drawn(router_rank, results).axes
    assert len(left.lines) == len(right.lines) == len(made.routers)
    ranks = np.array([line.get_ydata() for line in right.lines])
    assert (np.sort(ranks, axis=0) == np.arange(1, len(made.routers) + 1)[:, None]).all()
    means = np.array([line.get_ydata() for line in left.lines])
    np.testing.assert_array_equal(ranks, means.argsort(axis=0).argsort(axis=0) + 1)
    bars = np.array(
        [
            [segment[:, 1] for segment in collection.get_segments()]
            for collection in right.collections
        ]
    )
    assert (bars[..., 0] <= bars[..., 1]).all()
    assert (bars[..., 0] < bars[..., 1]).any()


def test_curves_are_means_over_seeds_where_perplexity_was_measured(
    made: SimpleNamespace,
    results: RouterResults,
) -> None:
    figure = drawn(router_curves, results)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == [f"capacity factor {factor:g}" for factor in made.capacities]
    curve = results.frame[results.frame["record"] == "curve"]
    own = curve[(curve["router"] == "hash") & (curve["capacity_factor"] == 1.25)]
    expected = own.groupby("tokens")["perplexity"].mean().dropna()
    line = next(line for line in figure.axes[2].lines if line.get_label() == "hash")
    np.testing.assert_allclose(line.get_ydata(), expected)
    np.testing.assert_allclose(line.get_xdata(), 1e-6 * expected.index)
    assert len(expected) == 6


def test_balance_has_a_point_a_router_seed_and_capacity(
    made: SimpleNamespace, results: RouterResults
) -> None:
    (axis,) = drawn(router_balance, results).axes
    offsets = np.concatenate([np.asarray(found.get_offsets()) for found in axis.collections])
    rows = results.frame[
        (results.frame["record"] == "quality") & (results.frame["part"] == "pareto")
    ]
    assert len(offsets) == len(rows) == len(made.routers) * len(made.seeds) * len(made.capacities)
    expected = rows[["gate_entropy", "load_cv"]].to_numpy()
    np.testing.assert_allclose(np.sort(offsets, axis=0), np.sort(expected, axis=0))


def test_layers_of_trained_routers_stand_beside_real_models(
    made: SimpleNamespace, results: RouterResults
) -> None:
    trained, real, published = drawn(router_layers, results).axes
    lines = [line for line in trained.lines if line.get_linestyle() == "-"]
    assert [len(line.get_xdata()) for line in lines] == [made.layers] * len(made.routers)
    rows = results.frame[(results.frame["record"] == "layer") & (results.frame["domain"] == "all")]
    expected = rows[rows["router"] == "softk"].groupby("layer")["gini"].mean()
    np.testing.assert_allclose(lines[1].get_ydata(), expected)
    even = [line for line in trained.lines if line.get_linestyle() == ":"]
    assert {float(value) for line in even for value in line.get_ydata()} == {0.02}
    assert [len(line.get_xdata()) for line in real.lines if line.get_linestyle() == "-"] == [26, 24]
    assert "Mixtral-8x7B" in [text.get_text() for text in published.get_xticklabels()]


def test_layers_need_no_real_model(results: RouterResults) -> None:
    frame = results.frame
    alone = frame[(frame["record"] != "layer") | (frame["source"] == "trained")]
    assert len(drawn(router_layers, RouterResults(results.path, alone)).axes) == 2


def test_arrows_of_losses_reach_from_before_to_after(
    made: SimpleNamespace, results: RouterResults
) -> None:
    (axis,) = drawn(router_losses, results).axes
    rows = results.frame[results.frame["record"] == "loss"]
    means = rows.groupby(["balance_loss", "weight"])[
        ["gini_before", "perplexity_before", "gini_after", "perplexity_after"]
    ].mean()
    arrows = {
        tuple(np.round([*arrow.xyann, *arrow.xy], 9))
        for arrow in axis.texts
        if arrow.arrow_patch is not None  # type: ignore[attr-defined]
    }
    assert arrows == {tuple(np.round(row, 9)) for row in means.to_numpy()}
    assert len(arrows) == 2 * (len(made.losses) - 1) + 1


def test_assignments_save_what_the_original_takes_more(
    made: SimpleNamespace, results: RouterResults
) -> None:
    figure = drawn(router_assignments, results)
    frame = results.frame
    for axis, topology in zip(figure.axes, made.topologies, strict=True):
        found = points(axis)
        assert len(found) == 2 * len(made.assignments)
        steps = frame[(frame["record"] == "assignment_step") & (frame["topology"] == topology)]
        steps = steps[steps["router"] == "softk"].pivot(
            index="seed", columns="assignment", values="moe_p99_s"
        )
        saved = 100 * (1 - steps["balanced"] / steps["original"]).mean()
        rows = frame[(frame["record"] == "assignment") & (frame["router"] == "softk")]
        perplexity = rows.loc[rows["assignment"] == "balanced", "perplexity"].mean()
        assert (round(saved, 9), round(perplexity, 9)) in found


def test_an_assignment_change_without_its_original_is_refused(results: RouterResults) -> None:
    frame = results.frame
    gone = (frame["assignment"] == "original") & (frame["seed"] == 1)
    with pytest.raises(InputError, match="lacks the original assignment of softk, seed 1"):
        router_assignments.draw(RouterResults(results.path, frame[~gone]))


def test_adapters_are_means_by_parameters_trained(results: RouterResults) -> None:
    (axis,) = drawn(router_adapters, results).axes
    rows = results.frame[results.frame["record"] == "adapter"]
    shared = rows[rows["variant"] == "shared"].groupby("trained_parameters")
    line = next(
        container.lines[0] for container in axis.containers if container.get_label() == "shared"
    )
    np.testing.assert_allclose(line.get_xdata(), list(shared.groups))
    np.testing.assert_allclose(line.get_ydata().astype(float), shared["perplexity_after"].mean())


@pytest.mark.parametrize(
    ("module", "column"),
    [
        (router_pareto, "moe_p99_s"),
        (router_capacity, "assignment_drop_rate"),
        (router_rank, "perplexity"),
        (router_curves, "tokens"),
        (router_balance, "gate_entropy"),
        (router_layers, "uniform_gini"),
        (router_losses, "gini_after"),
        (router_assignments, "assignment"),
        (router_adapters, "trained_parameters"),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_file(
    results: RouterResults, module: object, column: str
) -> None:
    lacking = RouterResults(results.path, results.frame.drop(columns=column), results.timing)
    with pytest.raises(InputError, match=rf"run: results\.parquet lacks column {column}"):
        module.draw(lacking)  # type: ignore[attr-defined]


def test_a_column_that_timing_lacks_is_named_with_its_file(
    made: SimpleNamespace, results: RouterResults
) -> None:
    lacking = RouterResults(results.path, results.frame, made.timing.drop(columns="wall_seconds"))
    with pytest.raises(InputError, match=r"run: timing\.csv lacks column wall_seconds"):
        router_capacity.draw(lacking)
