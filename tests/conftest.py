"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library reads it once, when it is imported: no test waits for a network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes with a thread each; torch reads it when imported


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real sequences and text, ``DIDI_DATA``."""
    named = os.environ.get("DIDI_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip(f"no real data: DIDI_DATA={named or ''} names no folder")
    return Path(named)
