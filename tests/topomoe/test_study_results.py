from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from topomoe.run_folder import RunFolder, write_parquet
from topomoe.study_results import gains, read_study
from topomoe.topologies.errors import InputError


def test_names_and_default_routings_are_those_of_the_study(small_study: RunFolder) -> None:
    results = read_study(small_study)
    assert results.topologies == ("leaf-spine", "mesh", "twisted-torus", "optical")
    assert [placement for placement, _ in results.groups] == ["contiguous", "eplb", "exact"]
    assert results.default_routing["mesh"] == "dimension-order"
    assert len(results.defaults) == 12
    assert len(results.summary) > 12  # other routings too
    patterns = results.rows("pattern")[["topology", "routing"]].drop_duplicates()
    assert dict(patterns.itertuples(index=False)) == results.default_routing
    assert (results.num_batches, results.num_experts, results.num_layers) == (4, 8, 32)


def test_each_gain_changes_one_choice_and_has_the_times_of_the_summary(
    small_study: RunFolder,
) -> None:
    results = read_study(small_study)
    table = gains(results)
    assert set(table["kind"]) == {"routing", "placement", "topology"}
    column = {"routing": "routing", "placement": "placement", "topology": "topology"}
    names = ["topology", "routing", "placement", "replica_routing"]
    time = results.summary.set_index(names)["moe_s"]
    for _, row in table.iterrows():
        assert row["moe_s"] == time[tuple(row[names])]
        before = row.copy()
        before[column[row["kind"]]] = row["reference"]
        before["routing"] = results.default_routing[before["topology"]]
        assert row["reference_s"] == time[tuple(before[names])]
        assert row["ratio"] == row["moe_s"] / row["reference_s"]
    assert (table.loc[table["kind"] == "topology", "ratio"] >= 1).all()
    assert (table["kind"] == "placement").sum() == 4 * 2
    assert (table["kind"] == "topology").sum() == 3 * 3


def test_an_interval_needs_resamples_and_five_requests(small_study: RunFolder) -> None:
    results = read_study(small_study)
    for requests, low, expected in ((4, 1.0, False), (5, 1.0, True), (5, np.nan, False)):
        frame = results.frame.assign(requests=requests, step_low_s=low)
        assert replace(results, frame=frame).has_intervals is expected


def _drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.drop(columns=column)


def _without(record: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame[frame["record"] != record]


def _spoilt(record: str, column: str, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame.index[frame["record"] == record][0], column] = value
        return frame

    return spoil


def _lost_row(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(index=frame.index[frame["record"] == "summary"][1])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_drop("moe_p99_s"), "columns are missing: moe_p99_s"),
        (_without("pattern"), "no rows of record pattern"),
        (_without("summary"), "no rows of record summary"),
        (_spoilt("summary", "moe_s", np.nan), "moe_s must be given and finite in summary rows"),
        (_spoilt("link", "load_bytes", np.inf), "load_bytes must be given and finite in link rows"),
        (_lost_row, "summary rows under default routings"),
    ],
)
def test_damaged_results_are_an_input_error_that_names_file_and_field(
    study_copy: RunFolder, damage: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    path = study_copy.path / "results.parquet"
    write_parquet(path, damage(study_copy.results()))
    with pytest.raises(InputError) as error:
        read_study(study_copy)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_table_is_an_input_error(study_copy: RunFolder) -> None:
    path = study_copy.path / "results.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"results\.parquet"):
        read_study(study_copy)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('grid = "2x4"\n', ""),
        ('grid = "2x4"\n', 'grid = "4x4"\n'),
        ('grid = "2x4"\n', 'grid = "two"\n'),
        ('grid = "2x4"\n', "grid = \n"),
    ],
)
def test_a_config_that_does_not_fit_is_an_input_error(
    study_copy: RunFolder, old: str, new: str
) -> None:
    config = study_copy.path / "config.toml"
    config.write_text(config.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"config\.toml"):
        read_study(study_copy)


def test_a_folder_without_results_is_an_input_error(study_copy: RunFolder) -> None:
    (study_copy.path / "results.parquet").unlink()
    with pytest.raises(InputError, match=r"results\.parquet"):
        read_study(study_copy)
