"""``filter``: keep the designs of a score folder that pass, and of these the best and most diverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.commands.common import CommonSettings, make_domain, open_run
from didi_core.device import Machine
from didi_core.domain.scoring import Job, Scored, scoring_of
from didi_core.errors import DidiError, InputError, counted
from didi_core.progress import print_path


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/filter.yaml``. filtering: keys of the domain (``configs/filtering``), written without a prefix."""

    domain: str
    data: dict[str, Any] = field(default_factory=dict)
    input: Path | None = None
    out: Path | None = None
    filtering: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.input is None:
            raise InputError("input is missing: give input=<output folder of score>.")


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Scored:
    """Write the shortlist, and print its folder."""
    kept = filter_designs(settings, config, command_line)
    print_path(f"{counted(len(kept.rows), 'design')} kept", kept.folder)
    return kept


def filter_designs(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Scored:
    """The designs that pass. Raises DidiError if none does; the folder then still has the reasons."""
    domain = scoring_of(make_domain(settings.domain, settings.data))
    folder = settings.input or Path()
    if settings.out is not None and settings.out.resolve() == folder.resolve():
        raise InputError(f"out={settings.out} is the folder of the scores. Name another one.")
    with open_run("filter", domain.name, settings.out, config, command_line, key="out") as opened:
        machine = Machine.of(settings.device, settings.precision)
        kept = domain.shortlist(folder, settings.filtering, Job(opened, machine, settings.seed))
        if not kept:
            raise DidiError(f"no design passes. The reasons are in {opened.path / 'rejected.csv'}.")
        return Scored(opened.path, kept)
