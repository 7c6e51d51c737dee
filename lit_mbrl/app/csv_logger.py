"""`metrics.csv`, the table of a run's metrics, which stays whole whatever happens to the file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_mbrl.utils.errors import TrainingError
from lit_mbrl.utils.files import is_number, unused_name

_TRAIN_STEPS = "time/train_steps"


class CsvLogger(Logger):
    """`metrics.csv` in the run folder: a row per call, `step` (environment steps) first.

    A row is on its way to the disk as soon as it is logged. A metric that is new widens the table: the file is written
    anew, with one header for all rows, and empty cells where a row lacks a metric. A table that is removed while the
    run goes on is written anew, too; a table that a new run finds in its folder is kept as `metrics-1.csv`.

    Args:
        folder: the run folder.
        resume_at: `(env_steps, training steps)` of the checkpoint that the run goes on from. Rows of later training
            steps, which the resumed run takes again, are dropped. None: a new run, and a new table.
    """

    def __init__(self, folder: str | Path, resume_at: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.use_folder(folder)
        self._resume_at = resume_at
        self._columns: list[str] = []
        self._file: TextIO | None = None
        self._size = 0

    def use_folder(self, folder: str | Path) -> None:
        """Keeps the table in another run folder; before the first row."""
        self.path = Path(folder) / "metrics.csv"

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a row.

        Raises:
            TrainingError: if the run folder is gone.
        """
        if not self._columns:
            self._start()
        elif self._file is None:
            self._open()
        self._look()
        new = [name for name in metrics if name not in self._columns]
        if new:
            rows = self._read()
            self._columns += new
            self._write(rows)
        self._append({"step": step} | {name: float(value) for name, value in metrics.items()})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the file; a later row would open it again."""
        if self._file is not None:
            if status == "success":
                self._look()
            self._close()

    # ------------------------------------------------------------------ an earlier table
    def _start(self) -> None:
        """Begins a new table, or cuts an old one where its run is resumed."""
        self._columns = ["step"]
        rows: list[dict[str, str]] = []
        if self._resume_at is not None and self.path.exists():
            columns, read, damaged = _read_table(self.path)
            self._columns = columns or self._columns
            rows = [row for row in read if self._precedes(row)]
            if damaged:
                kept = unused_name(self.path)
                os.replace(self.path, kept)
                rank_zero_warn(f"{self.path}: left out {damaged} that cannot be read; {kept.name} has all as it was")
        elif self.path.exists() and _read_table(self.path)[1]:
            os.replace(self.path, unused_name(self.path))
        self._write(rows)

    def _precedes(self, row: Mapping[str, str]) -> bool:
        env_steps, train_steps = self._resume_at or (0, 0)
        return int(row["step"]) <= env_steps and float(row.get(_TRAIN_STEPS) or 0) <= train_steps

    # ------------------------------------------------------------------ the file
    def _look(self) -> None:
        """Writes the table anew if somebody has removed or emptied it."""
        assert self._file is not None
        try:
            there = os.stat(self.path)
        except OSError:
            there = None
        ours = os.fstat(self._file.fileno())
        if there is not None and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            if there.st_size >= self._size:
                return
            rank_zero_warn(f"{self.path} has been cut while the run went on: its rows are gone")
            self._write([])
            return
        if not self.path.parent.is_dir():
            raise TrainingError(f"the run folder {self.path.parent} has been removed or moved while the run went on")
        rows = self._read()
        if there is not None:
            os.replace(self.path, unused_name(self.path))
        rank_zero_warn(f"{self.path} has been {'replaced' if there else 'removed'} while the run went on: written anew")
        self._write(rows)

    def _append(self, row: Mapping[str, Any]) -> None:
        assert self._file is not None
        csv.DictWriter(self._file, self._columns).writerow(row)
        self._file.flush()
        self._size = self._file.tell()

    def _read(self) -> list[dict[str, str]]:
        """The rows of the open file, wherever its name has gone."""
        assert self._file is not None
        self._file.seek(0)
        return [row for row in csv.DictReader(self._file) if _is_whole(row)]

    def _write(self, rows: Iterable[Mapping[str, str]]) -> None:
        self._close()
        temporary = self.path.with_suffix(".csv.tmp")
        temporary.unlink(missing_ok=True)  # or, were it a link, another file would be written
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.path)
        self._open()

    def _open(self) -> None:
        self._file = self.path.open("a+", newline="")
        self._size = self._file.tell()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]], str]:
    """Columns and rows of a table, and in words what of it cannot be read; the half line of a killed run is none."""
    with path.open(newline="", errors="replace") as file:
        reader = csv.DictReader(_without_nulls(file))
        try:
            columns = list(reader.fieldnames or [])
            if not columns:
                return [], [], ""
            text = "".join(columns)
            if columns[0] != "step" or len(set(columns)) < len(columns) or not text.isprintable() or "\ufffd" in text:
                return [], [], "everything under a header"
            every = list(reader)
        except csv.Error:
            return [], [], "a content"
    whole = [row for row in every if _is_whole(row)]
    lost = len(every) - len(whole) - (bool(every) and not _is_whole(every[-1]))
    return columns, whole, f"{'a row' if lost == 1 else f'{lost} rows'}" if lost else ""


def _without_nulls(lines: Iterable[str]) -> Iterator[str]:
    return (line.replace("\0", "\ufffd") for line in lines)


def _is_whole(row: Mapping[str | None, Any]) -> bool:
    """Returns whether a row has a cell for every column, and numbers in them."""
    if None in row or None in row.values():
        return False
    step = row["step"]
    return step.isascii() and step.isdecimal() and all(is_number(value) for value in row.values() if value)
