"""Commands in several processes, with the environment that torchrun gives them, and in one to compare with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch.distributed as dist


def start(arguments: Sequence[str], size: int = 2) -> tuple[list[subprocess.Popen[str]], object]:
    """Processes with the environment that torchrun gives them, and the store that its agent would keep."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    return started, store


def outcome(arguments: Sequence[str], size: int = 2) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, what went to stdout and to stderr, of processes that ran to their end."""
    started, store = start(arguments, size)
    told = [process.communicate(timeout=240) for process in started]
    del store
    return [process.returncode for process in started], [out for out, _ in told], [err for _, err in told]


def alone(arguments: Sequence[str]) -> None:
    """The command in one process with one thread, which computes each part as a process of several does."""
    command = [sys.executable, "-m", "didi_core", *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
