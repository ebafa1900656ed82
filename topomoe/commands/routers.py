"""What ``topomoe routers`` does: train routers, score them, and price what they decide.

The results are one long table; ``part`` says of which study a row is, ``record`` what it is:

tuning           a short training with one learning rate and balance, on validation text
curve            a point of a training
quality          a trained model on held-out text
document         its loss on one held-out window
layer            how uneven the load of a layer is, of a trained model or of a real trace
step             what the trace of a trained model costs on one network
loss             a model before and after fine-tuning with a balance loss
assignment       a model whose experts are chosen by another rule
assignment_step  what that costs on one network
adapter          a model before and after adapters are trained
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topomoe.commands.processes import cores, run_seeds
from topomoe.commands.router_tasks import BASE, TUNING, Task, tasks_of
from topomoe.commands.routers_settings import RoutersSettings
from topomoe.run_folder import HALF_WRITTEN, PARTS, RunFolder, read_parquet, write_parquet
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

if TYPE_CHECKING:
    from topomoe.moe.text import Corpora

Progress = Callable[[str, int, int], None]
TIMING = "timing.csv"
REAL = "real"  # the part of rows about traces that were not made here
_TEXT = "text.safetensors"


@dataclass(frozen=True, eq=False)
class RoutersInput:
    """The text of a run, and what real traces say of their layers."""

    corpora: Corpora
    layers: list[dict[str, Any]]

    def facts(self) -> dict[str, Any]:
        """Return what the run's config says of the text."""
        return {"text": dict(self.corpora.facts)}


def prepare_routers(settings: RoutersSettings) -> RoutersInput:
    """Return the text and the real traces; InputError, before any work, for what does not fit."""
    from topomoe.commands.router_bench import only_domain, windows
    from topomoe.moe.load_profile import real_rows
    from topomoe.moe.text import load_corpora

    if settings.pretrained and not (Path(settings.pretrained) / "config.json").is_file():
        raise InputError(f"pretrained: {settings.pretrained}: no folder with a model's config.json")
    _check_networks(settings)
    layers: list[dict[str, Any]] = []
    for path in settings.trace:
        layers += [{"part": REAL, **row} for row in real_rows(path)]
    corpora = load_corpora(settings.text)
    length = settings.training.context + 1
    windows(corpora.test, settings.requests, length)
    windows(corpora.training, settings.requests, length)
    watched = settings.training.validation_sequences
    if "tuning" in settings.parts:
        watched = max(watched, settings.requests)
    windows(corpora.validation, watched, length)
    if "adapters" in settings.parts:
        own = only_domain(corpora, settings.adapter_domain)
        windows(own.test, settings.requests, length)
        windows(own.validation, settings.training.validation_sequences, length)
    return RoutersInput(corpora, layers)


def _check_networks(settings: RoutersSettings) -> None:
    """Raise InputError where the cluster cannot be built, or not hold the experts."""
    from topomoe.inputs import least_exact_slots, topology_at_budget
    from topomoe.placement.registry import check_slots
    from topomoe.topologies.registry import parse_grid

    network = settings.network
    grid = parse_grid(network.grid)
    devices = grid[0] * grid[1]
    for name in network.topologies:
        topology_at_budget(network.study(0.0), name, grid)
    slots = network.slots or least_exact_slots(settings.experts, devices)
    check_slots(settings.experts, devices, slots)


