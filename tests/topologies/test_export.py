"""Topologies written for other tools say what the arrays say."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest

from topomoe.network import bottleneck
from topomoe.topologies import (
    Failures,
    InputError,
    Topology,
    export,
    fail,
    from_links,
    from_networkx,
    make,
    names,
    route,
)
from topomoe.topologies.exporters import formats

GRID = (4, 4)


def small(name: str, **options: object) -> Topology:
    if name == "rails":
        options = {"node_size": 4, **options}
    return make(name, GRID, **options)


def only(files: dict[str, str], ending: str) -> str:
    assert [name.rpartition(".")[2] for name in files] == [ending]
    return next(iter(files.values()))


@pytest.mark.parametrize("name", names())
def test_graphml_reads_back_the_same_links(name: str) -> None:
    topology = small(name)
    text = only(export(topology, "graphml"), "graphml")
    graph = nx.read_graphml(io.BytesIO(text.encode()))
    back = from_networkx(graph, bandwidth=1.0)
    order = np.lexsort(topology.links.T[::-1])
    assert np.array_equal(back.links, topology.links[order])
    assert np.array_equal(back.capacity, topology.capacity[order])
    assert np.array_equal(back.latency, topology.latency[order])
    assert np.array_equal(back.optical, topology.optical[order])
    assert back.num_devices == topology.num_devices
    assert graph.graph["capacity_unit"] == "bytes/s"
    assert (graph.graph["rows"], graph.graph["columns"]) == GRID


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("torus", "dimension-order"),
        ("leaf-spine", "d-mod-k"),
        ("fat-tree", "shortest"),
        ("optical", "ecmp-hash"),
        ("rails", "pxn"),
        ("mesh", None),
        ("leaf-spine", None),
    ],
)
def test_simgrid_routes_are_the_routings(name: str, policy: str | None) -> None:
    topology = small(name, latency="700ns")
    routing = None if policy is None else route(topology, policy)
    text = only(export(topology, "simgrid", routing=routing), "xml")
    assert text.startswith("<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM ")
    zone = ElementTree.fromstring(text).find("zone")
    assert zone is not None
    assert zone.get("routing") == "Full"
    assert [h.get("id") for h in zone.findall("host")] == [str(d) for d in range(16)]
    links = {link.get("id"): link for link in zone.findall("link")}
    assert len(links) == topology.num_links
    for (tail, head), capacity in zip(topology.links, topology.capacity, strict=True):
        link = links[f"{tail}-{head}"]
        assert float(str(link.get("bandwidth")).removesuffix("Bps")) == capacity
        assert float(str(link.get("latency")).removesuffix("s")) == topology.latency[0]
    used = routing or route(topology, "dimension-order" if name == "mesh" else "shortest")
    matrix = used.matrix.tocsc()
    routes = zone.findall("route")
    assert len(routes) == 16 * 15
    for element in routes:
        source, destination = int(str(element.get("src"))), int(str(element.get("dst")))
        path = [str(hop.get("id")) for hop in element.findall("link_ctn")]
        ends = [tuple(int(node) for node in hop.split("-")) for hop in path]
        assert ends[0][0] == source
        assert ends[-1][1] == destination
        assert all(a[1] == b[0] for a, b in pairwise(ends))
        pair = source * 16 + destination
        ids = matrix.indices[matrix.indptr[pair] : matrix.indptr[pair + 1]]
        assert sorted(path) == sorted(f"{a}-{b}" for a, b in topology.links[ids])


def test_simgrid_refuses_a_routing_that_splits() -> None:
    topology = small("leaf-spine")
    with pytest.raises(InputError, match="one path a pair, ecmp on leaf-spine splits"):
        export(topology, "simgrid", routing=route(topology, "ecmp"))


def test_simgrid_leaves_out_failed_devices_routes() -> None:
    broken = fail(small("torus"), Failures(devices=(5,)))
    text = only(export(broken, "simgrid"), "xml")
    assert text.count("<route ") == 15 * 14
    assert 'src="5"' not in text


def test_htsim_connections_are_the_demand() -> None:
    demand = np.arange(256.0).reshape(16, 16) / 2
    files = export(small("torus"), "htsim", demand=demand)
    lines = only(files, "cm").splitlines()
    assert lines[0] == "Nodes 16"
    assert lines[1] == f"Connections {len(lines) - 2}"
    found = np.zeros((16, 16))
    for number, line in enumerate(lines[2:], start=1):
        match = re.fullmatch(r"(\d+)->(\d+) id (\d+) start 0 size (\d+)", line)
        assert match is not None
        source, destination, flow, size = (int(group) for group in match.groups())
        assert flow == number
        found[source, destination] = size
    assert np.array_equal(found, np.ceil(demand) * (1 - np.eye(16)))


def tiers(text: str) -> dict[str, dict[str, int]]:
    """The numbers of a .topo by tier, the header's under ``""``."""
    found: dict[str, dict[str, int]] = {"": {}}
    at = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        key, value = line.split()
        if key == "Tier":
            at = value
            found[at] = {}
        else:
            found[at][key] = int(value)
    return found


