from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from topomoe.run_folder import RunFolder, write_parquet
from topomoe.study_results import StudyResults, gains, read_study
from topomoe.table_text import Cell, Table, decimals, escape_latex, latex, markdown
from topomoe.tables import gains_table, summary_table, write_tables
from topomoe.topologies.errors import InputError


@pytest.fixture(scope="module")
def results(small_study: RunFolder) -> StudyResults:
    return read_study(small_study)


@pytest.fixture(scope="module")
def written(small_study: RunFolder) -> dict[str, str]:
    return {path.name: path.read_text() for path in write_tables(small_study)}


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a Markdown table by header, bold marks kept."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def assert_shows(text: str, value: float) -> None:
    """Fail unless ``text`` is ``value`` rounded to the decimals it is written with."""
    number = text.strip("*")
    places = len(number.partition(".")[2])
    assert number == f"{value:.{places}f}"
    assert value == 0 or abs(float(number) - value) <= 1e-3 * abs(value)


def test_tables_come_as_markdown_and_latex(written: dict[str, str]) -> None:
    names = ("summary", "gains", "placements", "optimum", "failures", "cost", "patterns")
    assert sorted(written) == sorted(f"{n}.{ending}" for n in names for ending in ("md", "tex"))


def test_the_summary_has_every_combination_with_the_numbers_of_the_results(
    written: dict[str, str], results: StudyResults
) -> None:
    rows = rows_of(written["summary.md"])
    assert len(rows) == len(results.summary)
    names = ["topology", "routing", "placement", "replica_routing"]
    expected = results.summary.set_index(names)
    for row in rows:
        own = expected.loc[(row["topology"], row["routing"], row["placement"], row["replicas"])]
        network = own["dispatch_s"] + own["combine_s"]
        for header, value in {
            "MoE mean (ms)": 1e3 * own["moe_s"],
            "MoE p50 (ms)": 1e3 * own["moe_p50_s"],
            "MoE p95 (ms)": 1e3 * own["moe_p95_s"],
            "MoE p99 (ms)": 1e3 * own["moe_p99_s"],
            "step mean (ms)": 1e3 * own["step_s"],
            "step p99 (ms)": 1e3 * own["step_p99_s"],
            "dispatch + combine (ms)": 1e3 * network,
            "over its bound": network / own["network_bound_s"],
            "max/mean load": own["max_over_mean"],
            "remote (GB)": 1e-9 * own["remote_bytes"],
        }.items():
            assert_shows(row[header], value)
    own = results.summary.iloc[0]
    assert f"{own['requests']:,.0f} distinct held-out requests" in written["summary.md"]
    assert f"{own['positions']:,.0f} distinct token positions" in written["summary.md"]


def test_ranks_follow_the_mean_and_the_least_of_a_column_is_bold(
    written: dict[str, str], results: StudyResults
) -> None:
    rows = rows_of(written["summary.md"])
    assert [int(row["rank"]) for row in rows][:2] == [1, 2]
    shown = [float(row["MoE mean (ms)"].strip("*")) for row in rows]
    assert shown == sorted(shown)
    for header in ("MoE mean (ms)", "MoE p99 (ms)", "step mean (ms)", "remote (GB)"):
        numbers = [float(row[header].strip("*")) for row in rows]
        bold = [row[header].startswith("**") for row in rows]
        assert bold == [number == min(numbers) for number in numbers]


def test_gains_are_those_of_the_results(written: dict[str, str], results: StudyResults) -> None:
    rows, table = rows_of(written["gains.md"]), gains(results)
    assert len(rows) == len(table)
    for row, (_, own) in zip(rows, table.iterrows(), strict=True):
        assert (row["change"], row["from"], row["to"]) == (
            own["kind"],
            own["reference"],
            own["choice"],
        )
        assert_shows(row["MoE from (ms)"], 1e3 * own["reference_s"])
        assert_shows(row["MoE to (ms)"], 1e3 * own["moe_s"])
        assert_shows(row["to/from"], own["ratio"])
    for kind in set(table["kind"]):
        best = [r for r in rows if r["change"] == kind and r["to/from"].startswith("**")]
        least = table.loc[table["kind"] == kind, "ratio"].min()
        assert bool(best) == (least < 0.9995)
        for row in best:
            assert_shows(row["to/from"], least)


def test_a_change_that_makes_nothing_faster_is_not_bold(results: StudyResults) -> None:
    frame = results.frame.copy()
    slower = (frame["record"] == "summary") & (frame["placement"] != "contiguous")
    frame.loc[slower, "moe_s"] = frame.loc[frame["record"] == "summary", "moe_s"].max() * 2
    table = gains_table(replace(results, frame=frame))
    bold = {row[0].text for row in table.rows if row[-1].best}
    assert "placement" not in bold
    assert "topology" not in bold


def test_placement_balance_is_that_of_the_results(
    written: dict[str, str], results: StudyResults
) -> None:
    rows = rows_of(written["placements.md"])
    assert [row["placement"] for row in rows] == ["contiguous", "eplb", "exact"]
    for row in rows:
        own = results.rows("placement", placement=row["placement"])
        train, test = own["train_max_over_mean"], own["max_over_mean"]
        assert_shows(row["training, mean"], train.mean())
        assert_shows(row["training, worst layer"], train.max())
        assert_shows(row["least possible, mean"], own["bound_max_over_mean"].mean())
        assert_shows(row["held out, mean"], test.mean())
        assert_shows(row["held out, worst layer"], test.max())
        assert_shows(row["held out / training"], test.mean() / train.mean())


