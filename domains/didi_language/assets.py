"""Files that ship inside the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

BUNDLED = "bundled"


def asset(name: str) -> Path:
    """Path of a file or folder that ships inside the package."""
    return Path(str(resources.files(__package__).joinpath("assets", name)))
