"""Ctrl-C, SIGTERM and SIGHUP stop a training between two steps, after it has saved a checkpoint.

So does SIGUSR2, where whoever started the job listens to it, as submitit does to put a job back into Slurm's queue. It
is handed on after the checkpoint.

A scheduler sends its signal to every process of a job, and torchrun hands on what it gets: so a process may be told
twice. Under torchrun, what comes within seconds of a signal is no second one.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from didi_core.processes import by_torchrun

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HANDED_ON = signal.SIGUSR2
REPEATED = 10.0  # seconds in which torchrun has handed on what has reached its processes too
_taken = float("-inf")  # when a signal was taken last


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Within, the first such signal is only recorded; the second interrupts. Yields a function: has one arrived?

    Outside the main thread, where Python handles no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            interrupt(number, frame)
        else:
            _take()
            asked.set()

    handed: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        del frame
        handed.append(number)
        asked.set()

    before = {number: signal.signal(number, note) for number in catchable()}
    if callable(signal.getsignal(HANDED_ON)):
        before[HANDED_ON] = signal.signal(HANDED_ON, hand_on)
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if handed:
            signal.raise_signal(HANDED_ON)


def catchable() -> list[signal.Signals]:
    """The signals that this process does not ignore; under nohup it ignores SIGHUP."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""
    for number in catchable():
        signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handler of these signals elsewhere: the command ends as after Ctrl-C."""
    del frame
    if _take():
        raise KeyboardInterrupt(signal.Signals(number).name)


def _take() -> bool:
    """Whether a signal is a new one."""
    global _taken
    new = not by_torchrun() or time.monotonic() - _taken > REPEATED
    _taken = time.monotonic() if new else _taken
    return new