def test_htsim_leaf_spine_counts_come_out_as_its_loader_counts() -> None:
    topology = make("leaf-spine", (8, 4), "100Gbps", "500ns", spines=2)
    parts = tiers(only(export(topology, "htsim"), "topo"))
    assert parts[""] == {"Nodes": 32, "Tiers": 2, "Podsize": 32}
    leaf, spine = parts["0"], parts["1"]
    assert (leaf["Radix_Down"], leaf["Radix_Up"], spine["Radix_Down"]) == (4, 2, 8)
    assert (leaf["Downlink_speed_Gbps"], leaf["Downlink_Latency_ns"]) == (100, 500)
    # Uplinks and spines as fat_tree_topology.cpp finds them.
    uplinks = (
        32 * leaf["Downlink_speed_Gbps"] / (spine["Downlink_speed_Gbps"] * leaf["Oversubscribed"])
    )
    assert uplinks == 8 * leaf["Radix_Up"]
    assert uplinks / spine["Radix_Down"] == 2


def test_htsim_fat_tree_counts_come_out_as_its_loader_counts() -> None:
    topology = make("fat-tree", (8, 4), "200Gbps")  # k = 6: pods of 9 do not fill 32
    with pytest.raises(InputError, match="full pods of 9 devices, fat-tree has 32"):
        export(topology, "htsim")
    topology = make("fat-tree", (6, 6), "200Gbps")
    parts = tiers(only(export(topology, "htsim"), "topo"))
    assert parts[""] == {"Nodes": 36, "Tiers": 3, "Podsize": 9}
    pods = 36 // 9
    edge = 36 // parts["0"]["Radix_Down"]
    aggregation = edge * parts["0"]["Radix_Up"] // parts["1"]["Radix_Down"]
    core = aggregation * parts["1"]["Radix_Up"] // parts["2"]["Radix_Down"]
    assert topology.num_nodes == 36 + edge + aggregation + core
    assert parts["2"]["Radix_Down"] == pods


@pytest.mark.parametrize(
    ("topology", "shape", "counts"),
    [
        (small("torus"), ["Ring", "Ring"], [4, 4]),
        (make("torus", (8, 2)), ["FullyConnected", "Ring"], [2, 8]),
        (make("torus", (8, 1)), ["Ring"], [8]),
        (small("leaf-spine"), ["Switch", "Switch"], [4, 4]),
        (make("leaf-spine", (1, 8)), ["Switch"], [8]),
        (small("rails"), ["Switch", "Switch"], [4, 4]),
        (small("hypercube"), ["FullyConnected"] * 4, [2] * 4),
        (
            make("torus-3d", (8, 3), dimensions="4x3x2"),
            ["FullyConnected", "Ring", "Ring"],
            [2, 3, 4],
        ),
        (
            from_links([(d, 4) for d in range(4)] + [(4, d) for d in range(4)], 1e9, 0, 4),
            ["Switch"],
            [4],
        ),
        (
            from_links([(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)], 1e9),
            ["FullyConnected"],
            [3],
        ),
    ],
)
def test_astra_sim_dimensions(topology: Topology, shape: list[str], counts: list[int]) -> None:
    text = only(export(topology, "astra-sim"), "yml")
    found = dict(re.findall(r"^(\w+): \[ (.*) \]", text, re.MULTILINE))
    assert found["topology"].split(", ") == shape
    assert [int(n) for n in found["npus_count"].split(", ")] == counts
    assert np.prod(counts) == topology.num_devices


