"""The report of a bench of routers: whole, self-contained, and true to the results."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from topomoe import cli
from topomoe.moe.ranking import pair_rows
from topomoe.plots import router_figures
from topomoe.report import write_report
from topomoe.report.findings_routers import front_findings, ranking_findings, router_findings
from topomoe.report.findings_routers_balance import balance_findings, loss_findings
from topomoe.report.findings_routers_changes import (
    against_findings,
    assignment_findings,
    compare_changes,
    placement_findings,
)
from topomoe.report.findings_routers_sweeps import (
    adapter_findings,
    capacity_findings,
    throughput_findings,
    tuning_findings,
)
from topomoe.report.method_routers import limits, priced
from topomoe.report.routers import asked
from topomoe.router_front import losses_by_capacity, reference_of
from topomoe.router_results import RouterResults
from topomoe.run_folder import RunFolder
from topomoe.tables_routers import router_tables
from topomoe.topologies.errors import InputError

Call = Callable[..., tuple[int | str | None, str, str]]
HEADINGS = (
    *("", "Quality against time", "Ranking", "Balance", "Placement and assignment"),
    "Capacity, adapters and speed",
)


@pytest.fixture(scope="module")
def results(made: SimpleNamespace) -> RouterResults:
    return RouterResults(Path("run"), made.results, made.timing)


@pytest.fixture(scope="module")
def run(made: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder: RunFolder = made.folder(tmp_path_factory.mktemp("report") / "run")
    return folder


@pytest.fixture(scope="module")
def page(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


def of(rows: list[dict[str, object]], timing: pd.DataFrame | None = None) -> RouterResults:
    """Return results of a few rows."""
    return RouterResults(Path("run"), pd.DataFrame(rows), timing)


def pareto(
    points: dict[str, tuple[float, float]], networks: tuple[str, ...] = ("torus",)
) -> list[dict[str, object]]:
    """Return rows of routers with a perplexity and a p99 time each, the same in two seeds."""
    rows: list[dict[str, object]] = []
    for router, (perplexity, seconds) in points.items():
        for seed in (0, 1):
            key = {"part": "pareto", "router": router, "capacity_factor": 1.25, "seed": seed}
            rows.append(
                {**key, "record": "quality", "perplexity": perplexity, "token_drop_rate": 0.0}
                | {"assignment_drop_rate": 0.0, "load_cv": 0.1, "gate_entropy": 0.5}
            )
            rows += [
                {**key, "record": "step", "topology": network, "placement": "eplb"}
                | {"moe_p99_s": seconds}
                for network in networks
            ]
    return rows


def test_the_report_needs_no_other_file_and_no_network(
    page: str, assert_self_contained: Callable[[str], None]
) -> None:
    assert_self_contained(page)


def test_the_report_holds_every_figure_with_title_and_caption(page: str, run: RunFolder) -> None:
    embedded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    figures = router_figures.FIGURES
    pictures = [run.path / "figures" / f"{figure.NAME}.png" for figure in figures]
    assert [base64.b64decode(text) for text in embedded] == [p.read_bytes() for p in pictures]
    told = html.unescape(page)
    for figure in figures:
        assert f"<h3>{figure.TITLE}</h3>" in told
        assert figure.CAPTION in told


def test_the_report_holds_every_table_with_its_note(page: str, run: RunFolder) -> None:
    tables = router_tables(run)
    assert len(tables) == page.count('<table id="table-')
    for table in tables:
        part = page[page.index(f'id="table-{table.name}"') :]
        own = part[: part.index("</table>")]
        shown = [html.unescape(t) for t in re.findall(r"<td[^>]*>([^<]*)</td>", own)]
        assert shown == [cell.text for row in table.rows for cell in row]
        note = html.unescape(part[len(own) :].split('<p class="note">', 1)[1].split("</p>")[0])
        assert note == table.note


def test_the_report_says_the_findings_and_the_limits(
    page: str, run: RunFolder, results: RouterResults
) -> None:
    told = html.unescape(page)
    found = router_findings(results)
    assert tuple(heading for heading, _ in found) == HEADINGS
    config = run.config()
    for sentence in (
        *(sentence for _, sentences in found for sentence in sentences),
        *limits(results, config),
        *priced(config),
    ):
        assert sentence in told
    assert "nan" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", told)


def test_writing_again_gives_the_same_bytes(page: str, run: RunFolder) -> None:
    assert write_report(run).read_text(encoding="utf-8") == page


RECORDS: list[tuple[str, str]] = [
    *((name, "") for name in ("curve", "document", "layer", "loss", "adapter", "assignment")),
    *(("quality", part) for part in ("pareto", "capacity", "size")),
]


@pytest.mark.parametrize(("record", "part"), RECORDS)
def test_a_run_of_one_part_has_what_it_says(made: SimpleNamespace, record: str, part: str) -> None:
    frame = made.results[made.results["record"] == record]
    frame = frame[frame["part"] == part] if part else frame
    own = RouterResults(Path("run"), frame.dropna(axis=1, how="all"))
    found = router_findings(own)
    # A curve says nothing in words; a perplexity without times, or times without it, neither.
    says_nothing = {("curve", ""), ("quality", "pareto"), ("assignment", "")}
    assert bool(found) == ((record, part) not in says_nothing)
    assert all(sentence for _, sentences in found for sentence in sentences)
    assert asked(own, {})
    assert limits(own, {})


def test_a_profile_alone_has_a_report(made: SimpleNamespace, tmp_path: Path) -> None:
    rows = made.results[made.results["record"] == "layer"]
    rows = rows[(rows["source"] != "trained") | (rows["router"] == "softk")]
    folder = made.folder(tmp_path / "run", rows.dropna(axis=1, how="all"))
    (folder.path / "timing.csv").unlink()
    page = html.unescape(write_report(folder).read_text(encoding="utf-8"))
    assert "<h1>Router softk</h1>" in page
    assert re.findall(r'<figure id="(\w+)"', page) == ["router_layers"]
    assert re.findall(r'<table id="table-(\w+)"', page) == ["layers", "layer_balance"]
    assert "How a step is priced" not in page
    assert "timing.csv" not in page


def test_the_command_writes_the_report_and_other_kinds_have_none(
    run: RunFolder, page: str, topomoe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "draw", lambda folder: [])  # drawn already
    (run.path / "report.html").unlink()
    status, out, err = topomoe("report", run.path)
    assert status == 0, err
    assert f"report: {run.path / 'report.html'}" in out
    assert (run.path / "report.html").read_text(encoding="utf-8") == page
    other = RunFolder.start(tmp_path / "other", "delays", {})
    with pytest.raises(InputError, match=r"a run of kind 'delays' has no report"):
        write_report(other)


def test_the_front_is_of_what_no_other_beats_in_both() -> None:
    points = {"top1": (40.0, 1e-3), "softk": (30.0, 2e-3), "hash": (35.0, 2.5e-3)}
    headline, torus = front_findings(of(pareto(points)))
    assert headline.startswith("top1 and softk are on the Pareto front")
    assert "on the network; on none hash." in headline
    assert "top1 (1 ms, perplexity 40.0) and softk (2 ms, perplexity 30.0)" in torus
    assert "the step takes 100.0 % longer for 25.0 % less perplexity" in torus
    faster = front_findings(of(pareto(points | {"hash": (35.0, 1.5e-3)})))
    assert faster[0].startswith("top1, softk and hash are on the Pareto front")


def test_a_front_is_told_by_network() -> None:
    rows = pareto({"top1": (40.0, 1e-3), "softk": (30.0, 2e-3)}, ("torus", "leaf-spine"))
    for row in rows:
        if row["router"] == "softk" and row.get("topology") == "leaf-spine":
            row["moe_p99_s"] = 0.5e-3
    headline, torus, leaf = front_findings(of(rows))
    assert headline.startswith("softk is on the Pareto front")
    assert "on both networks; on some of them top1" in headline
    assert torus.startswith("On torus, the front from the fastest to the lowest perplexity: top1")
    assert "top1" not in leaf


def test_expert_choice_counts_by_what_sees_no_later_token() -> None:
    rows = pareto({"expert-choice": (20.0, 1e-3), "softk": (30.0, 2e-3)})
    assert "was not measured without them" in front_findings(of(rows))[-1]
    for row in rows:
        if row["record"] == "quality":
            row["causal_perplexity"] = 35.0 if row["router"] == "expert-choice" else 30.0
    assert "35.0 instead of 20.0 at capacity factor 1.25" in front_findings(of(rows))[-1]


def test_the_ranking_counts_the_differences_of_the_tests(results: RouterResults) -> None:
    ranked, tested = ranking_findings(results)
    by_capacity = losses_by_capacity(results)
    names, loss, tokens = by_capacity[reference_of(by_capacity)]
    pairs = pair_rows(names, loss, tokens)
    order = re.findall(r"([a-z0-9-]+) \(\d", ranked.split(". Over")[0])
    assert order == list(dict.fromkeys([*(p["better"] for p in pairs), pairs[-1]["worse"]]))
    paired, pooled = (sum(p[k] for p in pairs) for k in ("significant", "significant_pooled"))
    assert 0 < paired < len(pairs)
    assert f", {paired} of {len(pairs)} differences between two routers are significant" in tested
    assert f"pooled over all routers, {pooled} (" in tested
    for pair in pairs:
        told = re.search(rf"[(; ]{pair['better']} before ([^;)]*)", tested)
        assert (told is not None and pair["worse"] in told[1]) == pair["significant"]


def test_a_single_seed_makes_nothing_significant(results: RouterResults) -> None:
    frame = results.frame
    single = replace(results, frame=frame[frame["seed"].isna() | (frame["seed"] == 0)])
    (ranked,) = ranking_findings(single)
    assert "Of a single seed, no difference can be called significant." in ranked
    assert "±" not in " ".join(s for _, own in router_findings(single) for s in own)


@pytest.mark.parametrize(
    ("gini", "said"),
    [
        (0.05, "is more even than DeepSeek-V3 (0.33 to 0.45), DeepSeek-V2-Lite (0.27), "),
        (0.10, "within the range of Mixtral-8x7B (0.08 to 0.15)."),
        (0.30, "less even than DeepSeek-V2-Lite (0.27), OLMoE (0.23) and Mixtral-8x7B"),
    ],
)
def test_trained_routers_are_held_against_real_models(gini: float, said: str) -> None:
    layer = {"record": "layer", "part": "profile", "domain": "all", "uniform_gini": 0.02}
    trained = {**layer, "source": "trained", "capacity_factor": 1.25, "seed": 0}
    rows = [
        {**trained, "router": "softk", "layer": 0, "gini": gini - 0.01},
        {**trained, "router": "softk", "layer": 1, "gini": gini + 0.01},
        {**trained, "router": "hash", "layer": 0, "gini": 0.01},
        {**trained, "router": "hash", "layer": 1, "gini": 0.01},
        {**layer, "source": "olmoe", "layer": 0, "gini": 0.2},
    ]
    own, real, published = balance_findings(of(rows))
    assert f"of 0.010 (hash) to {gini:.3f} (softk); picking evenly at random" in own
    below = "all 2" if gini < 0.2 else "1 of 2"
    assert f"has olmoe 0.200; {below} trained here " in real
    assert f"the most uneven router here, softk ({gini:.3f}), is " in published
    assert said in published


def test_losses_are_held_against_fine_tuning_without_one() -> None:
    rows = [
        {"record": "loss", "balance_loss": loss, "weight": weight, "seed": seed}
        | {"perplexity_before": 30.0, "gini_before": 0.4}
        | {"perplexity_after": perplexity + seed, "gini_after": gini * (1 + 0.01 * seed)}
        for loss, weight, perplexity, gini in (
            ("none", 0.0, 28.0, 0.5),
            ("switch", 0.1, 28.0, 0.25),
            ("cv", 0.1, 29.4, 0.55),
        )
        for seed in (0, 1, 2)
    ]
    (said,) = loss_findings(of(rows))
    assert "Against as much fine-tuning without a balance loss, 1 of 2 balance losses" in said
    assert "falls most with switch at weight 0.1 (-50.0 ± 0.0 %, perplexity 0.0 ± 0.0 %)" in said
    change = 100 * np.mean([1.4 / (28 + seed) for seed in (0, 1, 2)])
    assert f"any costs is +{change:.1f}" in said
    (said,) = loss_findings(of([row for row in rows if row["balance_loss"] != "none"]))
    assert said.startswith("Against before fine-tuning, 1 of 2")


def changes(times: dict[tuple[str, str], float]) -> list[dict[str, object]]:
    """Return rows of one router's assignments, times by placement and assignment."""
    perplexity = {"original": 100.0, "random": 150.0, "reroute": 100.5}
    key = {"router": "softk", "seed": 0}
    return [
        {**key, "record": "assignment", "assignment": name, "perplexity": value}
        for name, value in perplexity.items()
    ] + [
        {**key, "record": "assignment_step", "topology": "torus", "placement": placement}
        | {"assignment": assignment, "moe_p99_s": seconds}
        for (placement, assignment), seconds in times.items()
    ]


