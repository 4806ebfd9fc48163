"""One function applied to many items, on as many processes as there are threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from didi_core.errors import DidiError

T = TypeVar("T")
R = TypeVar("R")

FEWEST = 256  # items; for fewer, starting processes takes longer than it saves
AT_ONCE = 16  # items that a process gets at a time

_function: Callable[[Any], Any] | None = None  # of a worker


def mapped(function: Callable[[T], R], things: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """``map`` on several processes, in order.

    The processes are forks, so the function may hold any objects, but its changes to them are lost. If the system
    cannot fork, or a GPU is in use (which does not survive a fork), the function runs in this process.

    Args:
        workers: processes; by default torch's number of threads, which heeds OMP_NUM_THREADS.

    Raises:
        DidiError: a process was killed, as the system does where memory runs out.
    """
    count = torch.get_num_threads() if workers is None else workers
    unfit = "fork" not in multiprocessing.get_all_start_methods() or torch.cuda.is_initialized()
    if unfit or count < 2 or len(things) < FEWEST:
        yield from map(function, things)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, fork, _begin, (function,)) as pool:
        try:
            yield from pool.map(_call, things, chunksize=AT_ONCE)
        except BrokenProcessPool:
            raise DidiError(
                f"One of {count} processes was killed: did memory run out? OMP_NUM_THREADS=1 works in a single process."
            ) from None


def _begin(function: Callable[[Any], Any]) -> None:
    """Initialise a new process: set its function, and leave signals to the parent process."""
    global _function
    _function = function
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to every process
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process with its parent; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that was started by another one calls this"
    parent.join()
    os._exit(1)


def _call(thing: Any) -> Any:
    assert _function is not None, "_begin runs first in every process"
    return _function(thing)
