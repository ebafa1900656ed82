"""The command line: a thin face over the library, one command a function.

Exit status: 0 done, 2 bad input (one line, no traceback), 1 failure. What is heavy is imported
inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from topomoe.commands.decisions_settings import DecisionsSettings
from topomoe.commands.routers_settings import RoutersSettings, quick_settings
from topomoe.commands.settings import LEARNERS, EvaluateSettings
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.network_settings import NetworkSettings
from topomoe.place_settings import PlacementsSettings, PlaceSettings
from topomoe.settings import flag_parameters, merge, to_dict
from topomoe.simulate_settings import SimulateSettings
from topomoe.study_settings import StudySettings
from topomoe.topologies.errors import InputError

INTERRUPTED = 130  # exit status of a command that was stopped from the keyboard

app = typer.Typer(
    name="topomoe",
    help="Where should the experts sit, how should the network be wired and rewired, how should "
    "traffic be routed, and how far is that from the best possible?",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[str, typer.Option("--out", help="Folder of the run.", metavar="DIR")]
Config = Annotated[
    str | None, typer.Option("--config", help="TOML file; flags override it.", metavar="FILE")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        help="Seeds, or parts of a study, at once; 0: as many as there are cores.",
        metavar="N",
    ),
]
Run = Annotated[str, typer.Argument(help="Folder of a finished run.", metavar="RUN")]


def with_flags(*settings: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that ends in ``**flags`` one flag for each leaf of settings dataclasses."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        flags = flag_parameters(settings, typer.Option)
        combined = [p.replace(kind=p.KEYWORD_ONLY) for p in own] + flags
        function.__signature__ = signature.replace(parameters=combined)  # type: ignore[attr-defined]
        function.__annotations__ = {p.name: p.annotation for p in combined}
        return function

    return decorate


@app.callback()
def root(context: typer.Context) -> None:
    """Print the help where no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@with_flags(StudySettings)
