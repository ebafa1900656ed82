"""Trainings side by side: one process a seed, which leaves when the command does."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

Progress = Callable[[int, int], None]
Work = Callable[[int, Progress], None]
_POLL = 0.2  # seconds between looks at whether a process has died without a word


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_seeds(
    work: Work, seeds: Sequence[int], processes: int, progress: Callable[[int, int, int], None]
) -> None:
    """Call ``work(seed, progress)`` for every seed, in at most so many processes.

    ``work`` writes its own results; it and what it holds are pickled for new interpreters. With one
    process it is called here.

    Args:
        work: what is done for a seed.
        seeds: the seeds.
        processes: at most so many at once.
        progress: called as ``progress(seed, done, in all)``.
    """
    if min(processes, len(seeds)) <= 1:
        for seed in seeds:
            work(seed, lambda done, total, seed=seed: progress(seed, done, total))  # type: ignore[misc]
        return
    context = multiprocessing.get_context("spawn")
    said = context.Queue()
    waiting, running, silent = list(seeds), dict[int, Any](), set[int]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                seed = waiting.pop(0)
                running[seed] = context.Process(target=_child, args=(work, seed, said), daemon=True)
                running[seed].start()
            try:
                what, seed, payload = said.get(timeout=_POLL)
            except queue.Empty:
                dead = {seed for seed, child in running.items() if child.exitcode is not None}
                if dead & silent:
                    seed = min(dead & silent)
                    raise RuntimeError(
                        f"seed {seed} ended with status {running[seed].exitcode}"
                    ) from None
                silent = dead
                continue
            if what == "progress":
                progress(seed, *payload)
            elif what == "failed":
                raise payload
            else:
                running.pop(seed).join()
    finally:
        for child in running.values():
            child.terminate()


def _child(work: Work, seed: int, said: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself stops its children
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
    try:
        work(seed, lambda done, total: said.put(("progress", seed, (done, total))))
    except Exception as error:
        error.add_note(traceback.format_exc())  # pickling leaves out where it was raised
        said.put(("failed", seed, error))
    else:
        said.put(("done", seed, None))
