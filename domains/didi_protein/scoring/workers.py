"""One function on many things, on as many processes as there are threads to use."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

FEWEST = 256  # things: starting processes for fewer takes longer than it saves
AT_ONCE = 16  # things handed to a process together

_function: Callable[[Any], Any] | None = None  # of a worker


def mapped(function: Callable[[T], R], things: Sequence[T], workers: int | None = None) -> Iterator[R]:
    """``map`` on several processes, in order.

    The processes are forks, so the function may hold whatever it likes; what it changes is lost. Where the system
    cannot fork, or a GPU is in use (which does not survive a fork), it runs here.

    Args:
        workers: processes; by custom torch's number of threads, which heeds OMP_NUM_THREADS.
    """
    count = torch.get_num_threads() if workers is None else workers
    unfit = "fork" not in multiprocessing.get_all_start_methods() or torch.cuda.is_initialized()
    if unfit or count < 2 or len(things) < FEWEST:
        yield from map(function, things)
        return
    with multiprocessing.get_context("fork").Pool(count, _begin, (function,)) as pool:
        yield from pool.imap(_call, things, AT_ONCE)


def _begin(function: Callable[[Any], Any]) -> None:
    """In a new process: take the function, and leave signals to the process that started it."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _call(thing: Any) -> Any:
    assert _function is not None
    return _function(thing)
