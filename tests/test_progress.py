"""What a person sees while something runs: a live bar in a terminal, plain lines in a file."""

from __future__ import annotations

import io
import itertools
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from didi_core.progress import SHOWN, Bar, counting, in_a_line, print_path, shorten

SCALARS = dict.fromkeys(SHOWN, -0.123456)


def console(width: int, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, markup=False, color_system=None)


def written(bar: Bar) -> str:
    assert isinstance(bar.console.file, io.StringIO)
    return bar.console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120, 300])
@pytest.mark.parametrize("total", [0, 9, 100_000])
def test_scalars_leave_the_bar_its_room(width: int, total: int) -> None:
    """In a line of any width the title, the count and the time left are whole, and so is every scalar shown."""
    bar = Bar(console(width, terminal=True))
    bar.start("distill: warm-up", total)
    for _ in range(4):
        bar.advance(SCALARS)
    bar.stop()
    last = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", written(bar)).strip().rpartition("\r")[2]
    assert re.search(rf"^distill: warm-up .* 4/{total} +[-:0-9]{{7}}" if total else "^distill: warm-up .* 4/[?]", last)
    shown = [word for word in last.split() if "=" in word]
    assert all(word.endswith("=-0.1235") for word in shown) and (len(shown) == len(SHOWN)) == (width == 300)


@pytest.mark.parametrize(
    ("room", "made"), [(None, "loss=2 kl=1"), (11, "loss=2 kl=1"), (10, "loss=2"), (5, ""), (-3, "")]
)
def test_scalars_are_whole_or_absent(room: int | None, made: str) -> None:
    assert shorten({"kl": 1.0, "loss": 2.0, "unknown": 3.0}, room) == made


def test_a_file_gets_few_lines_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(step=5.0)
    monkeypatch.setattr("didi_core.progress.time.monotonic", lambda: next(now))
    bar = Bar(console(200, terminal=False))
    bar.start("distill", 40)
    for _ in range(40):
        bar.advance({"loss": 1.0})
    lines = written(bar).splitlines()
    assert lines[0] == "distill: 0 of 40" and lines[-1] == "distill 40/40 loss=1"
    assert 3 < len(lines) < 20 and any(" left loss=1" in line for line in lines[1:-1])


def test_what_is_finished_together_counts_together() -> None:
    bar = Bar(console(80, terminal=False))
    bar.start("sample", 10)
    progress = counting(bar)
    for finished in (3, 3, 10):
        progress(finished)
    assert written(bar).splitlines()[-1] == "sample 10/10"


def test_the_time_left_follows_steps_that_become_dearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """120 steps of a second, then 80 of five: after forty of these the others take some three minutes."""
    now = 0.0
    bar = Bar(console(200, terminal=False))
    monkeypatch.setattr("didi_core.progress.time.monotonic", lambda: now)
    bar.start("distill", 200)
    for step in range(1, 161):
        now += 1.0 if step <= 120 else 5.0
        bar.advance()
    (last,) = re.findall(r"distill (\d+)/200, about (\d+) min left", written(bar).splitlines()[-1])
    assert int(last[0]) >= 156 and last[1] in "34"


def test_the_time_left_does_not_count_what_the_first_batch_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    bar = Bar(console(80, terminal=False))
    monkeypatch.setattr("didi_core.progress.time.monotonic", lambda: now)
    bar.start("sample", 12)
    progress = counting(bar)
    now = 100.0  # with all that is set up once
    progress(4)
    now = 130.0
    progress(8)
    assert "8/12, about 30 s left" in written(bar)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_place_is_a_link_in_a_terminal_only(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long it is, it stands in one line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    place = tmp_path / "a folder" / "[red]report.html"
    print_path("report", place)
    out = capsys.readouterr().out
    assert (place.as_uri() in out) is terminal
    assert re.sub(r"\x1b\]8;[^\x1b]*\x1b\\|\x1b\[[\d;]*m", "", out) == f"report: {place}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [("MKT", "MKT"), ("a\n\n b\tc", "a b c"), ("a\x1b[2Jb", "a [2Jb"), ("\x07\x08", ""), ("\u202eabc é", "abc é")],
)
def test_a_sample_cannot_steer_the_terminal(text: str, line: str) -> None:
    assert in_a_line(text) == line