def study(
    out: Out = "runs/study",
    config: Config = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Compare topologies and placements on one trace.

    topomoe study --trace path/to/traces --grid 8x8 --slots 128 --out runs/mine
    """
    settings = merge(StudySettings, config, flags)
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder
    from topomoe.study import fastest, prepare, run_study

    given = prepare(settings)
    folder = RunFolder.start(
        out, "study", to_dict(settings), resume, overwrite, given.notes, given.facts()
    )
    say_all(given.notes)
    if not (folder.path / "results.parquet").is_file():
        with progress_bars() as progress:
            run_study(settings, given, folder, progress)
    say_table("Fastest MoE layers", fastest(folder))
    redraw(folder)


@app.command()
@with_flags(SimulateSettings)
def simulate(
    out: Annotated[str, typer.Option("--out", help="Folder of the run; none: print only.")] = "",
    config: Config = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Price the steps of one placement on one topology.

    topomoe simulate --trace path/to/traces --grid 8x8 --topology torus --groups 4
    """
    settings = merge(SimulateSettings, config, flags)
    from topomoe.commands.simulate import prepare_groups, run_simulate, write_simulate
    from topomoe.run_folder import RunFolder

    if out:
        RunFolder.vacant(out, "simulate", overwrite=overwrite)
    given = prepare_groups(settings)
    rows = run_simulate(settings, given)
    path = write_simulate(settings, given, rows, out, overwrite) if out else None
    say_all(given.notes)
    say_table("Step times", rows)
    if path:
        typer.echo(f"results: {path}")


@app.command()
@with_flags(NetworkSettings)
def network(
    out: Annotated[str, typer.Option("--out", help="Folder of the run; none: print only.")] = "",
    config: Config = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Time one demand on one topology under several routings, beside the optimum.

    topomoe network --topology torus --demand zipf --routings dimension-order,valiant,optimal
    """
    settings = merge(NetworkSettings, config, flags)
    from topomoe.commands.network import (
        network_tables,
        prepare_network,
        run_network,
        write_network,
    )
    from topomoe.run_folder import RunFolder

    if out:
        RunFolder.vacant(out, "network", overwrite=overwrite)
    given = prepare_network(settings, out)
    say_all(given.notes)
    results = run_network(settings, given)
    folder = write_network(settings, given, results, out, overwrite) if out else None
    for title, rows in network_tables(results):
        say_table(title, rows)
    if folder:
        draw(folder)
        typer.echo(f"results: {folder.path}")


@app.command()
@with_flags(PlaceSettings)
def place(
    out: Annotated[
        str, typer.Option("--out", help="File for the placement; none: print.", metavar="FILE")
    ] = "",
    config: Config = None,
    **flags: Any,
) -> None:
    """Place the experts of a trace or of recorded loads, with a certificate.

    topomoe place --trace path/to/traces --grid 8x8 --slots 128 --method exact --out p.npz
    """
    settings = merge(PlaceSettings, config, flags)
    from topomoe.commands.before_after import BeforeAfter
    from topomoe.commands.place import (
        before_name,
        certificate_rows,
        check_output,
        migration_row,
        prepare_place,
        run_place,
    )
    from topomoe.placement import save_placement

    figure = check_output(settings, out)
    given = prepare_place(settings)
    before, placement = run_place(settings, given)
    picture = BeforeAfter.of(settings, given, before, placement)
    notes = given.notes
    if out:
        notes += save_placement(placement, out, settings.format, given.model, given.training)
    if figure:
        picture.draw(figure)
    say_all(notes)
    say_table(
        f"{settings.method}: {placement.num_slots} slots on {given.devices} devices",
        certificate_rows(settings, given, before, placement),
    )
    if given.previous is not None:
        say_table(f"Moving from {before_name(settings)}", [migration_row(given, placement)])
    for line in picture.text():
        typer.echo(line)
    for name, path in (("placement", out), ("figure", figure)):
        if path:
            typer.echo(f"{name}: {path}")


@app.command()
@with_flags(PlacementsSettings)
def placements(
    out: Out = "runs/placements",
    config: Config = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Compare placement methods: balance, traffic, step time, migration, shift, speed.

    topomoe placements --trace path/to/traces --grid 8x8 --slots 128 --out runs/placements
    """
    settings = merge(PlacementsSettings, config, flags)
    from topomoe.commands.placements import prepare_placements, run_placements, write_placements
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder
    from topomoe.tables_placement import printed_tables, write_placement_tables

    RunFolder.vacant(out, "placements", overwrite=overwrite)
    given = prepare_placements(settings)
    with progress_bars() as progress:
        found = run_placements(settings, given, progress)
    folder = write_placements(settings, given, found, out, overwrite)
    write_placement_tables(folder)
    say_all(given.notes)
    for title, rows in printed_tables(folder):
        say_table(title, rows)
    draw(folder)
    typer.echo(f"figures: {folder.path / 'figures'}")
    typer.echo(f"tables: {folder.path / 'tables'}")


@app.command()
def trace(
    path: Annotated[
        str,
        typer.Argument(
            help="Folder or file of a trace, or the name of a bundled one.", metavar="TRACE"
        ),
    ] = "",
    synthetic: Annotated[
        str, typer.Option("--synthetic", help="Draw a synthetic trace of this model instead.")
    ] = "",
    requests: Annotated[
        int, typer.Option("--requests", help="Requests of the synthetic trace.", metavar="N")
    ] = 96,
    positions: Annotated[
        int, typer.Option("--positions", help="Median positions of its requests.", metavar="N")
    ] = 140,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the synthetic trace.")] = 0,
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Folder, or file in .npz, to write the trace to.", metavar="PATH"
        ),
    ] = "",
) -> None:
    """Describe a routing trace, or draw a synthetic one.

    topomoe trace path/to/traces
    """
    if bool(path) == bool(synthetic):
        raise InputError("trace: give a folder of traces or --synthetic MODEL, not both or neither")
    from topomoe.commands.trace import describe
    from topomoe.synthetic import synthetic_trace
    from topomoe.trace import load_trace, save_trace

    loaded = (
        synthetic_trace(synthetic, requests=requests, positions=positions, seed=seed)
        if synthetic
        else load_trace(path)
    )
    tables = describe(loaded)
    if out:
        save_trace(loaded, Path(out))
    say_all(loaded.notes)
    for title, rows in tables:
        say_table(title, rows)
    if out:
        typer.echo(f"trace: {out}")


