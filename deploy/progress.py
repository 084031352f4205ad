"""Progress on a terminal as bars (rich), elsewhere as plain lines on stderr."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars


class TerminalProgress:
    """A bar a stage on a terminal; a line a stage, and one each ten seconds, where there is none."""

    def __init__(self, quiet: bool = False) -> None:  # noqa: FBT001, FBT002
        self._console = Console(stderr=True, quiet=quiet)
        self._bars: Bars | None = None
        if self._console.is_terminal and not quiet:
            self._bars = Bars(
                SpinnerColumn(finished_text="✓"),
                TextColumn("{task.description:<12}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
        self._quiet, self._name, self._task = quiet, "", TaskID(0)
        self._started = self._spoken = time.perf_counter()

    def __enter__(self) -> "TerminalProgress":
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        if self._bars:
            self._bars.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; the one before it is done."""
        self._finish()
        self._name, self._started = name, time.perf_counter()
        self._spoken = self._started
        if self._bars:
            self._task = self._bars.add_task(name, total=total, note="")

    def advance(self, done: int, total: int | None = None, note: str = "") -> None:
        """The current stage has done that many units of work."""
        if self._bars:
            self._bars.update(self._task, completed=done, total=total, note=note)
        elif not self._quiet and time.perf_counter() - self._spoken > 10:
            self._spoken = time.perf_counter()
            of = f" of {total:,}" if total else ""
            sys.stderr.write(f"{self._name}: {done:,}{of} {note}\n")

    def _finish(self) -> None:
        if not self._name:
            return
        if self._bars:
            task = self._bars.tasks[self._task]
            total = task.total or max(task.completed, 1)
            self._bars.update(self._task, total=total, completed=total)
        elif not self._quiet:
            sys.stderr.write(f"{self._name}: done in {time.perf_counter() - self._started:.1f} s\n")
        self._name = ""
