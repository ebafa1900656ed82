"""Bills of materials: what is counted, what it costs, and prices that are refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies import (
    InputError,
    Topology,
    bill_of_materials,
    costs,
    from_links,
    load_prices,
    make,
    names,
)
from topomoe.topologies.prices import ITEMS, SHIPPED, Price

G400 = 50e9  # bytes/s
ONES = {item: Price(1.0, 0.5, "Gbps", "test") for item in ITEMS}
PIECES = {item: Price(1.0, 0.5, "port", "test") for item in ITEMS}


def counts(topology: Topology, per: str = "Gbps") -> dict[str, float]:
    prices = ONES if per == "Gbps" else PIECES
    return {row.item: row.count for row in bill_of_materials(topology, prices).rows}


# What is counted.


def test_a_leaf_spine_has_copper_below_and_optics_above() -> None:
    """Of 32 devices and 4 x 8 leaf-spine links of 400 Gbit/s."""
    topology = make("leaf-spine", (4, 8), bandwidth=G400)
    assert counts(topology, "port") == {
        "nic_port": 32,
        "switch_port": 32 + 2 * 32,
        "transceiver": 2 * 32,
        "fibre": 32,
        "copper_cable": 32,
    }
    by_rate = counts(topology)
    assert by_rate == pytest.approx({k: 400 * v for k, v in counts(topology, "port").items()})


def test_a_full_fat_tree_has_five_switch_ports_a_device() -> None:
    found = counts(make("fat-tree", (4, 4), bandwidth=G400), "port")
    assert found["switch_port"] == 5 * 16
    assert found["nic_port"] == found["copper_cable"] == 16
    assert found["fibre"] == 2 * 16
    assert found["transceiver"] == 4 * 16


def test_a_torus_is_made_of_nic_ports_and_copper() -> None:
    found = counts(make("torus", (4, 4), bandwidth=G400), "port")
    assert found == {"nic_port": 64, "copper_cable": 32}


def test_rails_have_optics_outside_a_node_and_scale_up_ports_inside() -> None:
    """32 devices in 4 nodes, 8 rails, 4 spines; the accelerators' own ends are not counted."""
    found = counts(make("rails", (4, 8), bandwidth=G400, node_bandwidth=450e9))
    assert found == pytest.approx(
        {
            "nic_port": 400 * 32,
            "switch_port": 400 * (32 + 2 * 32),
            "transceiver": 400 * (2 * 32 + 2 * 32),
            "fibre": 400 * (32 + 32),
            "scale_up_port": 3600 * 32,
        }
    )
    rail_only = counts(make("rails", (4, 8), bandwidth=G400, spines=0))
    assert rail_only["switch_port"] == pytest.approx(400 * 32)


def test_a_dragonfly_has_copper_inside_its_groups() -> None:
    """Nine groups of four routers: 6 links inside each, 36 between them, 72 devices."""
    found = counts(make("dragonfly", (9, 8), bandwidth=G400), "port")
    assert found["fibre"] == 36
    assert found["copper_cable"] == 72 + 9 * 6
    assert found["switch_port"] == 72 + 2 * (9 * 6 + 36)


def test_a_hamming_mesh_has_traces_on_its_boards() -> None:
    found = counts(make("hamming-mesh", (4, 4), bandwidth=G400), "port")
    assert found["board_trace"] == 16
    assert found["nic_port"] == 4 * 16
    assert found["switch_port"] == found["fibre"] == 2 * 16


@pytest.mark.parametrize("lit", [[(0, 1)], [(0, 1), (1, 0)], [(i, (i + 1) % 8) for i in range(8)]])
def test_an_optical_fabric_is_billed_by_its_ports_lit_or_dark(lit: list[tuple[int, int]]) -> None:
    topology = make("optical", (2, 4), bandwidth=G400, circuits=lit, degree=3, base="leaf-spine")
    base = counts(make("leaf-spine", (2, 4), bandwidth=G400), "port")
    found = counts(topology, "port")
    assert found["ocs_port"] == 8 * 3
    for item, more in (("nic_port", 24), ("fibre", 24), ("transceiver", 24), ("switch_port", 0)):
        assert found[item] == base[item] + more
    by_rate = counts(topology)
    assert by_rate["ocs_port"] == pytest.approx(400 * 24)


def test_a_circuit_beside_a_link_of_the_base_leaves_the_base_as_it_is() -> None:
    alone = counts(make("torus", (2, 4), bandwidth=G400))
    lit = [(0, 1), (1, 2), (1, 2), (2, 1)]
    topology = make("optical", (2, 4), bandwidth=G400, circuits=lit, degree=2, base="torus")
    found = counts(topology)
    assert found["copper_cable"] == pytest.approx(alone["copper_cable"])
    assert found["nic_port"] == pytest.approx(alone["nic_port"] + 400 * 16)


def test_optical_links_of_a_network_from_outside_are_circuits() -> None:
    """Two devices under a switch, one circuit each way between them and one to the switch."""
    topology = from_links([(0, 2), (2, 0), (1, 2), (2, 1), (0, 1), (1, 0)], G400, 1e-6, devices=2)
    optical = (topology.links < 2).all(axis=1)
    found = counts(replace(topology, optical=optical), "port")
    assert found["ocs_port"] == 2
    assert found["nic_port"] == 2 + 2
    assert found["copper_cable"] == 2


def test_a_cable_is_as_fast_as_its_faster_direction() -> None:
    topology = from_links([(0, 1), (1, 0)], [G400, G400 / 4], 0.0, devices=2)
    assert counts(topology) == pytest.approx({"nic_port": 800, "copper_cable": 400})