@app.command()
@with_flags(*dict.fromkeys(LEARNERS.values()))
def train(
    out: Out = "runs/train",
    config: Config = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    processes: Processes = 0,
    **flags: Any,
) -> None:
    """Train an agent to choose topologies and placements.

    topomoe train --agent ppo --scenario default --seeds 5 --out runs/ppo
    """
    from topomoe.commands.settings import train_settings

    settings = train_settings(config, flags)
    check_processes(processes)
    from topomoe.commands.train import prepare_training, train_agents, training_rows
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder

    RunFolder.vacant(out, "train", resume, overwrite)
    with progress_bars() as progress:
        given = prepare_training(settings)
        folder = RunFolder.start(
            out, "train", to_dict(settings), resume, overwrite, given.notes, given.facts()
        )
        if not (folder.path / "results.parquet").is_file():
            train_agents(settings, given, folder, processes, progress)
    say_all(given.notes)
    say_table(
        f"Trained, {given.training.switching} configurations", training_rows(settings, folder)
    )
    typer.echo(f"agent: {folder.path} ({given.training.switching} configurations)")
    if (folder.results()["record"] == "curve").any():
        draw(folder)
        typer.echo(f"figures: {folder.path / 'figures'}")


@app.command()
@with_flags(EvaluateSettings)
def evaluate(
    out: Out = "runs/evaluate",
    config: Config = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Compare agents on held-out episodes.

    topomoe evaluate --agents never-switch,hysteresis,clairvoyant,runs/ppo --out runs/compare
    """
    from topomoe.commands.settings import evaluate_request

    request = evaluate_request(config, flags)
    from topomoe.commands.evaluate import evaluate_agents, prepare_evaluation, write_evaluation
    from topomoe.commands.evaluate_text import summary_tables
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder

    RunFolder.vacant(out, "evaluate", overwrite=overwrite)
    given = prepare_evaluation(request)
    with progress_bars() as progress:
        results = evaluate_agents(given, progress)
    folder = write_evaluation(given, results, out, overwrite)
    say_all(tuple(dict.fromkeys(note for result in results for note in result.notes)))
    for title, rows in summary_tables(results):
        say_table(title, rows)
    draw(folder)
    typer.echo(f"figures: {folder.path / 'figures'}")


@app.command()
@with_flags(DelaySweepSettings)
def delays(
    out: Out = "runs/delays",
    config: Config = None,
    overwrite: Overwrite = False,
    **flags: Any,
) -> None:
    """Compare rewiring with never switching, from 10 ns to 6 s of reconfiguration delay.

    topomoe delays --trace path/to/traces --grid 8x8 --out runs/delays
    """
    settings = merge(DelaySweepSettings, config, flags)
    from topomoe.commands.delays import run_delays, write_delays
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder

    RunFolder.vacant(out, "delays", overwrite=overwrite)
    with progress_bars() as progress:
        found = run_delays(settings, progress)
    folder = write_delays(settings, found, out, overwrite)
    say_all(found.notes)
    say_table("Held-out step time / never-switch, best policy by training", found.rows())
    draw(folder)
    typer.echo(f"figures: {folder.path / 'figures'}")


@app.command()
@with_flags(DecisionsSettings)
def decisions(
    out: Out = "runs/decisions",
    config: Config = None,
    overwrite: Overwrite = False,
    processes: Processes = 0,
    **flags: Any,
) -> None:
    """Map where switching pays, and take its gain apart.

    topomoe decisions --parts gains,queue --trace path/to/traces --out runs/decisions
    """
    settings = merge(DecisionsSettings, config, flags)
    check_processes(processes)
    from topomoe.commands.decisions import prepare_decisions, run_decisions, write_decisions
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder
    from topomoe.tables_decisions import printed_tables, write_decision_tables

    RunFolder.vacant(out, "decisions", overwrite=overwrite)
    notes = prepare_decisions(settings)
    with progress_bars() as progress:
        results = run_decisions(settings, processes, progress)
    folder = write_decisions(settings, results, notes, out, overwrite)
    write_decision_tables(folder)
    say_all(notes)
    for title, rows in printed_tables(folder):
        say_table(title, rows)
    draw(folder)
    typer.echo(f"figures: {folder.path / 'figures'}")
    typer.echo(f"tables: {folder.path / 'tables'}")


@app.command()
@with_flags(RoutersSettings)
def routers(
    out: Out = "runs/routers",
    config: Config = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Smaller defaults: every part in less than five minutes."),
    ] = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    processes: Processes = 0,
    **flags: Any,
) -> None:
    """Train routers of MoE language models, score them, and price what they decide.

    topomoe routers --quick --out runs/routers
    """
    settings = merge(RoutersSettings, config, flags, quick_settings() if quick else None)
    check_processes(processes)
    from topomoe.commands.routers import prepare_routers, run_routers
    from topomoe.progress import progress_bars
    from topomoe.run_folder import RunFolder
    from topomoe.tables_routers import printed_tables

    RunFolder.vacant(out, "routers", resume, overwrite)
    given = prepare_routers(settings)
    folder = RunFolder.start(
        out, "routers", to_dict(settings), resume, overwrite, facts=given.facts()
    )
    if not (folder.path / "results.parquet").is_file():
        with progress_bars() as progress:
            run_routers(settings, given, folder, processes, progress)
    for title, rows in printed_tables(folder):
        say_table(title, rows)
    redraw(folder)


@app.command()
def plot(run: Run) -> None:
    """Redraw the figures of a run from its folder.

    topomoe plot runs/mine
    """
    from topomoe.run_folder import RunFolder

    folder = RunFolder.open(run)
    for path in draw(folder):
        typer.echo(str(path))


@app.command()
def report(run: Run) -> None:
    """Rewrite figures, tables and report of a study or a bench of routers from its folder.

    topomoe report runs/mine
    """
    from topomoe.run_folder import RunFolder

    redraw(RunFolder.open(run))


def redraw(folder: Any) -> None:
    """Draw figures, tables and report of a run and say where they are."""
    from topomoe.report import check_kind, write_report

    check_kind(folder)
    draw(folder)
    if folder.kind == "routers":
        from topomoe.tables_routers import write_router_tables as write_tables
    else:
        from topomoe.tables import write_tables

    write_tables(folder)
    typer.echo(f"figures: {folder.path / 'figures'}")
    typer.echo(f"tables: {folder.path / 'tables'}")
    typer.echo(f"report: {write_report(folder)}")


def draw(folder: Any) -> list[Path]:
    """Draw the figures of a run of any kind."""
    kind = folder.kind
    if kind == "study":
        from topomoe.plots import draw_study

        return draw_study(folder)
    if kind in ("train", "evaluate"):
        from topomoe.plots.evaluation import draw_evaluation

        return draw_evaluation(folder)
    if kind == "network":
        from topomoe.plots.flow_time import draw_network

        return draw_network(folder)
    if kind == "delays":
        from topomoe.plots.reconfiguration_delay import draw_delays

        return draw_delays(folder)
    if kind == "placements":
        from topomoe.plots.placement_figures import draw_placements

        return draw_placements(folder)
    if kind == "decisions":
        from topomoe.plots.decisions import draw_decisions

        return draw_decisions(folder)
    if kind == "routers":
        from topomoe.plots.router_figures import draw_routers

        return draw_routers(folder)
    raise InputError(f"{folder.path}: a run of kind {kind!r} has no figures")


def check_processes(processes: int) -> None:
    """Raise InputError for a number of processes that is none."""
    if processes < 0:
        raise InputError(f"processes must be >= 0, got {processes}")


def say_all(lines: tuple[str, ...]) -> None:
    """Print notes, each on a line, to standard error."""
    for line in lines:
        typer.echo(f"note: {line}", err=True)


def say_table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows as a table; turned on its side where the terminal is too narrow for it."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    def width_of(table: Table) -> int:
        return Measurement.get(console, console.options.update(width=10_000), table).maximum

    def table_of(header: list[str], body: list[list[str]]) -> Table:
        table = Table()
        for number, column in enumerate(header):
            table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
        for line in body:
            table.add_row(*line)
        return table

    console = Console(width=None if sys.stdout.isatty() else 160)
    names = list(rows[0])
    table = table_of(names, [list(row.values()) for row in rows])
    if width_of(table) > console.width:
        header = [names[0], *(row[names[0]] for row in rows)]
        turned = table_of(header, [[n, *(row[n] for row in rows)] for n in names[1:]])
        table = min(table, turned, key=width_of)
    console.print(title, soft_wrap=True)
    # A table still wider than the terminal keeps its numbers whole: the terminal wraps its lines.
    Console(width=max(console.width, width_of(table))).print(table, crop=False, no_wrap=True)


def main() -> None:
    """Run the command line; turn bad input into one line and exit status 2."""
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:
            fail("interrupted; --resume continues a study, a training or a bench", INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)
    except InputError as error:
        fail(str(error), 2)
    except (typer.Abort, KeyboardInterrupt):
        fail("interrupted; --resume continues a study, a training or a bench", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # the parser's own errors have one
        if usage is not None:
            fail(usage(), 2)
        if os.environ.get("TOPOMOE_DEBUG"):
            raise
        fail(f"{type(error).__name__}: {error} (TOPOMOE_DEBUG=1 shows where)", 1)


def fail(message: str, status: int) -> None:
    """Print one line to standard error and exit."""
    typer.echo(f"topomoe: {' '.join(message.split())}", err=True)
    sys.exit(status)
