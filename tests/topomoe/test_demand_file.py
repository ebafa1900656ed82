from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topomoe.demand_file import make_demand
from topomoe.topologies.errors import InputError

GRID = (2, 3)


def test_zipf_is_that_of_the_stored_reference_runs(reference_runs: Path) -> None:
    with np.load(reference_runs / "torus8x4_zipf.npz", allow_pickle=False) as file:
        assert np.array_equal(make_demand("zipf", (8, 4)), file["demand"])


def test_every_device_sends_the_same_bytes_under_zipf() -> None:
    demand = make_demand("zipf", (4, 4), bytes_per_pair=1e6)
    assert demand.sum(axis=1) == pytest.approx(np.full(16, 15e6), rel=1e-5)
    assert not np.diagonal(demand).any()


def test_patterns_keep_the_total() -> None:
    for name in ("uniform", "hotspot", "skewed"):
        demand = make_demand(name, (4, 4), bytes_per_pair=100.0)
        assert demand.sum() == pytest.approx(100.0 * 16 * 15)


def test_a_demand_reads_back_from_every_kind_of_file(tmp_path: Path) -> None:
    demand = np.random.default_rng(0).integers(0, 99, (6, 6)).astype(np.float64)
    np.save(tmp_path / "a.npy", demand)
    np.savez(tmp_path / "b.npz", demand=demand)
    lines = [f"{s},{d},{demand[s, d]}" for s in range(6) for d in range(6)]
    (tmp_path / "c.csv").write_text("source,destination,bytes\n# all pairs\n" + "\n".join(lines))
    for name in ("a.npy", "b.npz", "c.csv"):
        assert np.array_equal(make_demand(str(tmp_path / name), GRID), demand)


def test_lines_of_one_pair_add_up(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("0,1,5\n0,1,7\n")
    assert make_demand(str(tmp_path / "d.csv"), GRID)[0, 1] == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,9,5\n", "line 1: device must be in 0..5, got 9"),
        ("0,1,5\n-1,0,5\n", "line 2: device must be in 0..5, got -1"),
        ("0,1\n", "line 1 must be 'source,destination,bytes'"),
        ("0,1,x\n", "line 1 must be 'source,destination,bytes'"),
        ("0,1,nan\n", "line 1: bytes must be finite and >= 0"),
        ("0,1,-4\n", "line 1: bytes must be finite and >= 0"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        make_demand(str(path), GRID)
    assert str(path) in str(error.value)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    cases = {
        "shape.npy": np.zeros((5, 5)),
        "sign.npy": -np.ones((6, 6)),
        "nan.npy": np.full((6, 6), np.nan),
        "text.npy": np.full((6, 6), "a"),
        "huge.npy": np.full((6, 6), 1e300),
        "none.npy": np.eye(6),
    }
    for name, array in cases.items():
        np.save(tmp_path / name, array)
        with pytest.raises(InputError, match=name):
            make_demand(str(tmp_path / name), GRID)
    np.savez(tmp_path / "key.npz", other=np.zeros((6, 6)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "key.npz").read_bytes()[:40])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "sign.npy").read_bytes()[:40])
    np.save(tmp_path / "object.npy", np.full((6, 6), None), allow_pickle=True)
    for name in ("key.npz", "cut.npz", "cut.npy", "object.npy", "missing.npy", "missing.csv"):
        with pytest.raises(InputError, match=name):
            make_demand(str(tmp_path / name), GRID)


def test_an_unknown_demand_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="zipf"):
        make_demand("zipff", GRID)
