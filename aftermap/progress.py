"""How far a command is: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
from typing import Any

import click


class Progress:
    """A bar with the time left on a terminal, a plain line per tenth elsewhere, nothing when quiet; all on stderr."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, int] = {}

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description:9}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, stage: str, done: int, whole: int) -> None:
        if self._bar:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=whole)
            self._bar.update(self._tasks[stage], completed=done)
        elif not self._quiet:
            tenth = 10 * done // whole if whole else 10
            if self._said.get(stage) != tenth:
                self._said[stage] = tenth
                click.echo(f"{stage}: {done} of {whole}", err=True)
