"""Cost of one demand against the number of devices, 64 to 4096, beside SciPy and networkx.

Three networks with path latency and packets, on one float32 demand with bytes between all pairs:
the torus under dimension order as sums along rings, leaf-spine and fat-tree under fluid ECMP as
sums over groups. The peers take the torus without latency. SciPy multiplies a stored sparse float32
matrix of link fractions over capacities with the demand, as far as building that matrix stays
within ``MATRIX_BYTES``. networkx finds all shortest paths, one a pair, and Python adds each pair's
bytes up link by link: what a script without a simulator does for a demand.

``pytest benchmarks/bench_scale.py --benchmark-only`` measures a few sizes in this process;
``python benchmarks/bench_scale.py --out FOLDER`` measures all, each in a process of its own for its
peak memory, prints a table and draws scale.png and scale.pdf with the slope of each line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.network import bottleneck, capacity_bound
from topomoe.topologies import Topology, make, route

GRIDS = {
    64: (8, 8),
    128: (16, 8),
    256: (16, 16),
    512: (32, 16),
    1024: (32, 32),
    2048: (64, 32),
    4096: (64, 64),
}
NETWORKS = {"torus": "dimension-order", "leaf-spine": "ecmp", "fat-tree": "ecmp"}
SCIPY, NETWORKX = "torus, SciPy matrix x demand", "torus, networkx paths + Python sums"
MATRIX_BYTES = 2 * 2**30
_BYTES_AN_ENTRY = 48  # int64 row and column, float64 value, and their sorted copies
_MOST_NETWORKX = 1024  # beyond, one demand takes half a minute
_SLOPE_FROM = 256  # devices from which the slope is fitted: below, the calls themselves cost most
_WANTED = {"devices", "seconds", "build", "peak"}


def random_demand(devices: int) -> NDArray[np.float32]:
    """Return [N, N] bytes, every pair of devices with some."""
    demand = np.random.default_rng(0).random((devices, devices), dtype=np.float32) * 65536
    np.fill_diagonal(demand, 0)
    return demand


def ours(name: str, devices: int) -> Callable[[], Any]:
    """Return the call that prices one demand with path latency and store-and-forward."""
    topology = make(name, grid=GRIDS[devices])
    routing = route(topology, NETWORKS[name])
    demand = random_demand(devices)
    return lambda: bottleneck(topology, routing, demand, mtu=4096)


def scipy_product(devices: int) -> Callable[[], Any]:
    """Return the call that multiplies a demand with the torus's stored matrix."""
    from scipy.sparse import csr_array, diags_array

    topology = make("torus", grid=GRIDS[devices])
    by_time = diags_array(1 / topology.capacity) @ route(topology).matrix
    matrix = csr_array(by_time).astype(np.float32)
    demand = random_demand(devices).reshape(-1)
    return lambda: (matrix @ demand).max()


def networkx_loads(devices: int) -> Callable[[], Any]:
    """Return the call that finds the torus's paths and adds the demand up over them."""
    import networkx as nx

    topology: Topology = make("torus", grid=GRIDS[devices])
    graph = topology.graph
    demand = random_demand(devices).tolist()

    def price() -> float:
        load = dict.fromkeys(graph.edges, 0.0)
        for source, paths in nx.all_pairs_shortest_path(graph):
            row = demand[source]
            for destination, path in paths.items():
                for link in pairwise(path):
                    load[link] += row[destination]
        return max(bytes_ / graph.edges[link]["capacity"] for link, bytes_ in load.items())

    return price


def matrix_fits(devices: int) -> bool:
    """Whether building the torus's matrix, one entry a pair and hop, keeps to MATRIX_BYTES."""
    rows, columns = GRIDS[devices]
    return devices**2 * (rows + columns) / 4 * _BYTES_AN_ENTRY <= MATRIX_BYTES


def cases() -> list[tuple[str, int]]:
    """Return every (line, devices) of the figure."""
    found = [(name, devices) for name in NETWORKS for devices in GRIDS]
    found += [(SCIPY, devices) for devices in GRIDS if matrix_fits(devices)]
    return found + [(NETWORKX, devices) for devices in GRIDS if devices <= _MOST_NETWORKX]


def prepare(line: str, devices: int) -> Callable[[], Any]:
    """Build what a line needs once; return what it does for each demand."""
    if line == SCIPY:
        return scipy_product(devices)
    return networkx_loads(devices) if line == NETWORKX else ours(line, devices)


