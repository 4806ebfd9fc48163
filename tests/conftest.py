"""Fixtures shared by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # the hub's library reads it once, when it is imported: no test waits for a network


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real sequences and text: ``DIDI_DATA``, else the ``shared/data`` folder beside the repository."""
    named = os.environ.get("DIDI_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there (set DIDI_DATA to the folder)")
    return folder
