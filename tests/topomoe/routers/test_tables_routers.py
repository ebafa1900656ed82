"""Tables of the router bench: numbers are those of the results, from made-up ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from topomoe.router_front import front, pareto_points
from topomoe.router_results import (
    PERPLEXITY,
    RouterResults,
    comparable,
    half_width,
    reference_capacity,
    seed_ranks,
)
from topomoe.run_folder import RunFolder
from topomoe.tables_routers import pareto_tables, printed_tables, router_tables, write_router_tables
from topomoe.tables_routers_balance import assignment_tables, layer_tables, loss_tables
from topomoe.tables_routers_ranking import ranking_tables, stability_tables
from topomoe.tables_routers_sweeps import (
    adapter_tables,
    capacity_tables,
    size_tables,
    throughput_tables,
    tuning_tables,
)
from topomoe.topologies.errors import InputError

TABLES = (
    *("pareto", "ranking", "ranking_pairs", "layers", "layer_balance", "losses", "assignments"),
    *("capacity", "size", "size_stability", "adapters", "throughput"),
)


@pytest.fixture(scope="module")
def results(made: SimpleNamespace) -> RouterResults:
    return RouterResults(Path("run"), made.results, made.timing)


@pytest.fixture(scope="module")
def run(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder: RunFolder = made.folder(tmp_path_factory.mktemp("routers") / "run")
    return folder


def rows_of(tables: object, place: int = 0) -> list[dict[str, str]]:
    """Return the rows of a table, text by column."""
    table = tables[place]  # type: ignore[index]
    assert len(set(table.columns)) == len(table.columns)
    return [
        dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows
    ]


def assert_mean(text: str, values: object, scale: float = 1.0) -> None:
    """Fail unless ``text`` is the mean of values ± Student's half interval, as it is rounded."""
    number, _, half = text.partition(" ± ")
    places = len(number.partition(".")[2])
    values = scale * np.asarray(values, dtype=np.float64)
    assert abs(float(number) - values.mean()) <= 0.5001 * 10.0**-places
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(float(half) - t.ppf(0.975, len(values) - 1) * error) <= 0.5001 * 10.0**-places


def test_every_table_is_written_in_markdown_and_latex_and_printed_alike(run: RunFolder) -> None:
    written = [path.name for path in write_router_tables(run)]
    assert written == [f"{name}.{ending}" for name in TABLES for ending in ("md", "tex")]
    printed = printed_tables(run)
    assert len(printed) == len(TABLES)
    text = (run.path / "tables" / "adapters.md").read_text()
    adapters = dict(printed)["Adapters"]
    assert all(cell in text for row in adapters for cell in row.values())
    for table in router_tables(run):
        assert len(set(table.columns)) == len(table.columns), table.name


def test_pareto_has_a_row_a_router_and_capacity_with_the_means_of_the_seeds(
    results: RouterResults, made: SimpleNamespace
) -> None:
    rows = rows_of(pareto_tables(results))
    assert len(rows) == len(made.routers) * len(made.capacities)
    frame = results.frame[results.frame["part"] == "pareto"]
    for row in rows:
        own = frame[
            (frame["router"] == row["router"])
            & (frame["capacity_factor"] == float(row["capacity"]))
        ]
        quality, step = own[own["record"] == "quality"], own[own["record"] == "step"]
        assert row["seeds"] == "3"
        assert_mean(row["perplexity"], quality["perplexity"])
        seen = row["router"] == "expert-choice"
        assert_mean(
            row["causal perplexity"], quality["causal_perplexity" if seen else "perplexity"]
        )
        assert_mean(row["assignments dropped (%)"], quality["assignment_drop_rate"], 100)
        assert_mean(row["gate entropy"], quality["gate_entropy"])
        for topology in made.topologies:
            times = step.loc[step["topology"] == topology, "moe_p99_s"]
            assert_mean(row[f"{topology} p99 (ms)"], times, 1e3)


