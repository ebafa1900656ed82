from __future__ import annotations

import base64
import html
import re
from dataclasses import replace

import pytest

from topomoe.plots import FIGURES
from topomoe.report import write_report
from topomoe.report.findings import findings, losing
from topomoe.report.method import left_out
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


def test_the_report_needs_no_other_file_and_no_network(page: str) -> None:
    links = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'>\s]*)", page)
    assert links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    for forbidden in ("<script", "<link", "<iframe", "@import", "url(", "http:", "https:"):
        assert forbidden not in page
    for target in (link[1:] for link in links if link.startswith("#")):
        assert f'id="{target}"' in page


def test_the_report_holds_every_figure_as_drawn(page: str, small_study: RunFolder) -> None:
    embedded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    pictures = [small_study.path / "figures" / f"{figure.NAME}.png" for figure in FIGURES]
    assert [base64.b64decode(text) for text in embedded] == [p.read_bytes() for p in pictures]
    for figure in FIGURES:
        assert html.escape(figure.CAPTION, quote=False).replace("'", "&#39;") in page


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
    assert f"{network / best['network_bound_s']:.2f} times their lower bound" in parts
    assert "the largest part is expert compute" in parts
    requests = f"{int(best['requests'])} distinct held-out requests"
    assert requests in findings(results)[-1]


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
