"""Progress for a person: a live bar with the scalars that show a run's health, or plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

MEANINGFUL = 3  # steps after the first that an estimate of the time left needs
QUIET_SECONDS = 20.0  # between lines when the output is a file
RECENT = 4  # lines whose pace says how much time is left: later steps may cost more than earlier ones
BAR_WIDTH, TIME_WIDTH = 20, 7  # columns of a live bar, and of its time left
SHOWN = (
    "loss",
    "validation_loss",
    "scorer_loss",
    "scorer_accuracy",
    "fake_loss",
    "reward",
    "advantage_spread",
    "kl",
    "entropy",
    "gradient_norm",
)


class Reporter(Protocol):
    """Shows progress to a person. ``Bar`` draws a live bar, ``Silent`` shows nothing."""

    def start(self, title: str, total: int, done: int = 0) -> None: ...

    def advance(self, scalars: Mapping[str, float] | None = None, by: int = 1) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...


@dataclass
class Silent:
    """A reporter that shows nothing."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        del title, total, done

    def advance(self, scalars: Mapping[str, float] | None = None, by: int = 1) -> None:
        del scalars, by

    def message(self, text: str) -> None:
        del text

    def stop(self) -> None:
        return


@dataclass
class Bar:
    """A reporter with a live bar in a terminal or notebook, and plain lines elsewhere."""

    console: Console = field(default_factory=lambda: Console(stderr=True, markup=False))
    _progress: Progress | None = None
    _task: TaskID | None = None
    _title: str = ""
    _done: int = 0
    _total: int = 0
    _last_line: float = 0.0
    _before: int = 0
    # Steps and times from which the pace is taken. The first step, which also sets things up, does not count.
    _marks: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def live(self) -> bool:
        """Whether the output is a terminal or a notebook."""
        return self.console.is_terminal or self.console.is_jupyter

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Begin a bar of ``total`` steps (0: unknown), of which ``done`` are finished."""
        self._title, self._total, self._done, self._before = title, total, done, done
        self._last_line = time.monotonic()
        self._marks.clear()
        if not self.live:
            self.console.print(f"{title}: {done} of {total}" if total else title, highlight=False)
            return
        bar = BarColumn(bar_width=BAR_WIDTH)
        columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[scalars]}"), console=self.console)
        self._progress.start()
        self._task = self._progress.add_task(title, total=total or None, completed=done, scalars="")

    def advance(self, scalars: Mapping[str, float] | None = None, by: int = 1) -> None:
        """Advance by ``by`` steps, and show the scalars."""
        if self._done == self._before:
            self._marks.append((self._done + by, time.monotonic()))
        self._done += by
        if self._progress is not None and self._task is not None:
            shown = {"scalars": shorten(scalars, self._room)} if scalars else {}
            self._progress.update(self._task, advance=by, **shown)  # type: ignore[arg-type]
        elif time.monotonic() - self._last_line > QUIET_SECONDS or self._done == self._total:
            now = self._last_line = time.monotonic()
            of = f"/{self._total}" if self._total else ""
            line = f"{self._title} {self._done}{of}{self._left(now)} {shorten(scalars or {})}".rstrip()
            self.console.print(line, highlight=False, soft_wrap=True)
            self._marks.append((self._done, now))

    @property
    def _room(self) -> int:
        """Columns beside the bar. Scalars take no more, so that the bar and its time left stay in sight."""
        count = 2 * len(str(self._total or self._done)) + 1
        return self.console.width - len(self._title) - BAR_WIDTH - count - TIME_WIDTH - 4  # 4 gaps

    def _left(self, now: float) -> str:
        """Time left at the pace of the last lines, in words; empty before an estimate is possible."""
        done, since = self._marks[0]
        made, spent = self._done - done, now - since
        if made < MEANINGFUL or spent <= 0 or self._done >= self._total:
            return ""
        left = spent / made * (self._total - self._done)
        return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"

    def message(self, text: str) -> None:
        """A line above the bar."""
        (self._progress.console if self._progress else self.console).print(text, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Stop the bar where it is."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = None


def print_path(what: str, path: Path) -> None:
    """Print where something is: ``report: runs/1/report.html``. In a terminal the path is a link."""
    if not sys.stdout.isatty():
        print(f"{what}: {path}", flush=True)
        return
    link = Text(str(path), style=f"link {path.resolve().as_uri()}")
    Console(markup=False, highlight=False).print(Text.assemble(f"{what}: ", link), soft_wrap=True)


def in_a_line(text: str) -> str:
    """A sample's text in one line, without the characters that would steer a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def shorten(scalars: Mapping[str, float], room: int | None = None) -> str:
    """The most important scalars, in one short line: as many as ``room`` columns hold; None for all."""
    made = ""
    for name in SHOWN:
        longer = f"{made} {name}={scalars[name]:.4g}".lstrip() if name in scalars else made
        if room is not None and len(longer) > room:
            break
        made = longer
    return made


def counting(bar: Reporter) -> Callable[[int], None]:
    """A callback for the number finished so far, which advances the bar by the difference."""
    done = 0

    def progress(finished: int) -> None:
        nonlocal done
        if finished > done:
            bar.advance(by=finished - done)
        done = finished

    return progress
