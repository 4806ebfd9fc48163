"""Runs commands in forked children and kills them at their n-th operation on files below a folder.

Reads a JSON line {"words": [...], "folder": ..., "kill": n or 0} and answers {"code": ..., "operations": ...}. A child
that is killed has done the operations before the n-th, and of a write the first half.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILLED = 137
WATCHED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


class Killer:
    """Counts operations, and ends the process at one of them."""

    def __init__(self, folder: str, at: int) -> None:
        self.folder, self.at, self.count = folder, at, 0

    def inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(self.folder)

    def operation(self, half: Callable[[], object] | None = None) -> None:
        self.count += 1
        if self.count == self.at:
            if half is not None:
                half()
            os._exit(KILLED)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's audit hook."""
        if event in WATCHED and self.inside(arguments[0]):
            self.operation()
        elif event == "open" and self.inside(arguments[0]):
            flags = arguments[2]
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.operation()

    def patch(self) -> None:
        import safetensors.torch

        from didi_core.checkpoints import exporters, weights
        from didi_core.training import state

        sync, write, save = os.fsync, Path.write_bytes, safetensors.torch.save_file

        def fsync(descriptor: int) -> None:
            self.operation()
            sync(descriptor)

        def write_bytes(path: Path, data: bytes) -> int:
            if self.inside(path):
                self.operation(lambda: write(path, bytes(data)[: len(data) // 2]))
            return write(path, data)

        def save_file(tensors: Any, filename: Any, *rest: Any, **named: Any) -> None:
            def half() -> None:
                save(tensors, filename, *rest, **named)
                os.truncate(filename, os.path.getsize(filename) // 2)

            self.operation(half)
            save(tensors, filename, *rest, **named)

        os.fsync, Path.write_bytes = fsync, write_bytes  # type: ignore[assignment, method-assign]
        for module in (safetensors.torch, exporters, weights, state):
            module.save_file = save_file  # type: ignore[attr-defined]
        sys.addaudithook(self.hear)


def run(words: list[str], folder: str, kill: int) -> dict[str, int]:
    """One command in a child of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            killer = Killer(folder, kill)
            killer.patch()
            from didi_core.cli import main

            code = main(words)
            sys.stdout.flush()
            os.write(writing, str(killer.count).encode())
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    os.close(writing)
    counted = os.read(reading, 100)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "operations": int(counted or 0)}


def warm() -> None:
    """Import what commands need, and compute nothing: threads do not survive a fork."""
    import matplotlib.pyplot  # noqa: F401

    import didi_core.commands.compose  # noqa: F401
    from didi_core.commands import COMMANDS
    from didi_core.plugins import registry

    registry()
    for command in COMMANDS.values():
        if command.configured:
            command.settings  # noqa: B018


if __name__ == "__main__":
    warm()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