def test_the_front_is_what_no_other_point_beats(results: RouterResults) -> None:
    quality = results.rows("quality", (), "pareto")
    points = pareto_points(quality, results.rows("step", (), "pareto"))
    for network, own in points.groupby("network"):
        found = front(own)
        means = own.groupby(["router", "capacity_factor"])[[PERPLEXITY, "moe_p99_s"]].mean()
        for point, row in means.iterrows():
            beaten = ((means <= row).all(axis=1) & (means < row).any(axis=1)).any()
            assert found.loc[point, "front"] == (not beaten), (network, point)
            assert 0 <= found.loc[point, "share"] <= 1
        assert found.loc[found["front"], "share"].min() > found.loc[~found["front"], "share"].min()


def test_expert_choice_is_on_no_front_unless_its_causal_perplexity_is_known(
    results: RouterResults,
) -> None:
    lacking = RouterResults(results.path, results.frame.drop(columns="causal_perplexity"))
    own = [r for r in rows_of(pareto_tables(lacking)) if r["router"] == "expert-choice"]
    assert {row["causal perplexity"] for row in own} == {"n/a"}
    assert {row["torus front"] for row in own} == {""}
    frame = results.frame.assign(causal_perplexity=results.frame["perplexity"])
    known = pareto_tables(RouterResults(results.path, frame))
    own = [row for row in rows_of(known) if row["router"] == "expert-choice"]
    assert any(row["torus front"].startswith("yes") for row in own)
    plain = results.frame[results.frame["router"] != "expert-choice"]
    assert "causal perplexity" not in rows_of(pareto_tables(RouterResults(results.path, plain)))[0]


def test_a_point_that_lacks_a_seed_has_no_bootstrap_share(results: RouterResults) -> None:
    frame = results.frame
    gone = (frame["record"] == "quality") & (frame["router"] == "hash") & (frame["seed"] == 2)
    rows = rows_of(pareto_tables(RouterResults(results.path, frame[~gone])))
    assert {row["torus front"] for row in rows} == {"yes", ""}
    assert [row["seeds"] for row in rows if row["router"] == "hash"] == ["2"] * 4


def test_the_ranking_is_by_held_out_loss_and_leaves_out_what_does_not_compare(
    results: RouterResults,
) -> None:
    ranking, pairs = (rows_of(ranking_tables(results), place) for place in (0, 1))
    frame = results.frame
    documents = frame[(frame["record"] == "document") & (frame["capacity_factor"] == 1.5)]
    means = documents.groupby("router")["loss"].mean().drop("expert-choice").sort_values()
    assert [row["router"] for row in ranking] == list(means.index)
    assert [row["rank"] for row in ranking] == ["1", "2", "3", "4", "5"]
    for row, loss in zip(ranking, means, strict=True):
        assert abs(float(row["loss (nats)"]) - loss) < 1e-3
    assert len(pairs) == 10
    better = {
        row["router"]: [
            p["worse"] for p in pairs if p["better"] == row["router"] and p["significant"] == "yes"
        ]
        for row in ranking
    }
    for row in ranking:
        assert row["significantly better than"] == (", ".join(better[row["router"]]) or "none")
    assert "significantly better than" in ranking[0]
    seen = frame.assign(causal_loss=frame["loss"])
    assert len(rows_of(ranking_tables(RouterResults(results.path, seen)))) == 6


def test_layers_are_means_over_seeds_beside_the_real_traces(
    results: RouterResults, made: SimpleNamespace
) -> None:
    layers, balance = (rows_of(layer_tables(results), place) for place in (0, 1))
    assert [row["layer"] for row in layers] == [*map(str, range(26)), "mean"]
    frame = results.frame
    own = frame[(frame["record"] == "layer") & (frame["domain"] == "all")]
    for router in made.routers:
        expected = own[own["router"] == router].groupby("layer")["gini"].mean()
        shown = [row[router] for row in layers]
        assert shown[: made.layers] == [f"{gini:.3f}" for gini in expected]
        assert set(shown[made.layers : -1]) == {""}
        assert shown[-1] == f"{expected.mean():.3f}"
    real = own[own["source"] == "gpt-oss-20b"]["gini"]
    assert layers[-1]["gpt-oss-20b"] == f"{real.mean():.3f}"
    found = {row["router or model"]: row for row in balance}
    assert list(found) == [*made.routers, "deepseek-v2-lite", "gpt-oss-20b"]
    assert found["gpt-oss-20b"]["greatest layer"] == f"{real.max():.3f}"
    assert not any("inf" in text for row in balance for text in row.values())


