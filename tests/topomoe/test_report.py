from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from topomoe.plots import FIGURES, caption
from topomoe.report import write_report
from topomoe.report.findings import findings, losing
from topomoe.report.findings_network import failures
from topomoe.report.method import charged, left_out
from topomoe.report.study import asked
from topomoe.run_folder import RunFolder
from topomoe.study_results import StudyResults, gains, read_study
from topomoe.tables import study_tables
from topomoe.topologies.errors import InputError


@pytest.fixture(scope="module")
def results(small_study: RunFolder) -> StudyResults:
    return read_study(small_study)


@pytest.fixture(scope="module")
def page(small_study: RunFolder) -> str:
    return write_report(small_study).read_text(encoding="utf-8")


def test_the_report_needs_no_other_file_and_no_network(
    page: str, assert_self_contained: Callable[[str], None]
) -> None:
    assert_self_contained(page)


def test_the_report_holds_every_figure_as_drawn(page: str, small_study: RunFolder) -> None:
    embedded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    pictures = [small_study.path / "figures" / f"{figure.NAME}.png" for figure in FIGURES]
    assert [base64.b64decode(text) for text in embedded] == [p.read_bytes() for p in pictures]
    results = read_study(small_study)
    for figure in FIGURES:
        assert html.escape(caption(figure, results), quote=False).replace("'", "&#39;") in page


def test_the_report_holds_every_cell_of_every_table(page: str, results: StudyResults) -> None:
    for table in study_tables(results):
        part = page[page.index(f'id="table-{table.name}"') :]
        part = part[: part.index("</table>")]
        shown = [html.unescape(t) for t in re.findall(r"<td[^>]*>([^<]*)</td>", part)]
        assert shown == [cell.text for row in table.rows for cell in row]


def test_notes_settings_and_versions_are_in_the_report_and_escaped(
    page: str, results: StudyResults
) -> None:
    assert "a &lt;b&gt;note&lt;/b&gt; &amp; more" in page
    assert "<b>note" not in page
    for name in ("workload.batches", "step.device", "seed", "versions.numpy"):
        assert f"<code>{name}</code>" in page
    assert results.config["versions"]["numpy"] in page


def test_rewriting_gives_the_same_bytes(page: str, small_study: RunFolder) -> None:
    assert write_report(small_study).read_text(encoding="utf-8") == page


def test_the_answer_names_the_best_and_the_worst_with_their_numbers(results: StudyResults) -> None:
    ordered = results.summary.sort_values("moe_s", kind="stable")
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    first, parts, *_ = findings(results)
    assert first.startswith(f"In this run {best['placement']} on {best['topology']}")
    assert f"{1e3 * best['moe_s']:.4g} ms a step" in first
    assert f"{1e3 * best['step_s']:.4g} ms with attention" in first
    assert f"{worst['placement']} on {worst['topology']}" in first
    assert f"{100 * (worst['moe_s'] / best['moe_s'] - 1):.1f} % longer" in first
    network = best["dispatch_s"] + best["combine_s"]
    assert f"together take {1e3 * network:.4g} ms" in parts
    assert parts.startswith("On the fastest, the largest part is expert compute (of the MoE time:")
    requests = f"{int(best['requests'])} distinct held-out requests"
    assert requests in findings(results)[-1]


def changed(results: StudyResults, record: str, **columns: object) -> StudyResults:
    """Return the results with other values in the rows of one record."""
    frame = results.frame.copy()
    for column, value in columns.items():
        frame.loc[frame["record"] == record, column] = value
    return replace(results, frame=frame)


@pytest.mark.parametrize(
    ("bound", "compute", "said"),
    [
        (0.004, 0.006, "2.50 times their lower bound, so another routing"),
        (0.0099, 0.006, "within 2 % of their lower bound."),
        (0.0080, 0.990, "2 ms above their lower bound, less than 2 % of the MoE time"),
    ],
)
def test_another_routing_is_worth_a_word_only_where_it_could_save_something(
    results: StudyResults, bound: float, compute: float, said: str
) -> None:
    parts = findings(
        changed(
            results,
            "summary",
            dispatch_s=0.004,
            combine_s=0.006,
            compute_s=compute,
            network_bound_s=bound,
        )
    )[1]
    assert said in parts
    assert ("could save" in parts) == ("another routing" in said)


