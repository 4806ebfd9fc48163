"""Ctrl-C, SIGTERM and SIGHUP between two steps: a training saves a checkpoint before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Within, the first such signal is only noted: the function given says whether one came. The second interrupts.

    Outside the main thread, where Python takes no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            interrupt(number, frame)
        asked.set()

    before = {number: signal.signal(number, note) for number in catchable()}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def catchable() -> list[signal.Signals]:
    """The signals that are not ignored, as SIGHUP is under nohup."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does."""
    for number in catchable():
        signal.signal(number, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """What any of the signals does elsewhere: the command ends as by Ctrl-C."""
    del frame
    raise KeyboardInterrupt(signal.Signals(number).name)
