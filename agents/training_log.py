"""A training's logs: ``progress.csv`` and TensorBoard events, both by Stable-Baselines3.

They hold times of day and speeds, so they differ from run to run. A resumed training goes on in
the same files; what was logged after the checkpoint it starts from is dropped.
"""

from __future__ import annotations

import csv
from pathlib import Path

from stable_baselines3.common.logger import CSVOutputFormat, Logger, TensorBoardOutputFormat

PROGRESS, TENSORBOARD = "progress.csv", "tensorboard"
STEP = "time/total_timesteps"


def open_log(folder: Path | None, timesteps: int) -> Logger:
    """Return a logger that writes into ``folder`` what comes after ``timesteps``; None: nowhere."""
    if folder is None:
        return Logger(None, [])
    folder.mkdir(parents=True, exist_ok=True)
    return Logger(
        str(folder), [_csv(folder / PROGRESS, timesteps), _tensorboard(folder, timesteps)]
    )


def _csv(path: Path, timesteps: int) -> CSVOutputFormat:
    kept: list[str] = []
    if path.is_file() and timesteps:
        lines = path.read_text(encoding="utf-8").splitlines()
        names = next(csv.reader(lines[:1]), [])
        if STEP in names:
            column = names.index(STEP)
            rows = [(line, next(csv.reader([line]))) for line in lines[1:] if line]
            before = [
                line for line, row in rows if len(row) > column and _until(row[column], timesteps)
            ]
            kept = [lines[0], *before]
    log = CSVOutputFormat(str(path))
    if kept:
        log.keys = kept[0].split(",")
        log.file.write("\n".join(kept) + "\n")
        log.file.flush()
    return log


def _until(cell: str, timesteps: int) -> bool:
    try:
        return float(cell) <= timesteps
    except ValueError:
        return False


def _tensorboard(folder: Path, timesteps: int) -> TensorBoardOutputFormat:
    from torch.utils.tensorboard import SummaryWriter

    log = TensorBoardOutputFormat.__new__(TensorBoardOutputFormat)
    log.writer = SummaryWriter(
        log_dir=str(folder / TENSORBOARD), purge_step=timesteps + 1 if timesteps else None
    )
    log._is_closed = False
    return log