# What it costs.


@pytest.mark.parametrize("name", names())
def test_a_bill_is_the_sum_of_its_rows(name: str) -> None:
    topology = make(name, (4, 4))
    bill = bill_of_materials(topology)
    assert bill.dollars == pytest.approx(sum(r.count * r.unit_dollars for r in bill.rows))
    assert bill.watts == pytest.approx(sum(r.count * r.unit_watts for r in bill.rows))
    assert all(row.count > 0 for row in bill.rows)
    found = costs(topology)
    assert found["dollars"] == bill.dollars
    assert found["dollars_per_device"] * 16 == pytest.approx(bill.dollars)
    assert found["watts_per_device"] * 16 == pytest.approx(bill.watts)


@settings(deadline=None, max_examples=30)
@given(factor=st.floats(1e-2, 1e2))
def test_what_is_priced_by_rate_is_linear_in_bandwidth(factor: float) -> None:
    for name in ("leaf-spine", "torus", "jellyfish", "dragonfly", "hamming-mesh"):
        one, other = (costs(make(name, (4, 4), bandwidth=b)) for b in (G400, factor * G400))
        assert other["dollars"] == pytest.approx(factor * one["dollars"])
        assert other["watts"] == pytest.approx(factor * one["watts"])


def test_an_ocs_port_costs_the_same_at_any_rate() -> None:
    slow, fast = (make("optical", (4, 4), bandwidth=b, base=None) for b in (G400, 4 * G400))
    rows = [{r.item: r for r in bill_of_materials(t).rows} for t in (slow, fast)]
    assert rows[0]["ocs_port"].dollars == rows[1]["ocs_port"].dollars > 0
    assert rows[1]["transceiver"].dollars == pytest.approx(4 * rows[0]["transceiver"].dollars)


def test_relabelled_devices_cost_the_same() -> None:
    topology = make("torus", (4, 4))
    order = np.random.default_rng(0).permutation(16)
    again = from_links(order[topology.links], topology.capacity, topology.latency, devices=16)
    assert costs(again) == pytest.approx(costs(topology))


def test_fewer_spines_cost_less() -> None:
    dollars = [costs(make("rails", (4, 8), spines=spines))["dollars"] for spines in (0, 1, 2, 4)]
    assert dollars == sorted(dollars)
    assert len(set(dollars)) == 4


# Prices.


def test_every_shipped_price_names_its_source() -> None:
    prices = load_prices()
    assert tuple(prices) == ITEMS
    assert all(len(price.source) > 20 for price in prices.values())


def test_a_file_of_ones_own_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SHIPPED.read_text().replace("dollars = 3.5", "dollars = 7.0"))
    torus = make("torus", (4, 4))
    ports = next(r for r in bill_of_materials(torus, str(path)).rows if r.item == "nic_port")
    assert ports.unit_dollars == 7.0
    shipped = bill_of_materials(torus)
    assert bill_of_materials(torus, str(path)).dollars == pytest.approx(
        shipped.dollars + 3.5 * ports.count
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dollars = 3.5", "dollars = ", r"not valid TOML \(.*line 6"),
        ("[fibre]", "[fiber]", "unknown item 'fiber'; did you mean 'fibre'"),
        ("dollars = 3.5", "", r"\[nic_port\] dollars is missing"),
        ("dollars = 3.5", "dollars = -3.5", r"\[nic_port\] dollars must be .* >= 0, got -3.5"),
        ("dollars = 3.5", "dollars = nan", r"\[nic_port\] dollars must be finite .* got nan"),
        ("dollars = 3.5", "dollars = inf", r"\[nic_port\] dollars must be finite .* got inf"),
        ("dollars = 3.5", "dollars = true", r"\[nic_port\] dollars must be finite .* got True"),
        ("dollars = 3.5", "dollars = '3'", r"\[nic_port\] dollars must be finite .* got '3'"),
        ("watts = 0.06", "watts = -1", r"\[nic_port\] watts must be finite and >= 0, got -1"),
        ("watts = 0.06", "watt = 0.06", r"unknown key of \[nic_port\] 'watt'; did you mean 'wat"),
        ('1.0\nper = "port"', '1\nper = "ports"', r"unknown per of \[ocs_port\] 'ports'; did you"),
    ],
)
def test_bad_prices_are_refused_in_one_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "prices.toml"
    text = SHIPPED.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=f"^{path}: {message}") as caught:
        load_prices(path)
    assert "\n" not in str(caught.value)


def test_a_missing_item_or_source_and_an_absent_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    items = tomllib.loads(SHIPPED.read_text())
    head = SHIPPED.read_text().split("[scale_up_port]")[0]
    assert set(tomllib.loads(head)) == set(items) - {"scale_up_port"}
    path.write_text(head)
    with pytest.raises(InputError, match=r"prices.toml: \[scale_up_port\] is missing"):
        load_prices(path)
    path.write_text("nic_port = 3\n")
    with pytest.raises(InputError, match=r"prices.toml: \[nic_port\] must be a table, got 3"):
        load_prices(path)
    path.write_text('[nic_port]\ndollars = 1\nwatts = 1\nper = "Gbps"\nsource = " "\n')
    with pytest.raises(
        InputError, match=r"\[nic_port\] source must say where the figures are from"
    ):
        load_prices(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"prices.toml: not valid TOML"):
        load_prices(path)
    with pytest.raises(InputError, match=r"none.toml: cannot read the prices \(No such file"):
        load_prices(tmp_path / "none.toml")
