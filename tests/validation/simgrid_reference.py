"""Max-min fair completion times by SimGrid; run by the Python that has the simgrid module.

``python3 simgrid_reference.py cases.json times.json``: for each case its flows' completion times in
seconds, and how long SimGrid took from the built platform on, by the clock and by the processor.
The settings leave plain max-min: no TCP window, no factors, no weight of latency, no traffic of
acknowledgements.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS = (
    "network/model:CM02",
    "network/TCP-gamma:0",
    "network/bandwidth-factor:1",
    "network/latency-factor:1",
    "network/weight-S:0",
    "network/crosstraffic:0",
    "maxmin/precision:1e-9",
    "surf/precision:1e-12",
)


def simulate(case: dict[str, Any]) -> dict[str, Any]:
    """Return ``fct``, ``seconds``, ``cpu_seconds``; a process holds one SimGrid engine only."""
    import simgrid

    words = ["simgrid", "--log=root.thres:warning", *(f"--cfg={setting}" for setting in SETTINGS)]
    engine = simgrid.Engine(words)
    zone = simgrid.NetZone.create_full_zone("network")
    links = []
    for i, capacity in enumerate(case["capacity"]):
        links.append(zone.create_link(f"link{i}", capacity).set_latency(0).seal())
    count = 1 + max(max(case["source"]), max(case["destination"]))
    hosts = [zone.create_host(f"host{i}", 1e9).seal() for i in range(count)]
    ends = list(zip(case["source"], case["destination"], strict=True))
    for flow, (source, destination) in enumerate(ends):
        path = case["links"][case["ptr"][flow] : case["ptr"][flow + 1]]
        route = [simgrid.LinkInRoute(links[link]) for link in path]
        points = hosts[source].netpoint, hosts[destination].netpoint
        zone.add_route(*points, None, None, route, False)
    zone.seal()

    by_start: dict[float, list[int]] = {}
    for flow, start in enumerate(case["start"]):
        by_start.setdefault(start, []).append(flow)
    fct = [0.0] * len(ends)

    def send(start: float, flows: list[int]) -> None:
        if start > 0:
            simgrid.this_actor.sleep_until(start)
        sent = []
        for flow in flows:
            source, destination = ends[flow]
            size = int(case["size"][flow])
            sent.append(simgrid.Comm.sendto_async(hosts[source], hosts[destination], size))
        simgrid.Comm.wait_all(sent)
        for flow, comm in zip(flows, sent, strict=True):
            fct[flow] = comm.finish_time

    for i, (start, flows) in enumerate(by_start.items()):
        simgrid.Actor.create(f"start{i}", hosts[0], send, start, flows)
    begin, cpu = time.perf_counter(), time.process_time()
    engine.run()
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu
    return {"fct": fct, "seconds": seconds, "cpu_seconds": cpu_seconds}


def main() -> None:
    """Read the cases, run each in a process of its own, write the times."""
    if sys.argv[1] == "--one":
        json.dump(simulate(json.load(sys.stdin)), sys.stdout)
        return
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    times = {}
    for name, case in cases.items():
        print(f"SimGrid: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--one"]
        run = subprocess.run(
            command, input=json.dumps(case), text=True, capture_output=True, check=False
        )
        if run.returncode:
            sys.exit(f"SimGrid failed on {name}:\n{run.stderr}")
        times[name] = json.loads(run.stdout)
    Path(sys.argv[2]).write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    main()