def test_losses_and_adapters_change_by_seed(results: RouterResults) -> None:
    for rows, frame, keys, names in (
        (
            rows_of(loss_tables(results)),
            results.frame[results.frame["record"] == "loss"],
            ("balance_loss", "weight"),
            ("balance loss", "perplexity after", "change (%)"),
        ),
        (
            rows_of(adapter_tables(results)),
            results.frame[results.frame["record"] == "adapter"],
            ("variant", "rank"),
            ("adapter", "after", "change (%)"),
        ),
    ):
        first, after, change = names
        groups = list(frame.groupby(list(keys), sort=False))
        assert len(rows) == len(groups)
        for row, ((name, number), own) in zip(rows, groups, strict=True):
            assert row[first] == name
            assert row[keys[1]] == f"{number:g}"
            assert_mean(row[after], own["perplexity_after"])
            ratio = own["perplexity_after"] / own["perplexity_before"] - 1
            assert_mean(row[change], ratio, 100)


def test_assignments_are_against_the_original_of_the_same_seed(
    results: RouterResults, made: SimpleNamespace
) -> None:
    rows = rows_of(assignment_tables(results))
    assert len(rows) == 2 * len(made.assignments)
    frame = results.frame
    for row in rows:
        of_router = frame[frame["router"] == row["router"]]
        quality = of_router[of_router["record"] == "assignment"].pivot(
            index="seed", columns="assignment", values="perplexity"
        )
        steps = of_router[
            (of_router["record"] == "assignment_step") & (of_router["topology"] == "torus")
        ].pivot(index="seed", columns="assignment", values="moe_p99_s")
        name = row["assignment"]
        assert_mean(row["perplexity"], quality[name])
        if name == "original":
            assert row["change (%)"] == row["torus saved (ms)"] == ""
        else:
            assert_mean(row["change (%)"], quality[name] / quality["original"] - 1, 100)
            assert_mean(row["torus saved (ms)"], steps["original"] - steps[name], 1e3)
            assert_mean(row["torus saved (%)"], 1 - steps[name] / steps["original"], 100)


def test_capacity_and_throughput_have_the_speed_of_the_timing(
    results: RouterResults, made: SimpleNamespace
) -> None:
    capacity = rows_of(capacity_tables(results))
    assert len(capacity) == 36
    timing = made.timing
    for row in capacity:
        own = timing[
            (timing["part"] == "capacity")
            & (timing["experts"] == float(row["experts"]))
            & (timing["top_k"] == float(row["top k"]))
            & (timing["capacity_factor"] == float(row["capacity"]))
        ]
        assert row["tokens/s"] == f"{own['tokens_per_second'].iloc[0]:.0f}"
    speed = rows_of(throughput_tables(results))
    assert {row["part"] for row in speed} == {"pareto"}
    own = timing[(timing["router"] == "hash") & (timing["capacity_factor"] == 1.25)]
    row = next(r for r in speed if r["router"] == "hash" and r["capacity"] == "1.25")
    for phase, header in (("train", "training (tokens/s)"), ("evaluate", "evaluation (tokens/s)")):
        at = own[own["phase"] == phase]
        assert row[header] == f"{at['tokens'].sum() / at['wall_seconds'].sum():.0f}"
    untimed = RouterResults(results.path, results.frame)
    assert throughput_tables(untimed) == []
    assert "tokens/s" not in rows_of(capacity_tables(untimed))[0]


def test_ranks_by_experts_are_of_the_means_with_those_of_single_seeds(
    results: RouterResults,
) -> None:
    rows = rows_of(size_tables(results))
    for experts in (8, 16, 32):
        ranks = [int(row[f"rank of {experts}"].split(" ")[0]) for row in rows]
        means = [float(row[f"{experts} experts"].split(" ")[0]) for row in rows]
        assert sorted(ranks) == [1, 2, 3, 4, 5, 6]
        assert np.argsort(means).tolist() == np.argsort(ranks).tolist()
    stability = rows_of(stability_tables(results))
    assert [(row["experts"], row["against"]) for row in stability] == [
        ("8", "16"),
        ("8", "32"),
        ("16", "32"),
    ]
    assert all(-1 <= float(row["Kendall's tau"]) <= 1 for row in stability)