def test_backward_is_one_of_the_parts_in_training(results: StudyResults) -> None:
    parts = findings(changed(results, "summary", backward_s=10.0))[1]
    assert "the largest part is backward (of the MoE time: backward " in parts
    assert "backward is two more all-to-alls and twice the expert compute" in parts
    assert "backward" not in findings(results)[1]


def test_equal_times_are_said_to_be_equal(results: StudyResults) -> None:
    level = changed(results, "summary", moe_s=0.5)
    first, *_, last = findings(changed(level, "step", moe_s=0.5))
    assert "combinations are equal" in first
    assert "longer" not in first
    assert "Batch by batch the two fastest are equal in all of 4" in last
    assert any("are equally fast." in sentence for sentence in losing(level))


def test_two_that_are_equal_still_have_a_slowest(results: StudyResults) -> None:
    frame = results.frame.copy()
    ordered = results.summary.sort_values("moe_s", kind="stable")
    keys = ["topology", "placement", "replica_routing"]
    best = ordered.iloc[0]
    second = ordered[(ordered[keys] != best[keys]).any(axis=1)].iloc[0]
    names = [*keys, "routing"]
    rows = (frame["record"] == "summary") & (frame[names] == second[names]).all(axis=1)
    frame.loc[rows, "moe_s"] = best["moe_s"]
    first = findings(replace(results, frame=frame))[0]
    assert "are equal in that; the slowest, " in first
    assert " 0.0 %" not in first


@pytest.mark.parametrize("requests", [1, 4, 5])
def test_an_interval_of_few_requests_is_not_printed(results: StudyResults, requests: int) -> None:
    mean = results.summary["step_s"].min()
    interval = {"step_low_s": 0.9 * mean, "step_high_s": 1.1 * mean}
    enough = changed(results, "summary", requests=requests, **interval)
    last = findings(enough)[-1]
    without = replace(enough, config={**results.config, "resamples": 0})
    assert "interval" not in findings(without)[-1]
    assert ("too few requests for an interval" in last) == (requests < 5)
    assert ("95 % interval" in last) == (requests >= 5)
    assert ("1 distinct held-out request stands" in last) == (requests == 1)


def test_what_was_asked_has_what_the_run_filled_in(results: StudyResults) -> None:
    run = {**results.config["run"], "slots": 24, "train_requests": 3, "test_requests": 1}
    config = {**results.config, "slots": 0, "run": run}
    facts = dict(asked(replace(results, config=config)))
    assert facts["expert slots"].startswith("24, 3 a device: the least")
    assert facts["model"].startswith("mixtral-8x7b, 32 MoE layers of 8 routed experts")
    assert facts["evidence"].endswith("made from 3 other requests")
    assert "of the 1 held-out request and" in facts["evidence"]
    assert dict(asked(results))["expert slots"] == "16, 2 a device"


SETTINGS: list[tuple[dict[str, object], str]] = [
    ({"workload": {"phase": "training"}}, "two more all-to-alls"),
    ({"workload": {"phase": "training"}}, "twice the expert compute"),
    ({"workload": {"phase": "training"}}, "three times their forward pass"),
    ({"step": {"mtu": 0.0}}, "no store-and-forward)"),
    ({"step": {"tile_tokens": 64}}, "whole tiles of 64"),
    ({"step": {"overlap": "two-batch"}}, "two halves of a batch take turns"),
    ({"dispatch": {"padded": 1.25}}, "full buffers of capacity factor 1.25"),
    ({"dispatch": {"capacity_factor": 1.5, "overflow": "drop"}}, "first come; the rest is dropped"),
    ({"dispatch": {"copies": "expert"}}, "for each of its experts"),
    ({"dispatch": {"copies": "node-relay", "node_size": 4}}, "each node of 4 devices"),
    ({"shared_expert": "routed"}, "dispatched to as one more expert"),
    ({"replica_routings": ["weighted", "least-loaded"]}, "least-loaded replica routing pays"),
    ({"replica_routings": ["local-first"]}, "(and the gather of the counts)"),
]


