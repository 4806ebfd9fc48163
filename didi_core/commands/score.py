"""``score``: score designs from files one by one; an interrupted run continues where it stopped."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.commands.common import CommonSettings, make_domain, make_reporter, open_run
from didi_core.device import Machine
from didi_core.domain.scoring import Job, Scored, ScoresAgain, ScoresDesigns, SharesScoring, scoring_of
from didi_core.errors import InputError, counted
from didi_core.processes import current
from didi_core.progress import print_path
from didi_core.storage.run_dir import differing_keys
from didi_core.types import Sample


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/score.yaml``.

    labels: origin of each file of ``input``, for curves and colours.
    scoring: keys of the domain (``configs/scoring``), written without ``scoring.``.
    """

    domain: str
    data: dict[str, Any] = field(default_factory=dict)
    input: tuple[Path, ...] | None = None
    labels: tuple[str, ...] = ()
    out: Path | None = None
    scoring: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels and len(self.labels) != len(self.input or ()):
            raise InputError(
                f"labels={list(self.labels)} are {len(self.labels)} for {len(self.input or ())} files of input: "
                "give one for each file."
            )


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Scored:
    """Score the designs, and print the folder of the table."""
    scored = score_designs(settings, config, command_line)
    print_path(f"{counted(len(scored.rows), 'design')} scored", scored.folder)
    print(f"next: didi filter {shlex.quote(f'input={scored.folder}')} preset=standard top=20")
    return scored


def score_designs(
    settings: Settings,
    config: Mapping[str, Any],
    command_line: tuple[str, ...],
    designs: Sequence[Sample] | None = None,
) -> Scored:
    """Score the files of ``input``, or the given designs.

    Raises:
        InputError: there are no designs, or other ones than those the folder has scores of.
    """
    domain, processes = scoring_of(make_domain(settings.domain, settings.data)), current()
    if processes.size > 1 and not (isinstance(domain, SharesScoring) and domain.shares_scoring):
        raise InputError(f"domain={settings.domain} scores designs in one process: start score without torchrun.")
    if designs is None:
        if not settings.input:
            raise InputError("input is missing: give input=<file of designs>, or a list of files.")
        designs = domain.read_designs(settings.input, settings.labels)
    changed: list[str] = []
    again = _again(domain, settings, config, changed)
    with open_run("score", domain.name, settings.out, config, command_line, "out", again) as opened:
        digest = hashlib.sha256("\n".join(f"{d.id} {d.text}" for d in designs).encode()).hexdigest()
        known = opened.record.get("designs", digest)
        if known != digest:
            raise InputError(
                f"{opened.path} holds scores of other designs under the same names: input has changed since then. "
                "Give another out."
            )
        machine = Machine.of(settings.device, settings.precision)
        processes.check_device(machine.device)
        opened.note(designs=digest, device=machine.label, count=len(designs))
        job = Job(opened, machine, settings.seed, make_reporter(), processes)
        if changed:
            job.message(f"scored before with other settings ({'; '.join(changed)}): what they leave as it was is kept")
            opened.note(command_line=list(command_line))
        return Scored(opened.path, domain.score(designs, settings.scoring, job))


def _again(
    domain: ScoresDesigns, settings: Settings, config: Mapping[str, Any], changed: list[str]
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """For ``RunDirectory.open``: the configuration of a score folder, with the domain's keys of now if it goes on so.

    Args:
        changed: is filled with the keys that do.
    """

    def upgraded(before: Mapping[str, Any]) -> Mapping[str, Any]:
        keys, now = before.get("scoring"), config.get("scoring", {})
        if settings.out is None or not isinstance(keys, Mapping) or not isinstance(domain, ScoresAgain):
            return before
        differing = differing_keys(keys, now)
        if not differing or not domain.may_score_again(settings.out, keys, settings.scoring):
            return before
        changed.extend(differing)
        return {**before, "scoring": now}

    return upgraded