def measure(line: str, devices: int) -> dict[str, float]:
    """Return devices, seconds a demand (best of some), seconds to build and peak bytes."""
    start = time.perf_counter()
    call = prepare(line, devices)
    if line != NETWORKX:
        call()  # compiled, offsets found: what every further demand reuses
    build = time.perf_counter() - start
    spent = []
    while len(spent) < 3 or (sum(spent) < 0.5 and len(spent) < 200):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
        if sum(spent) > 20:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, else in KiB
    return {"devices": devices, "seconds": min(spent), "build": build, "peak": peak * scale}


def measure_apart(line: str, devices: int) -> dict[str, float]:
    """Measure in a fresh process of one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--measure", line, str(devices)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **threads}
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert set(found) == _WANTED
    return found


def slope(points: list[dict[str, float]]) -> float:
    """Return the exponent of N that the largest sizes' times follow, by least squares of logs."""
    large = [p for p in points if p["devices"] >= _SLOPE_FROM]
    used = large if len(large) >= 3 else points[-3:]
    logs = np.log([[p["devices"], p["seconds"]] for p in used])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def draw(results: dict[str, list[dict[str, float]]], folder: Path) -> list[Path]:
    """Draw seconds a demand against devices, both on log scales."""
    from topomoe.plots.style import BLACK, GREY, look, new_figure, save, topology_styles

    with look():
        figure = new_figure(4.2, 7.5)
        axis = figure.subplots()
        styles = topology_styles(tuple(NETWORKS))
        styles[SCIPY] = {"color": BLACK, "marker": "x", "linestyle": "--"}
        styles[NETWORKX] = {"color": GREY, "marker": "+", "linestyle": "--"}
        for line, points in results.items():
            policy = f", {NETWORKS[line]}" if line in NETWORKS else ""
            label = f"{line}{policy}: $N^{{{slope(points):.1f}}}$"
            x, y = ([p[key] for p in points] for key in ("devices", "seconds"))
            axis.plot(x, y, label=label, markersize=5, **styles[line])
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(list(GRIDS), [str(devices) for devices in GRIDS])
        axis.set_xlabel("devices, N")
        axis.set_ylabel("seconds for one demand")
        axis.grid(True)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(figure, folder, "scale")


def main() -> None:
    """Measure, print and draw; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Cost of one demand against devices.")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder of the figure")
    parser.add_argument("--measure", nargs=2, metavar=("LINE", "DEVICES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        line, devices = arguments.measure
        print(json.dumps(measure(line, int(devices))))
        return
    print(f"{'':36}{'N':>6}{'s a demand':>12}{'s to build':>12}{'peak GB':>9}")
    results: dict[str, list[dict[str, float]]] = {}
    for line, devices in cases():
        found = measure_apart(line, devices)
        results.setdefault(line, []).append(found)
        times = f"{found['seconds']:12.6f}{found['build']:12.2f}"
        print(f"{line:36}{devices:6}{times}{found['peak'] / 1e9:9.2f}", flush=True)
    print(*draw(results, arguments.out), sep="\n")


@pytest.mark.parametrize("devices", [64, 1024, 4096])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_demand(benchmark: BenchmarkFixture, name: str, devices: int) -> None:
    """One demand, routed and compiled beforehand, with path latency and packets."""
    call = ours(name, devices)
    assert call() > 0
    benchmark.pedantic(call, rounds=5, warmup_rounds=1)
    benchmark.extra_info["devices"] = devices


@pytest.mark.parametrize(("line", "devices"), [(SCIPY, 64), (SCIPY, 512), (NETWORKX, 64)])
def test_peers(benchmark: BenchmarkFixture, line: str, devices: int) -> None:
    """The torus without latency; SciPy's matrix is built beforehand."""
    call = prepare(line, devices)
    topology = make("torus", grid=GRIDS[devices], latency=0.0)
    if line == SCIPY:
        exact = bottleneck(topology, route(topology), random_demand(devices))
        assert call() == pytest.approx(exact, rel=1e-4)
    else:  # other shortest paths, one a pair
        assert call() >= capacity_bound(topology, random_demand(devices))
    benchmark.pedantic(call, rounds=3)
    benchmark.extra_info["devices"] = devices


if __name__ == "__main__":
    main()