def test_pattern_times_are_those_of_the_results(
    written: dict[str, str], results: StudyResults
) -> None:
    rows = rows_of(written["patterns.md"])
    assert len(rows) == 4 * 4
    for row in rows:
        shown = {}
        for name in results.topologies:
            own = results.rows("pattern", topology=name, pattern=row["pattern"])
            times = 1e3 * own.loc[own["level"] == float(row["level"]), "time_s"]
            mean, p99 = re.fullmatch(r"(\S+) \((\S+)\)", row[f"{name} (ms)"].strip("*")).groups()  # type: ignore[union-attr]
            assert_shows(mean, times.mean())
            assert_shows(p99, float(np.percentile(times, 99)))
            shown[name] = times.mean()
        bold = [n for n in results.topologies if row[f"{n} (ms)"].startswith("**")]
        assert bold == [
            n for n in shown if shown[n] == pytest.approx(min(shown.values()), rel=1e-9)
        ]


def test_latex_holds_the_same_cells_as_markdown(written: dict[str, str]) -> None:
    for name in ("summary", "gains", "placements", "patterns"):
        tex = written[f"{name}.tex"]
        body = [line for line in tex.splitlines() if line.endswith(r"\\")]
        plain = [
            [
                re.sub(r"\\textbf\{(.*)\}", r"\1", cell).replace("\\", "")
                for cell in line.removesuffix(r" \\").split(" & ")
            ]
            for line in body
        ]
        rows = rows_of(written[f"{name}.md"])
        assert plain[0] == list(rows[0])
        assert plain[1:] == [[cell.strip("*") for cell in row.values()] for row in rows]
        aligned = re.search(r"\\begin\{tabular\}\{([lr]+)\}", tex)
        assert aligned is not None
        assert len(aligned[1]) == len(rows[0])
        assert tex.rstrip().endswith(r"\end{tabular}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(small_study: RunFolder, written: dict[str, str], tmp_path: Path) -> None:
    inputs = "\n\n".join(text for name, text in written.items() if name.endswith(".tex"))
    odd = Table("odd", "100 % odd_name", "A & B.", ("a_b",), (False,), ((Cell("~^#${}\\<>|"),),))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\tiny\n"
        f"{inputs}\n{latex(odd)}\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("needs LaTeX's booktabs")
    assert done.returncode == 0, done.stdout[-1000:]


def test_rewriting_gives_the_same_bytes(small_study: RunFolder, written: dict[str, str]) -> None:
    assert {path.name: path.read_text() for path in write_tables(small_study)} == written


def test_special_characters_are_escaped() -> None:
    assert escape_latex("a_b & 5 % #1") == r"a\_b \& 5 \% \#1"
    table = Table("t", "T", "N.", ("a|b",), (False,), ((Cell("x|y", best=True),),))
    assert r"| **x\|y** |" in markdown(table)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([13.7, 1542.0], 2), ([0.0312], 5), ([20000.0], 0), ([0.0, np.nan], 0), ([], 0)],
)
def test_decimals_give_the_smallest_value_four_digits(values: list[float], expected: int) -> None:
    assert decimals(values) == expected


@pytest.mark.parametrize("requests", [4, 5])
def test_the_interval_is_shown_where_enough_requests_stand_behind_it(
    results: StudyResults, requests: int
) -> None:
    results = replace(
        results, frame=results.frame.assign(requests=requests, step_low_s=0.0123, step_high_s=0.02)
    )
    table = summary_table(results)
    shown = [row[table.columns.index("95 % interval (ms)")].text for row in table.rows]
    if requests < 5:
        assert set(shown) == {"n/a"}
        return
    ordered = results.summary.sort_values("moe_s", kind="stable")
    for text, (_, row) in zip(shown, ordered.iterrows(), strict=True):
        low, high = text.split(" to ")
        assert_shows(low, 1e3 * row["step_low_s"])
        assert_shows(high, 1e3 * row["step_high_s"])


def test_one_request_is_not_in_the_plural(results: StudyResults) -> None:
    note = summary_table(replace(results, frame=results.frame.assign(requests=1))).note
    assert "behind which stand 1 distinct held-out request and" in note


def test_patterns_say_the_mean_size_of_a_pair(written: dict[str, str]) -> None:
    assert "of 64 KiB a pair of devices" in written["patterns.md"]


def test_a_run_without_resamples_has_no_interval(study_copy: RunFolder) -> None:
    frame = study_copy.results().assign(step_low_s=np.nan, step_high_s=np.nan)
    write_parquet(study_copy.path / "results.parquet", frame)
    write_tables(study_copy)
    rows = rows_of((study_copy.path / "tables" / "summary.md").read_text())
    assert {row["95 % interval (ms)"] for row in rows} == {"n/a"}


def test_damaged_results_write_no_table(study_copy: RunFolder) -> None:
    (study_copy.path / "results.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"results\.parquet"):
        write_tables(study_copy)
    assert not (study_copy.path / "tables").exists()
