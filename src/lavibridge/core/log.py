"""What a person reads while waiting (on stderr), and what a program reads afterwards (JSON lines)."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import IO, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from lavibridge.core.errors import RunError
from lavibridge.core.streams import MessageStream


class ResilientConsole(Console):
    """A console that says what it can: where nobody reads it any more, work goes on."""

    @property
    def file(self) -> Any:  # IO[str], as rich has it, in all that is used
        """Where it writes."""
        return MessageStream(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


console = ResilientConsole(stderr=True, highlight=False, markup=False, emoji=False)
"""Everything but data is said here: stdout stays clean for pipes. Brackets are text."""
LINE_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class RateColumn(ProgressColumn):
    """Steps per second, or seconds per step where it is slow."""

    def render(self, task: Task) -> Text:
        """The rate of a task as text."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class LineProgress(Progress):
    """A moving bar on a terminal; elsewhere (a file, a CI log) a plain line every ten seconds."""

    last_line_at = 0.0

    def start(self) -> None:
        """Begin; the first line is due ten seconds later."""
        self.last_line_at = monotonic()
        super().start()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task."""
        super().update(task_id, **changes)
        self.print_line(task_id)

    def advance(self, task_id: TaskID, advance: float | int = 1) -> None:
        """Move a task on."""
        super().advance(task_id, advance)
        self.print_line(task_id)

    def print_line(self, task_id: TaskID) -> None:
        """Say how far a task is, where nobody sees the bar and it was not said a moment ago."""
        if console.is_terminal or monotonic() - self.last_line_at < LINE_INTERVAL:
            return
        self.last_line_at = monotonic()
        task = self.tasks[task_id]
        done = f"{task.description} {task.completed:,.0f} of {task.total or 0:,.0f}"
        left = "" if task.time_remaining is None else f"{timedelta(seconds=round(task.time_remaining))} left"
        said = (done, task.fields["status"], left)
        console.print("  ".join(filter(None, said)), soft_wrap=True)


def progress(unit: str = "") -> Progress:
    """A bar with counts, rate and time left; ``status`` is a free text field of each task.

    ``with progress() as bar: task = bar.add_task("training", total=100, status="")``
    """
    return LineProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit, markup=False),
        RateColumn(table_column=Column(no_wrap=True, min_width=6)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn(
            "{task.fields[status]}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=console,
        refresh_per_second=4,
        expand=True,  # what does not fit is cut from the status, at the end
    )


class JsonLog:
    """A file of JSON lines, each on disk as soon as it is written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the log

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null. RunError where it cannot be written."""
        clean = {key: _finite(value) for key, value in record.items()}
        with self._owner_error():
            self._file.write(json.dumps(clean, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._owner_error():
            self._file.close()

    @contextmanager
    def _owner_error(self) -> Iterator[None]:
        """A log is no message: that it cannot be written is an error."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror or error}. What was written before is kept: "
                "make room, and go on as you would after a stop"
            ) from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
