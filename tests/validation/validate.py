"""Compute the max-min reference times anew with SimGrid, and compare every flow's with ours.

``make validate`` runs this: it installs Debian's python3-simgrid with apt-get if no SimGrid is
there (``SIMGRID_PYTHON`` names another Python that has it), runs ``simgrid_reference.py`` on every
case of this folder, and ends with the time that SimGrid and topomoe take for one large case.
``--speed CASE`` names that case; the default takes SimGrid minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

# This folder is a script's first place to look for modules.
from test_reference_runs import LATENCY, SIMGRID_RUNS, rebuild

from topomoe.network import completion_times

BUILD = Path(__file__).parents[2] / "build" / "validation"
REFERENCE = Path(__file__).with_name("simgrid_reference.py")
# Defined like the others, but without stored times.
MORE = ("leafspine4x8x4_dmodk_zipf", "torusplus8x4_uni", "torusplus8x4_zipf")
LARGE = "torus16x8_zipf"
TOLERANCE = 1e-9


def has_simgrid(python: str) -> bool:
    command = [python, "-c", "import simgrid"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def simgrid_python() -> str:
    """Return a Python that has SimGrid; install Debian's package where there is none."""
    python = os.environ.get("SIMGRID_PYTHON", "/usr/bin/python3")
    if shutil.which(python) and has_simgrid(python):
        return python
    if shutil.which("apt-get") is None or "SIMGRID_PYTHON" in os.environ:
        sys.exit(
            f"validate: {python} cannot import simgrid; on Debian or Ubuntu `apt-get install "
            "python3-simgrid` gives it, elsewhere name a Python that has SimGrid 3.32 or later "
            "in SIMGRID_PYTHON"
        )
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if sudo and shutil.which("sudo") is None:
        sys.exit("validate: installing python3-simgrid needs root or sudo")
    print("installing python3-simgrid", flush=True)
    for words in (["update", "-q"], ["install", "-q", "-y", "python3-simgrid"]):
        if subprocess.run([*sudo, "apt-get", *words], check=False).returncode:
            sys.exit(f"validate: apt-get {' '.join(words)} failed")
    if not has_simgrid(python):
        sys.exit(f"validate: python3-simgrid is installed, yet {python} cannot import simgrid")
    return python


def flows(case: str, latency: float) -> dict[str, NDArray[Any]]:
    """The arrays of a case: what both simulators are given."""
    topology, routing, demand = rebuild(case, latency)
    source, destination = np.nonzero(demand)
    path = routing.matrix.T.tocsr()[source * topology.num_devices + destination]
    return {
        "capacity": topology.capacity,
        "ptr": path.indptr,
        "links": path.indices,
        "size": demand[source, destination],
        "start": routing.latency[source, destination],
        "source": source,
        "destination": destination,
    }


def ours(case: dict[str, NDArray[Any]], rtol: float = 0.0) -> tuple[NDArray[np.float64], float]:
    """Completion times and CPU-seconds."""
    begin = time.process_time()
    arrays = [case[name] for name in ("capacity", "ptr", "links", "size", "start")]
    return completion_times(*arrays, rtol=rtol), time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speed", default=LARGE, metavar="CASE", help="the case that is timed")
    large = parser.parse_args().speed
    python = simgrid_python()
    runs = [(case, LATENCY if "hop_start" in name else 0.0) for case, name in SIMGRID_RUNS]
    runs += [(case, latency) for latency in (0.0, LATENCY) for case in MORE]
    if (large, 0.0) not in runs:
        runs.append((large, 0.0))
    cases = {f"{case}{' +hops' if latency else ''}": flows(case, latency) for case, latency in runs}

    BUILD.mkdir(parents=True, exist_ok=True)
    given, taken = BUILD / "cases.json", BUILD / "simgrid.json"
    lists = {name: {k: v.tolist() for k, v in case.items()} for name, case in cases.items()}
    given.write_text(json.dumps(lists), encoding="utf-8")
    begin = time.perf_counter()
    if subprocess.run([python, str(REFERENCE), str(given), str(taken)], check=False).returncode:
        sys.exit("validate: SimGrid did not finish")
    print(f"SimGrid ran {len(cases)} cases in {time.perf_counter() - begin:.0f} s\n")
    reference = json.loads(taken.read_text(encoding="utf-8"))

    ours(cases[large], rtol=1e-3)  # compiles, before anything is timed
    print(
        f"{'case':37s} {'flows':>6s} {'makespan us':>12s} {'largest relative error of a flow':>33s}"
    )
    worst = 0.0
    for name, case in cases.items():
        error = np.abs(ours(case)[0] / np.array(reference[name]["fct"]) - 1).max()
        worst = max(worst, error)
        makespan = max(reference[name]["fct"])
        print(f"{name:37s} {len(case['size']):6d} {makespan * 1e6:12.4f} {error:33.1e}")
    print(f"largest {worst:.1e} over {len(cases)} cases\n")

    fct, exact = ours(cases[large])
    fast, quick = ours(cases[large], rtol=1e-3)
    slow = reference[large]["cpu_seconds"]
    print(
        f"{large}, {len(fct)} flows, CPU-seconds on one core of this machine: SimGrid {slow:.1f} "
        f"({reference[large]['seconds']:.1f} by the clock), topomoe exact {exact:.2f} "
        f"({slow / exact:.0f} times as fast), rtol=1e-3 {quick:.2f} ({slow / quick:.0f} times, "
        f"largest error {np.abs(fast / fct - 1).max():.1e})"
    )
    if worst > TOLERANCE:
        sys.exit(f"validate: a flow is {worst:.1e} off SimGrid, more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
