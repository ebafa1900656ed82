"""Predicted beside published times of DeepEP's low-latency all-to-alls (docs/hardware.md)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from topomoe import hardware_check
from topomoe.hardware_check import COLLECTIVES, FITTED_ON, NIC, Measured, fit, fits, predictions
from topomoe.topologies import InputError

MEASURED = hardware_check.read_measured(Path(__file__).with_name("deepep_h800.csv"))
PAGE = Path(__file__).parents[2] / "docs" / "hardware.md"
SHARED, OWN = True, False


def table(shared: bool) -> list[str]:
    """The rows of the page: group, then published, predicted and error of each collective."""
    found = {(p.measured.devices, p.measured.collective): p for p in predictions(MEASURED, shared)}
    rows = []
    for devices in sorted({devices for devices, _ in found}):
        cells = [f"{devices}{' (fitted)' if devices in FITTED_ON else ''}"]
        for collective in COLLECTIVES:
            p = found[devices, collective]
            cells += [
                f"{p.measured.seconds * 1e6:.0f}",
                f"{p.seconds * 1e6:.0f}",
                f"{100 * p.error:+.1f} %",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def report() -> str:
    """Both fits and their tables, as the page has them."""
    lines = []
    for shared in (SHARED, OWN):
        found = fits(MEASURED, shared)
        for collective in COLLECTIVES[:1] if shared else COLLECTIVES:
            of = "both collectives" if shared else collective
            chosen = found[collective]
            lines.append(
                f"{of}: overhead {chosen.overhead * 1e6:.1f} us, "
                f"NIC {chosen.nic / 1e9:.1f} GB/s ({100 * chosen.efficiency:.0f} % of 400 Gbit/s)"
            )
        lines += ["", *table(shared), ""]
    return "\n".join(lines)


def largest(shared: bool, groups: set[int], collective: str | None = None) -> float:
    return max(
        abs(p.error)
        for p in predictions(MEASURED, shared)
        if p.measured.devices in groups and collective in (None, p.measured.collective)
    )


def test_two_parameters_for_both_collectives_predict_the_rest_within_the_stated_error() -> None:
    assert largest(SHARED, {32, 256}) < 0.05
    assert largest(SHARED, {8}) < 0.055
    assert largest(SHARED, {128}, "dispatch") < 0.025
    assert largest(SHARED, {128}, "combine") < 0.105
    assert largest(SHARED, {16, 64}) < 0.03  # four numbers by two parameters


def test_two_parameters_a_collective_predict_the_rest_within_the_stated_error() -> None:
    assert largest(OWN, {16, 64}) < 1e-9
    assert largest(OWN, {32}) < 0.01
    assert largest(OWN, {128, 256}) < 0.095
    assert largest(OWN, {8}) < 0.14


def test_the_fitted_nic_is_the_nominal_one() -> None:
    chosen = fits(MEASURED, SHARED)["dispatch"]
    assert chosen.nic == pytest.approx(NIC, rel=0.02)
    assert 20e-6 < chosen.overhead < 50e-6


def test_the_page_has_the_numbers_that_come_out() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for line in report().splitlines():
        assert line in text, line


def test_a_fit_finds_the_parameters_that_made_the_times() -> None:
    made = [
        Measured(d, c, 20e-6 + hardware_check.transfer(d, c, 0.8 * NIC))
        for d in (16, 64)
        for c in COLLECTIVES
    ]
    found = fit(made)
    assert found.overhead == pytest.approx(20e-6, rel=1e-9)
    assert found.efficiency == pytest.approx(0.8, rel=1e-9)


def test_every_token_sends_a_copy_an_expert() -> None:
    demand = hardware_check.demands(16, "dispatch", draws=1)[0]
    assert np.trace(demand) == 0
    copies = demand.sum() / (7168 + 4 * 56)
    # Of 16 x 128 x 8 copies, one in 16 stays at home.
    assert copies == pytest.approx(16 * 128 * 8 * 15 / 16, rel=0.02)
    back = hardware_check.demands(16, "combine", draws=1)[0]
    assert np.array_equal(back, demand.T / 7392 * 14336)


def test_direct_traffic_stays_off_other_devices_and_keeps_to_its_own_nic() -> None:
    from topomoe.topologies import make

    rails = make("rails", (2, 8), node_size=8)
    demand = np.zeros((1, 16, 16))
    demand[0, 0, 9], demand[0, 3, 5] = 1.0, 2.0
    load = hardware_check.direct(rails).link_load(demand)[0]
    used = {(a, b): x for (a, b), x in zip(rails.links.tolist(), load, strict=True) if x}
    assert used[0, 18] == 1.0  # its own rail switch, then a spine, then the other's
    assert used[19, 9] == 1.0
    assert (used[3, 16], used[16, 5]) == (2.0, 2.0)
    assert not any(a < 16 and a not in (0, 3) for a, _ in used)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (MEASURED[1:2], "needs two rows"),
        (MEASURED[:2], "more than 8 devices"),
        ([Measured(16, "dispatch", 2e-4), Measured(64, "dispatch", 1e-4)], "do not grow"),
    ],
)
def test_rows_that_determine_nothing_are_refused(rows: list[Measured], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(rows)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("devices,collective\n8,dispatch\n")
    with pytest.raises(InputError, match=re.escape(str(path))):
        hardware_check.read_measured(path)


if __name__ == "__main__":
    print(report())
