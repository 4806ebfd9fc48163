"""A process that is killed at its n-th operation on files, played within this one.

From the n-th operation on, every operation below the folder raises ``Killed``, which nothing catches: what runs while
it passes (``finally``, ``with``) changes nothing either, as in a process that is gone. Of a write, the first half is
done. Locks are released as files are closed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from markupsafe import Markup
from matplotlib.figure import Figure

from didi_core.checkpoints import exporters, weights
from didi_core.cli import WRONG, main
from didi_core.report import pictures, plots
from didi_core.storage import run_dir
from didi_core.training import state
from didi_protein.design_report import plots as design_plots

WATCHED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
CACHES = ("evaluation", "reference")
SAME = (  # must come out to the bit
    ".safetensors", ".jsonl", ".fasta", ".csv", "card.json", ".toml", ".py", ".bin", "README.md", "config.json"
)  # fmt: skip


class Killed(BaseException):
    """The process has ended."""


@dataclass
class Killer:
    """Counts operations on files below a folder; the one of number ``at``, and all after it, raise ``Killed``."""

    folder: str
    at: int = 0
    count: int = 0

    def inside(self, path: Any, descriptor: Any = -1) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        name = os.fsdecode(path)
        if isinstance(descriptor, int) and descriptor >= 0:
            name = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), name)
        return os.path.abspath(name).startswith(self.folder)

    def operation(self, half: Callable[[], object] | None = None) -> None:
        self.count += 1
        if self.at and self.count >= self.at:
            if half is not None and self.count == self.at:
                half()
            raise Killed

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook."""
        if event in WATCHED:
            descriptor = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            if self.inside(arguments[0], descriptor):
                self.operation()
        elif event == "open" and self.inside(arguments[0]):
            flags = arguments[2]
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.operation()


def undrawn(canvas: Figure, name: str, caption: str) -> pictures.Plot:
    """A picture that takes no time."""
    return pictures.Plot(name, caption, b"\x89PNG", Markup("<svg></svg>"))


listening: list[Killer] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for killer in listening:
        killer.hear(event, arguments)


sys.addaudithook(_hear)  # it cannot be taken away again


@contextmanager
def killing(killer: Killer) -> Iterator[None]:
    """Within, operations are counted, and pictures are not drawn: the files are the same."""
    write, save = Path.write_bytes, safetensors.torch.save_file

    def write_bytes(path: Path, data: bytes) -> int:
        if killer.inside(path):
            killer.operation(lambda: unheard(write, path, bytes(data)[: len(data) // 2]))
        return write(path, data)

    def save_file(tensors: Any, filename: Any, *rest: Any, **named: Any) -> None:
        def half() -> None:
            unheard(save, tensors, filename, *rest, **named)
            unheard(os.truncate, filename, os.path.getsize(filename) // 2)

        killer.operation(half)
        save(tensors, filename, *rest, **named)

    def unheard(call: Callable[..., object], *values: Any, **named: Any) -> None:
        listening.remove(killer)
        call(*values, **named)
        listening.append(killer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: killer.operation())
        patch.setattr(Path, "write_bytes", write_bytes)
        for module in (safetensors.torch, exporters, weights, state):
            patch.setattr(module, "save_file", save_file)
        patch.setattr(pictures, "finish", undrawn)
        for module in (plots, design_plots):
            patch.setattr(module, "finish", undrawn)
        patch.setattr(Figure, "draw_without_rendering", lambda self: None)
        patch.setattr(run_dir, "git_commit", lambda: None)
        listening.append(killer)
        try:
            yield
        finally:
            listening.remove(killer)


def play(words: list[str], folder: Path, kill: int = 0) -> tuple[int | None, int, str]:
    """A command, killed at operation ``kill``: its exit code (None if killed), the operations, and what it said."""
    killer, said = Killer(str(folder), kill), StringIO()
    try:
        with killing(killer), redirect_stdout(said), redirect_stderr(said):
            return main(words), killer.count, said.getvalue()
    except Killed:
        return None, killer.count, said.getvalue()


def into(words: list[str], folder: Path) -> list[str]:
    """The words with the folder that they write to: at the end, and wherever they say FOLDER."""
    key, _, below = words[-1].partition("=")
    return [*(word.replace("FOLDER", str(folder)) for word in words[:-1]), f"{key}={folder}{below}"]


def content(folder: Path) -> dict[str, bytes]:
    """The files that must come out the same, checkpoints left out: an older one may be gone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and path.name.endswith(SAME) and "checkpoints" not in name and path.name != "metrics.jsonl":
            found[name] = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
            if path.parent.name in CACHES:  # their first line says how long it took
                found[name] = found[name].partition(b"\n")[2]
            if path.name == "card.json":  # and a card when the file was made from a path, so does its own hash
                found[name] = json.dumps({**json.loads(found[name]), "card_sha256": ""}).encode()
    return found


@dataclass
class Outcome:
    """Of some kills: how many were tried, how many repetitions went on from a checkpoint, and what was wrong."""

    name: str
    tried: int = 0
    resumed: int = 0
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        same = self.tried - len(self.wrong)
        went_on = f"; {self.resumed} went on from a checkpoint" if self.resumed else ""
        return f"{self.name}: {same} of {self.tried} kills survived with the same files{went_on}"


def outcome(name: str, words: list[str], place: Path, kills: list[int], expected: dict[str, bytes]) -> Outcome:
    """Kill a command at these operations, and repeat it each time."""
    found = Outcome(name)
    for kill in kills:
        folder = place / f"k{kill}" / "x"
        folder.parent.mkdir(parents=True)
        killed, _, before = play(into(words, folder), folder, kill)
        if killed == 0:  # it came to its end: libraries write a file more when they are used for the first time
            continue
        again, _, after = play(into(words, folder), folder)
        taken = again == WRONG and words[0] in ("export", "new-plugin", "push")  # it was complete: its place is taken
        left = [str(path) for path in folder.parent.rglob("*.part")]
        differ = sorted(k for k in {*expected, *content(folder)} if expected.get(k) != content(folder).get(k))
        found.tried += 1
        found.resumed += "continuing after step" in after
        if killed is not None or not (again == 0 or taken) or differ or left:
            told = f"operation {kill}: {killed}, then {again}; differ: {differ}; left: {left}"
            found.wrong += (f"{told}\n{before[-300:]}\n-- then\n{after[-600:]}",)
    return found
