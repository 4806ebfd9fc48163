"""Several processes give what one gives, in the same order."""

from __future__ import annotations

import os
import signal

import pytest

from didi_core.errors import DidiError
from didi_protein.scoring import workers
from didi_protein.scoring.workers import mapped


def test_results_come_in_order_from_other_processes() -> None:
    offset = 3  # a closure: nothing of it is pickled
    found = list(mapped(lambda i: (i + offset, os.getpid()), range(300), workers=2))
    assert [value for value, _ in found] == list(range(3, 303))
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize(("count", "many"), [(1, 300), (2, workers.FEWEST - 1)])
def test_few_things_and_one_thread_stay_here(count: int, many: int) -> None:
    assert set(mapped(lambda _: os.getpid(), range(many), workers=count)) == {os.getpid()}


def test_a_gpu_in_use_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.torch.cuda, "is_initialized", lambda: True)
    assert set(mapped(lambda _: os.getpid(), range(300), workers=2)) == {os.getpid()}


def test_an_error_in_a_process_is_an_error_here() -> None:
    def fail(i: int) -> int:
        if i == 200:
            raise ValueError("bad 200")
        return i

    rows = mapped(fail, range(300), workers=2)
    with pytest.raises(ValueError, match="bad 200"):
        list(rows)


def test_a_killed_process_ends_in_a_message() -> None:
    def die(i: int) -> int:
        if i == 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    with pytest.raises(DidiError, match="One of 2 processes was killed: did memory run out"):
        list(mapped(die, range(300), workers=2))