@pytest.mark.parametrize(("setting", "said"), SETTINGS)
def test_what_is_charged_follows_the_settings(
    results: StudyResults, setting: dict[str, object], said: str
) -> None:
    usual = results.config
    merged = {
        name: {**usual[name], **value} if isinstance(value, dict) else value
        for name, value in setting.items()
    }
    assert said in " ".join(charged({**usual, **merged}))
    assert said not in " ".join(charged(usual))


def test_no_packets_of_no_bytes(results: StudyResults) -> None:
    assert "(packets of 4096 bytes)" in " ".join(charged(results.config))
    assert "packets of" not in " ".join(charged({**results.config, "step": {"mtu": 0}}))


def test_the_bound_is_said_to_be_of_cuts_and_volume(results: StudyResults) -> None:
    sentence = next(s for s in charged(results.config) if s.startswith("The bound"))
    for part in ("overhead to start", "worst device cut", "volume bound", "at most"):
        assert part in sentence
    assert "replica routing pays" not in " ".join(charged(results.config))


def test_a_placement_holds_only_where_held_out_balance_is_near_training(
    results: StudyResults,
) -> None:
    def verdict(held_out: float) -> str:
        frame = results.frame.copy()
        rows = (frame["record"] == "placement") & (frame["placement"] == "exact")
        frame.loc[rows, "train_max_over_mean"] = 1.0
        frame.loc[rows, "max_over_mean"] = held_out
        return next(
            s for s in findings(replace(results, frame=frame)) if "exact" in s and "Bal" in s
        )

    assert "exact holds (1.000 on the training requests, 1.040" in verdict(1.04)
    assert "exact does not hold (1.000 on the training requests, 1.200" in verdict(1.2)


def test_what_lost_counts_the_changes_that_made_it_slower(results: StudyResults) -> None:
    table = gains(results)
    rows = table[table["kind"] == "routing"]
    worse = rows[rows["ratio"] > 1.0005]
    assert len(worse) > 0
    sentence = next(s for s in losing(results) if "changes of routing" in s)
    assert sentence.startswith(f"{len(worse)} of {len(rows)} changes of routing")
    worst = worse.loc[worse["ratio"].idxmax()]
    assert f"{worst['choice']} instead of {worst['reference']} on {worst['topology']}" in sentence


def test_the_batches_won_are_counted_batch_by_batch(results: StudyResults) -> None:
    frame = results.frame.copy()
    best = results.summary.sort_values("moe_s", kind="stable").iloc[0]
    keys = ["topology", "routing", "placement", "replica_routing"]
    rows = (frame["record"] == "step") & (frame[keys] == best[keys]).all(axis=1)
    frame.loc[frame.index[rows][:3], "moe_s"] = 1e9  # the mean stays: it is its own record
    frame.loc[frame.index[rows][3:], "moe_s"] = 0.0
    sentence = findings(replace(results, frame=frame))[-1]
    assert "faster than the next in 1 of 4" in sentence


def test_a_synthetic_trace_is_said_to_be_one() -> None:
    assert any("synthetic" in sentence for sentence in left_out({"trace": ""}))
    assert not any("synthetic" in sentence for sentence in left_out({"trace": "folder"}))
    assert any("10 to 53 %" in sentence for sentence in left_out({}))


def test_damaged_results_write_no_report(study_copy: RunFolder) -> None:
    (study_copy.path / "results.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"results\.parquet"):
        write_report(study_copy)
    assert not (study_copy.path / "report.html").exists()


def test_failures_that_cut_devices_off_are_not_called_the_cheapest(results: StudyResults) -> None:
    rows = [("links:1", 1, 1.2), ("links:2", 1, 1.5), ("links:4", 2, 0.9), ("links:8", 3, 0.8)]
    frame = pd.DataFrame(rows, columns=["scenario", "parts", "ratio"])
    frame = frame.assign(record="failure", topology=results.topologies[0])
    first, second = failures(replace(results, frame=frame))
    assert "links:1" in first
    assert "1.200" in first
    assert "links:2" in first
    assert "0.9" not in first
    assert "(links:4, links:8)" in second
