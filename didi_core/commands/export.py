"""``export``: a run's model as a Hugging Face folder, or in DiDi-Instruct's layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.checkpoints.exporters import FORMATS
from didi_core.commands.common import CommonSettings
from didi_core.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/export.yaml``."""

    run: Path | None = None
    format: str = "hf"
    out: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("run", "out"):
            if getattr(self, name) is None:
                raise InputError(f"{name} is missing: give {name}=<folder>.")
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Write the folder, and print how to load it."""
    del config, command_line  # an export is a folder of files, not a run
    out = settings.out or Path()
    print(FORMATS[settings.format](settings.run or Path(), out))
    return out
