"""Messages for people on stderr, and JSON lines for programs."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import IO, Any

from rich.console import Console, ConsoleOptions
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
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

from lavibridge.core.errors import RunError
from lavibridge.core.streams import MessageStream, escape_controls


class ResilientConsole(Console):
    """A console that never fails: work continues even if nobody can read its output any more."""

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Render a value; control characters in its text, which a terminal obeys, appear as their numbers."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text)
            yield Segment(text, segment.style, segment.control)

    @property
    def file(self) -> Any:  # behaves like rich's IO[str]
        """The stream that it writes to."""
        return MessageStream(super().file)

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file


console = ResilientConsole(stderr=True, highlight=False, markup=False, emoji=False)
"""Prints everything except data: stdout stays clean for pipes. Brackets are plain text."""
LINE_INTERVAL = 10.0
"""Seconds between two progress lines without a terminal."""


class _RateColumn(ProgressColumn):
    """Steps per second, or seconds per step for slow tasks."""

    def render(self, task: Task) -> Text:
        """Return the rate of a task as text."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class _LineProgress(Progress):
    """A moving bar on a terminal; a plain line every ten seconds elsewhere (a file, a CI log)."""

    last_line_at = 0.0

    def start(self) -> None:
        """Start; the first line comes ten seconds later."""
        self.last_line_at = monotonic()
        super().start()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Update a task."""
        super().update(task_id, **changes)
        self.print_line(task_id)

    def advance(self, task_id: TaskID, advance: float | int = 1) -> None:
        """Advance a task."""
        super().advance(task_id, advance)
        self.print_line(task_id)

    def print_line(self, task_id: TaskID) -> None:
        """Print a task's progress without a terminal, at most once per interval."""
        if console.is_terminal or monotonic() - self.last_line_at < LINE_INTERVAL:
            return
        self.last_line_at = monotonic()
        task = self.tasks[task_id]
        done = f"{task.description} {task.completed:,.0f} of {task.total or 0:,.0f}"
        left = "" if task.time_remaining is None else f"{timedelta(seconds=round(task.time_remaining))} left"
        parts = (done, task.fields["status"], left)
        console.print("  ".join(filter(None, parts)), soft_wrap=True)


def progress_bar(unit: str = "") -> Progress:
    """Return a bar with counts, rate and time left; ``status`` is a free text field of each task.

    ``with progress() as bar: task = bar.add_task("training", total=100, status="")``
    """
    return _LineProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit, markup=False),
        _RateColumn(table_column=Column(no_wrap=True, min_width=6)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn(
            "{task.fields[status]}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        console=console,
        refresh_per_second=4,
        expand=True,  # cuts the status if the line is too long
    )


class JsonLog:
    """A file of JSON lines, flushed after each line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - lives as long as the log

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; non-finite numbers become null. Raises RunError if the file is not writable."""
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
        """Turn a failed write into a RunError: unlike a message, a log must not be lost."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror or error}. Its earlier lines are intact: "
                "free some disk space, and continue as after an interruption"
            ) from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
