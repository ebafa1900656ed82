"""The page of a study: what was asked, what came out, and what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topomoe.report.findings import findings, losing
from topomoe.report.method import charged, left_out
from topomoe.report.write import Page, Section, pictures
from topomoe.run_folder import RunFolder
from topomoe.study_results import StudyResults, counted, read_study
from topomoe.tables import study_tables


def study_page(folder: RunFolder) -> Page:
    """Return what the report of a study says; InputError where its results are damaged."""
    from topomoe.plots import caption, draw_study, figures_of

    results = read_study(folder)
    figures = figures_of(results)
    captions = [caption(figure, results) for figure in figures]
    return Page(
        title=_title(results),
        subtitle="Which placement, on which topology, under which routing: a topomoe study",
        findings=(("", tuple(findings(results))),),
        asked=tuple(asked(results)),
        pictures=pictures(folder, figures, captions, draw_study),
        tables=tuple(study_tables(results)),
        sections=(
            Section("lost", "What lost", "What lost", (("", tuple(losing(results))),)),
            Section(
                "method",
                "Method",
                "What is charged, and what is not",
                (
                    ("Charged", tuple(charged(results.config))),
                    ("Not charged", tuple(left_out(results.config))),
                ),
                tinted=True,
            ),
        ),
        same="the same settings and versions give the same numbers",
    )


def asked(results: StudyResults) -> list[tuple[str, str]]:
    """Return what the study was asked, a name and a value each."""
    config = results.config
    workload = config.get("workload", {})
    summary = results.summary.iloc[0]
    run = config.get("run", {})
    batch = f"{workload.get('phase', '')} batch".strip()
    rows, columns = results.grid
    requests = int(summary["requests"])
    held_out = (
        f"{requests:,} of the {counted(int(run['test_requests']), 'held-out request')}"
        if "test_requests" in run
        else counted(requests, "distinct held-out request")
    )
    others = (
        counted(int(run["train_requests"]), "other request")
        if "train_requests" in run
        else "other requests"
    )
    listed = ", ".join
    facts = [
        ("trace", _trace(config)),
        ("model", _shape(results)),
        ("devices", f"{rows * columns} on a grid of {rows} x {columns}"),
        ("expert slots", _slots(results)),
        (
            "topologies",
            listed(
                f"{results.topology_label(n)} ({results.default_routing[n]})"
                for n in results.topologies
            ),
        ),
        ("placements", listed(dict.fromkeys(p for p, _ in results.groups))),
        ("replica routing", listed(dict.fromkeys(r for _, r in results.groups))),
        ("budget", _budget(results)),
        (
            "batches",
            f"{counted(results.num_batches, batch)} of "
            f"{counted(round(summary['tokens']), 'token')}",
        ),
        (
            "evidence",
            f"{held_out} and "
            f"{counted(int(summary['positions']), 'distinct token position')}; placements were "
            f"made from {others}",
        ),
    ]
    return facts


def _title(results: StudyResults) -> str:
    rows, columns = results.grid
    config = results.config
    what = Path(str(config.get("trace", ""))).name or f"synthetic {_model(config)}"
    return f"{what} on {rows * columns} devices"


def _model(config: dict[str, Any]) -> str:
    return str(config.get("run", {}).get("model") or config.get("model") or "deepseek-v3")


def _trace(config: dict[str, Any]) -> str:
    trace = str(config.get("trace", ""))
    if not trace:
        requests = config.get("synthetic_requests", "")
        return f"synthetic, of {_model(config)}, {requests} requests, seed {config.get('seed', 0)}"
    model = config.get("run", {}).get("model") or config.get("model")
    return f"{trace}, as {model}" if model else f"{trace}, as the model preset of its shape"


def _shape(results: StudyResults) -> str:
    name = results.config.get("run", {}).get("model") or results.config.get("model")
    layers = counted(results.num_layers, "MoE layer")
    shape = f"{layers} of {counted(results.num_experts, 'routed expert')}"
    return f"{name}, {shape}" if name else shape


def _slots(results: StudyResults) -> str:
    rows, columns = results.grid
    devices = rows * columns
    asked_for = int(results.config.get("slots", 0))
    slots = asked_for or int(results.config.get("run", {}).get("slots", 0))
    least = "" if asked_for else "the least with which exact balance is always possible"
    parts = [f"{slots}, {slots // devices} a device"] if slots else []
    return ": ".join([*parts, least] if least else parts)


def _budget(results: StudyResults) -> str:
    config = results.config
    bandwidth = float(config.get("bandwidth", 0.0))
    rule = str(config.get("normalise", ""))
    meaning = {
        "iso-injection": "the same bytes/s leave every device on every topology",
        "iso-port": "the same ports of the same rate on every device",
        "iso-cost": "the dollars of a leaf-spine for every topology by the bill of materials",
        "iso-power": "the watts of a leaf-spine for every topology by the bill of materials",
    }.get(rule, "")
    reference = " of the leaf-spine" if rule in ("iso-cost", "iso-power") else ""
    inside = (
        " (rails: of the NICs; the links inside a node come on top)"
        if "rails" in results.topologies and rule in ("iso-injection", "iso-port")
        else ""
    )
    return f"{rule}: {meaning}, {bandwidth / 1e9:g} GB/s a device{reference}{inside}"