def test_astra_sim_bandwidth_is_in_its_own_gigabytes() -> None:
    text = only(export(make("torus", GRID, "400Gbps", "250ns"), "astra-sim"), "yml")
    found = dict(re.findall(r"^(\w+): \[ (.*) \]", text, re.MULTILINE))
    assert float(found["bandwidth"].split(", ")[0]) * 2**30 == 50e9
    assert float(found["latency"].split(", ")[1]) == 250.0


@pytest.mark.parametrize(
    ("format", "topology"),
    [
        ("astra-sim", small("mesh")),
        ("astra-sim", small("twisted-torus")),
        ("astra-sim", fail(small("torus"), Failures(links=("0-1",)))),
        ("astra-sim", fail(small("rails"), Failures(links=("0-16",)))),
        ("htsim", small("torus")),
        ("htsim", fail(small("leaf-spine"), Failures(links=("16-20",)))),
    ],
)
def test_a_shape_without_a_counterpart_is_said(format: str, topology: Topology) -> None:
    with pytest.raises(InputError, match=topology.name):
        export(topology, format)


def test_what_a_format_cannot_hold_is_said() -> None:
    torus, other = small("torus"), small("torus")
    with pytest.raises(InputError, match="unknown export format 'graphm'; did you mean 'graphml'"):
        export(torus, "graphm")
    with pytest.raises(InputError, match="another topology"):
        export(torus, "simgrid", routing=route(other))
    with pytest.raises(InputError, match="demand must be"):
        export(torus, "htsim", demand=np.ones((4, 4)))
    with pytest.raises(InputError, match="at most 2147483647 bytes a connection"):
        export(torus, "htsim", demand=np.full((16, 16), 3e9))
    with pytest.raises(InputError, match="whole Gbit/s and whole ns"):
        export(make("leaf-spine", GRID, latency=0), "htsim")
    with pytest.raises(InputError, match="whole oversubscription"):
        export(make("leaf-spine", GRID, spines=3), "htsim")
    assert formats() == ("simgrid", "htsim", "astra-sim", "graphml")


# All devices send 64 KiB to all others; run by whatever Python has SimGrid's own package.
ALL_TO_ALL = """
import sys
from simgrid import Actor, Comm, Engine, Mailbox

engine = Engine([sys.argv[0], "--log=root.thresh:error", *("--cfg=" + c for c in sys.argv[2:])])
engine.load_platform(sys.argv[1])
hosts = {host.name: host for host in engine.all_hosts}

def send(name):
    Comm.wait_all([Mailbox.by_name(name + ">" + o).put_async(0, 65536) for o in hosts])

for name, host in hosts.items():
    Actor.create("send" + name, host, send, name)
    for other in hosts:
        Actor.create("take", host, lambda box: Mailbox.by_name(box).get(), other + ">" + name)
engine.run()
print("makespan", engine.clock)
"""


@pytest.mark.parametrize(
    ("name", "policy"), [("torus", "dimension-order"), ("leaf-spine", "d-mod-k")]
)
def test_simgrid_itself_takes_as_long_as_the_bottleneck(
    name: str, policy: str, tmp_path: Path
) -> None:
    pythons = [sys.executable, shutil.which("python3", path="/usr/bin") or sys.executable]
    has = [subprocess.run([p, "-c", "import simgrid"], capture_output=True) for p in pythons]
    found = [p for p, run in zip(pythons, has, strict=True) if run.returncode == 0]
    if not found:
        pytest.skip("no Python here has the package simgrid")
    topology = make(name, GRID, "100Gbps", 0)
    routing = route(topology, policy)
    text = only(export(topology, "simgrid", routing=routing), "xml")
    platform, script = tmp_path / "platform.xml", tmp_path / "all_to_all.py"
    platform.write_text(text)
    script.write_text(ALL_TO_ALL)
    settings = re.findall(r"network/[\w-]+:\w+", text.split("-->")[0])
    run = subprocess.run(
        [found[0], script, platform, *settings], capture_output=True, text=True, check=True
    )
    makespan = float(run.stdout.split("makespan")[1])
    demand = np.full((16, 16), 65536.0)
    assert makespan == pytest.approx(bottleneck(topology, routing, demand), rel=1e-6)