TIMES = {
    ("contiguous", "original"): 1.0,
    ("contiguous", "random"): 0.7,
    ("contiguous", "reroute"): 0.9,
    ("eplb", "original"): 0.8,
    ("eplb", "random"): 0.8,
    ("eplb", "reroute"): 0.84,
}


def test_placement_is_held_against_assignments_that_cost_much_and_little() -> None:
    (said,) = against_findings(of(changes(TIMES)))
    assert "placing by eplb instead of contiguous saves 20.0 % of the p99 step time" in said
    assert "less than the assignment change that saves most under contiguous, random (30.0 %, " in (
        said
    )
    assert "more than the best of those that cost at most 1 % of perplexity, reroute (10.0 %" in (
        said
    )
    assert said.endswith("On top of eplb, none saves anything.")
    (said,) = against_findings(of(changes(TIMES | {("contiguous", "random"): 0.8})))
    assert "as much as the assignment change that saves most" in said


def test_one_placement_is_compared_with_none() -> None:
    rows = changes({key: value for key, value in TIMES.items() if key[0] == "eplb"})
    steps = pd.DataFrame(rows).dropna(subset=["moe_p99_s"])
    assert compare_changes(steps, {}) is None
    assert against_findings(of(rows)) == []
    (said,) = assignment_findings(of(rows))
    assert "reroute +0.5 %, random +50.0 %" in said
    assert "on torus none saves anything" in said


