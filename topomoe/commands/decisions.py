"""What ``topomoe decisions`` does: where switching pays, and what the gain is made of.

The results are one long table; ``part`` and ``record`` say what a row is:

boundary  an agent at one delay, phase length and redundancy, over never-switch
gains     ``gain``: an agent that may switch topologies, placements or both; ``share``: what part
          of the gain of both each brings; ``routing``: the mean demand on a topology by routing
queue     an agent with or without queue features
size      an agent on so many devices
scale     OptiMoE's table (``scales``)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.commands.decision_parts import ROWS
from topomoe.commands.decision_tasks import Task, scenario_of, tasks_of
from topomoe.commands.decisions_settings import DecisionsSettings
from topomoe.commands.processes import cores, run_seeds
from topomoe.inputs import load_or_make
from topomoe.run_folder import RunFolder, read_parquet, write_parquet
from topomoe.settings import to_dict
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, int, int], None]


def prepare_decisions(settings: DecisionsSettings) -> tuple[str, ...]:
    """Return the notes of the trace; InputError, before any work, for what does not fit."""
    tasks = tasks_of(settings)
    if not tasks:
        raise InputError("parts boundary and size need default or pools among scenarios")
    named = [task.scenario for task in tasks if task.scenario]
    for name in dict.fromkeys(named):
        scenario_of(settings, name)
    if not named:
        return ()
    found = load_or_make(
        settings.trace,
        settings.model or ("" if settings.trace else "deepseek-v2-lite"),
        settings.synthetic_requests,
        settings.seed,
    )
    return found[1].notes


def run_decisions(settings: DecisionsSettings, processes: int, progress: Progress) -> pd.DataFrame:
    """Return the results, whatever the number of processes the same; 0: as many as cores."""
    import pandas as pd

    tasks = tasks_of(settings)
    done = [0] * len(tasks)

    def report(number: int, steps: int, of: int) -> None:
        done[number] = steps
        part = tasks[number].part
        own = [place for place, task in enumerate(tasks) if task.part == part]
        progress(part, sum(done[place] for place in own), sum(tasks[place].steps for place in own))

    with tempfile.TemporaryDirectory() as folder:
        work = partial(run_task, settings, tasks, Path(folder))
        run_seeds(work, range(len(tasks)), processes or cores(), report)
        frames = [read_parquet(_file(Path(folder), number)) for number in range(len(tasks))]
    return pd.concat(frames, ignore_index=True)


def run_task(
    settings: DecisionsSettings,
    tasks: Sequence[Task],
    folder: Path,
    number: int,
    progress: Callable[[int, int], None],
) -> None:
    """Run one of the tasks and leave its rows in ``folder``."""
    import pandas as pd
    import torch

    torch.set_num_threads(1)
    task = tasks[number]
    frame = pd.DataFrame(ROWS[task.part](settings, task, progress))
    if "record" not in frame:
        frame["record"] = task.part
    for place, column in enumerate(("part", "record")):
        values = frame.pop(column) if column in frame else task.part
        frame.insert(place, column, values)
    write_parquet(_file(folder, number), frame)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:04d}.parquet"


def write_decisions(
    settings: DecisionsSettings,
    results: pd.DataFrame,
    notes: tuple[str, ...],
    out: str,
    overwrite: bool,
) -> RunFolder:
    """Write config and results into a run folder."""
    folder = RunFolder.start(out, "decisions", to_dict(settings), False, overwrite, notes)
    folder.finish(results)
    return folder