def run_routers(
    settings: RoutersSettings,
    given: RoutersInput,
    folder: RunFolder,
    processes: int,
    progress: Progress,
) -> None:
    """Do the tasks whose rows are not there yet, and write the results.

    The results do not depend on the number of processes (0: as many as cores), nor on how often
    the run was killed.
    """
    import pandas as pd

    from topomoe.commands.router_text import write_corpora

    rounds = tasks_of(settings)
    kept = {task.model for task in rounds[2]}
    text = folder.path / PARTS / _TEXT
    write_corpora(text, given.corpora)
    everything = [task for tasks in rounds for task in tasks]
    report = _bars(everything, progress)
    for tasks in rounds:
        waiting = [task for task in tasks if not folder.part(task.name).is_file()]
        for task in tasks:
            if task not in waiting:
                report(everything.index(task), task.steps)
        worker = Worker(
            settings,
            folder,
            tuple((everything.index(task), task) for task in waiting),
            frozenset(kept),
            multiprocessing.get_context("spawn").Value("i", 0),
        )
        workers = min(processes or cores(), len(waiting))
        if settings.pretrained and tasks is rounds[2]:
            workers = min(workers, 1)  # a large model is there once
        run_seeds(worker, range(workers), workers, lambda _, index, done: report(index, done))
    found = [read_parquet(folder.part(task.name)) for task in everything]
    times = [read_parquet(_timing_part(folder, task)) for task in everything]
    frames = [frame for frame in (*found, pd.DataFrame(given.layers)) if len(frame)]
    timing = pd.concat([frame for frame in times if len(frame)] or times, ignore_index=True)
    if len(timing):
        write_atomic(folder.path / TIMING, timing.to_csv(index=False, lineterminator="\n"))
    if not settings.keep_models:
        shutil.rmtree(folder.path / "models", ignore_errors=True)
    for half in folder.path.rglob(HALF_WRITTEN):
        half.unlink(missing_ok=True)
    folder.finish(pd.concat(frames, ignore_index=True))


def _bars(tasks: Sequence[Task], progress: Progress) -> Callable[[int, int], None]:
    """Return what takes a task's index and its steps done, and sums them up to a bar a part."""
    done = [0] * len(tasks)

    def report(index: int, steps: int) -> None:
        done[index] = min(steps, tasks[index].steps)
        part = tasks[index].part
        own = [number for number, task in enumerate(tasks) if task.part == part]
        progress(part, sum(done[n] for n in own), sum(tasks[n].steps for n in own))

    return report


@dataclass(frozen=True, eq=False)
class Worker:
    """One process: it takes the next task that no other has taken, until there is none."""

    settings: RoutersSettings
    folder: RunFolder
    tasks: tuple[tuple[int, Task], ...]
    kept: frozenset[str]  # models that tasks of the next round need
    taken: Any  # how many tasks are taken, shared by all processes

    def __call__(self, seed: int, progress: Callable[[int, int], None]) -> None:
        """Do tasks; ``progress`` hears a task's index and how many of its steps are done."""
        import torch

        from topomoe.commands.router_bench import Bench
        from topomoe.commands.router_text import read_corpora

        corpora = read_corpora(self.folder.path / PARTS / _TEXT)
        bench = Bench(self.settings, corpora, self.folder.path)
        threads = torch.get_num_threads()
        try:
            while (number := self._take()) < len(self.tasks):
                torch.set_num_threads(1)
                index, task = self.tasks[number]
                self._do(bench, task, lambda done, index=index: progress(index, done))  # type: ignore[misc]
                progress(index, task.steps)
        finally:
            torch.set_num_threads(threads)

    def _take(self) -> int:
        with self.taken.get_lock():
            number: int = self.taken.value
            self.taken.value += 1
        return number

    def _do(self, bench: Any, task: Task, progress: Callable[[int], None]) -> None:
        """Do a task and write its rows; they are what says that it is done."""
        import pandas as pd

        rows, times = parts()[task.part](bench, task, progress)
        write_parquet(_timing_part(self.folder, task), pd.DataFrame(times))
        write_parquet(self.folder.part(task.name), pd.DataFrame(rows))
        if self.settings.keep_models:
            return
        for home in (bench.folder / "models").glob("*"):
            own = home.name == task.model or home.name.startswith(f"{task.name}-")
            if own and home.name not in self.kept:
                shutil.rmtree(home, ignore_errors=True)


def parts() -> Mapping[str, Callable[..., tuple[list[Any], list[Any]]]]:
    """Return what does the tasks of each part."""
    from topomoe.commands import router_changes, router_parts, router_profile, router_tuning

    return {
        TUNING: router_tuning.tuning_rows,
        BASE: router_parts.base_rows,
        "pareto": router_parts.pareto_rows,
        "size": router_parts.size_rows,
        "capacity": router_parts.capacity_rows,
        "losses": router_changes.loss_rows,
        "assignments": router_profile.pretrained_assignment_rows,
        "adapters": router_changes.adapter_rows,
        "profile": router_profile.profile_rows,
    }


def _timing_part(folder: RunFolder, task: Task) -> Path:
    return folder.part(f"{task.name}.timing")