def test_what_saves_most_is_named_with_its_perplexity() -> None:
    (said,) = assignment_findings(of(changes(TIMES)))
    assert "on torus, contiguous random (30.0 %, perplexity +50.0 %), " in said
    assert "for at most 1 % more perplexity reroute (10.0 %)" in said


def test_placement_saves_over_all_routers() -> None:
    rows = pareto({"top1": (40.0, 1e-3), "softk": (30.0, 2e-3)})
    slow = [
        {**row, "placement": "contiguous"}
        | {"moe_p99_s": (1.25 if row["router"] == "top1" else 2.0) * float(str(row["moe_p99_s"]))}
        for row in rows
        if row["record"] == "step"
    ]
    assert placement_findings(of(rows)) == []
    (said,) = placement_findings(of([*rows, *slow]))
    assert "by eplb instead of contiguous saves 20.0 % (top1) to 50.0 % (softk)" in said


def test_capacity_adapters_and_learning_rates_are_those_of_the_results() -> None:
    key = {"record": "quality", "part": "capacity", "router": "softk", "seed": 0, "top_k": 1}
    capacity = [
        {**key, "experts": experts, "capacity_factor": factor, "token_drop_rate": 0.0}
        | {"assignment_drop_rate": drop, "perplexity": perplexity}
        for experts, factor, drop, perplexity in (
            (64, 0.9, 0.2, 33.0),
            (64, 1.5, 0.01, 30.0),
            (128, 0.9, 0.3, 36.0),
            (128, 1.5, 0.02, 30.0),
        )
    ]
    (said,) = capacity_findings(of(capacity))
    assert "20.0 % (64 experts, 1 a token) to 30.0 % (128 experts, 1 a token) at capacity" in said
    assert "changes by +10.0 % (64 experts, 1 a token) to +20.0 % (128 experts" in said
    adapters = [
        {"record": "adapter", "variant": variant, "rank": rank, "trained_parameters": count}
        | {"seed": 0, "perplexity_before": 50.0, "perplexity_after": after}
        for variant, rank, count, after in (
            ("routed", 4, 100, 45.0),
            ("shared", 4, 50, 55.0),
            ("full", 0, 1000, 40.0),
        )
    ]
    (said,) = adapter_findings(of(adapters))
    assert "has routed of rank 4 (-10.0 %, 100 parameters); the highest has shared" in said
    assert "1 of 2 lowers it. Training the whole model instead: -20.0 %" in said
    tuning = [
        {"record": "tuning", "router": router, "learning_rate": rate, "balance": 0.1, "loss": loss}
        for router, rate, loss in (
            *(("softk", 1e-3, 4.0), ("softk", 1e-2, np.nan)),
            *(("hash", 1e-3, 4.0), ("hash", 1e-2, 3.0)),
        )
    ]
    (said,) = tuning_findings(of(tuning))
    assert said.endswith("of 0.001 and 0.01: 0.001 for softk; 0.01 for hash.")