def test_seed_ranks_are_within_a_seed_and_ranks_of_the_means() -> None:
    frame = pd.DataFrame(
        {
            "experts": 8,
            "router": ["a", "a", "b", "b"],
            "seed": [0, 1, 0, 1],
            PERPLEXITY: [10.0, 13.0, 11.0, 11.0],
        }
    )
    ranked = seed_ranks(frame, "experts")
    assert ranked["seed_rank"].tolist() == [1, 2, 2, 1]
    assert ranked["rank"].tolist() == [2, 2, 1, 1]


def test_a_causal_perplexity_replaces_one_that_sees_later_tokens() -> None:
    frame = pd.DataFrame(
        {
            "router": ["softk", "expert-choice", "expert-choice"],
            "perplexity": [30.0, 20.0, 20.0],
            "causal_perplexity": [np.nan, 45.0, np.nan],
        }
    )
    np.testing.assert_array_equal(comparable(frame)[PERPLEXITY], [30.0, 45.0, np.nan])


def test_the_reference_capacity_is_the_largest_that_most_routers_have() -> None:
    frame = pd.DataFrame(
        {"router": ["a", "b", "a", "b", "a", "a"], "capacity_factor": [1, 1, 1.5, 1.5, 2, 0]}
    )
    assert reference_capacity(frame) == 1.5
    assert reference_capacity(frame[frame["router"] == "a"]) == 0  # none: nothing is dropped


def test_half_an_interval_is_students_and_unknown_of_one_seed() -> None:
    low, high = t.interval(0.95, 2, 2.0, 1 / 3**0.5)
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx((high - low) / 2)
    assert np.isnan(half_width([1.0]))


def test_a_run_of_one_seed_has_means_without_intervals(results: RouterResults) -> None:
    frame = results.frame
    one = RouterResults(results.path, frame[frame["seed"].isin([0]) | frame["seed"].isna()])
    assert "±" not in rows_of(pareto_tables(one))[0]["perplexity"]
    _, pairs = (rows_of(ranking_tables(one), place) for place in (0, 1))
    assert {row["p"] for row in pairs} == {"n/a"}
    assert {row["significant"] for row in pairs} == {""}


@pytest.mark.parametrize(
    ("build", "column"),
    [
        (pareto_tables, "load_cv"),
        (ranking_tables, "request"),
        (layer_tables, "uniform_gini"),
        (loss_tables, "weight"),
        (assignment_tables, "topology"),
        (capacity_tables, "token_drop_rate"),
        (size_tables, "perplexity"),
        (adapter_tables, "variant"),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_file(
    results: RouterResults, build: object, column: str
) -> None:
    lacking = RouterResults(results.path, results.frame.drop(columns=column), results.timing)
    with pytest.raises(InputError, match=rf"run: results\.parquet lacks column {column}"):
        build(lacking)  # type: ignore[operator]


def test_results_or_timing_of_something_else_are_refused(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    folder = made.folder(tmp_path / "a", made.results.drop(columns="record"))
    with pytest.raises(InputError, match="column record"):
        router_tables(folder)
    folder = made.folder(tmp_path / "b", None, made.timing.drop(columns="part"))
    with pytest.raises(InputError, match=r"timing\.csv lacks column part"):
        router_tables(folder)


def test_the_best_trial_of_each_router_is_bold_and_one_that_diverged_unknown() -> None:
    trials = pd.DataFrame(
        {
            "record": "tuning",
            "part": "tuning",
            "router": ["softk", "softk", "hash", "hash"],
            "learning_rate": [4e-3, 8e-3, 4e-3, 8e-3],
            "balance": [0.1, 0.1, 0.0, 0.0],
            "perplexity": [90.0, 80.0, 70.0, float("nan")],
        }
    )
    (table,) = tuning_tables(RouterResults(Path("run"), trials, pd.DataFrame()))
    found = [(row[0].text, row[1].text, row[3].text, row[3].best) for row in table.rows]
    assert [row[:2] for row in found] == [
        ("softk", "0.004"),
        ("softk", "0.008"),
        ("hash", "0.004"),
        ("hash", "0.008"),
    ]
    assert [float(row[2]) for row in found[:3]] == [90.0, 80.0, 70.0]
    assert found[3][2] == "n/a"
    assert [row[3] for row in found] == [False, True, True, False]