def test_throughput_is_all_tokens_over_all_wall_time() -> None:
    key = {"part": "pareto", "capacity_factor": 1.0, "experts": 8, "top_k": 1, "phase": "train"}
    timing = pd.DataFrame(
        [
            {**key, "router": "softk", "seed": 0, "tokens": 1000, "wall_seconds": 1.0},
            {**key, "router": "softk", "seed": 1, "tokens": 1000, "wall_seconds": 3.0},
            {**key, "router": "hash", "seed": 0, "tokens": 900, "wall_seconds": 1.0},
        ]
    )
    (said,) = throughput_findings(of([{"record": "curve", "part": "pareto"}], timing))
    assert "900 tokens a second with hash, the fastest router, and 500 with softk" in said
    assert "2,900 tokens in 5 seconds" in said


def test_what_was_asked_has_the_text_and_its_digest(results: RouterResults) -> None:
    domain = {
        "documents": 2,
        "bytes": 12345,
        "tokens": 99,
        "sha256": "ab12",
        "packages": {"a": "1"},
    }
    parts = {"training": {"documents": 1, "bytes": 1, "tokens": 50}}
    config = {
        "run": {"text": {"domains": {"prose": domain}, "parts": parts}},
        "seeds": 3,
        "versions": {"numpy": "2.0"},
    }
    facts = dict(asked(results, config))
    assert facts["text: prose"] == "2 documents, 12,345 bytes, 99 tokens, of a 1, SHA-256 ab12"
    assert facts["seeds"] == "0, 1, 2"
    assert facts["versions"] == "numpy 2.0"
    young = limits(results, config)[0]
    most = results.frame["tokens"][results.frame["record"] == "curve"].max()
    assert f"at most {most:,.0f} tokens of training), {most / 50:.2g} passes" in young


def test_limits_are_of_what_was_run(results: RouterResults) -> None:
    def told(frame: pd.DataFrame, **config: object) -> str:
        return " ".join(limits(replace(results, frame=frame), config))

    frame = results.frame
    assert "expert-choice is not causal" in told(frame)
    assert "expert-choice is not causal" not in told(frame[frame["router"] != "expert-choice"])
    assert "with no pair dropped" in told(frame, assignment_factor=0.0)
    assert "at capacity factor 1.25; models" in told(frame, assignment_factor=1.25)
    assert "young" not in told(frame, pretrained="folder")
    assert "the width of a real model:" in priced({})[0]
    assert (
        "the width of a real model, deepseek-v2-lite:"
        in priced({"network": {"width": "deepseek-v2-lite"}})[0]
    )


def test_damaged_results_write_no_report(made: SimpleNamespace, tmp_path: Path) -> None:
    folder = made.folder(tmp_path / "run")
    (folder.path / "results.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"results\.parquet"):
        write_report(folder)
    assert not (folder.path / "report.html").exists()
