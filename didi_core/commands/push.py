"""``push``: a model in a folder that stands alone, with a card made from its report, and on the Hugging Face hub."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from didi_core.checkpoints.card import MODEL, domain_name, model_folder, read_card
from didi_core.checkpoints.exporters import hub_files
from didi_core.checkpoints.hub import check_repository, upload
from didi_core.checkpoints.weights import count_parameters
from didi_core.commands.common import CommonSettings, make_domain
from didi_core.config import user_path
from didi_core.domain.abilities import HasTokenizer
from didi_core.errors import InputError
from didi_core.report.card_results import read_report
from didi_core.report.model_card import STUDENT, Published, model_card
from didi_core.storage.files import sha256, write_atomic, write_folder
from didi_core.storage.run_dir import RECORD, read_record

NONE, REPORT, README = "none", "report.json", "README.md"
ONE_SLASH = re.compile(r"[^./~][^/]*/[^/]+")  # owner/name; a folder is ./name, a name alone, or a longer path
OF_THE_CARD = {"licence": "licence", "attribution": "data_attribution", "limits": "limits"}  # keys: entries of the card


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/push.yaml``."""

    run: Path | None = None
    to: str | None = None
    out: Path | None = None
    report: str | None = None
    licence: str | None = None
    attribution: str | None = None
    limits: str | None = None
    private: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run is None:
            raise InputError("run is missing: give run=<run directory>.")
        if self.to is None:
            raise InputError("to is missing: give to=owner/name of the Hugging Face hub, or to=./<new folder>.")
        if "://" in self.to:
            raise InputError(f"to={self.to} is an address. Write the name alone: to=owner/name.")
        if self.hosted:
            check_repository(self.to)
        elif self.out is not None:
            raise InputError(f"out={self.out} and to={self.to} both name a folder: leave one out.")

    @property
    def hosted(self) -> bool:
        """Whether ``to`` names a repository of the hub, and not a folder."""
        return ONE_SLASH.fullmatch(self.to or "") is not None

    @property
    def folder(self) -> Path:
        """The folder to write."""
        if not self.hosted:
            return user_path(self.to or "")
        return self.out or Path("outputs") / "push" / (self.to or "") / time.strftime("%Y-%m-%d_%H-%M-%S")


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Write the folder and print how to load it; upload it where ``to`` is a name on the hub. Returns the folder.

    A folder that a command left behind which was stopped before its upload, or refused by the hub, is used again.
    """
    del config, command_line  # a pushed model is a folder of files, not a run
    out = settings.folder
    card = _write(settings, out)
    print(f"folder: {out} (read {README} before others do)")
    for key, value in _of_this_machine(card):
        print(f"note: the card holds data.{key}={value}, a path of this machine, which others do not have.")
    if settings.hosted:
        print(f"uploaded: {upload(out, str(settings.to), settings.private)}", flush=True)
    print(f"didi sample run={settings.to if settings.hosted else out} num=10")
    return out


def _write(settings: Settings, out: Path) -> dict[str, Any]:
    """Write the folder, or compare it with the one that is there to be uploaded. Returns the model's card."""
    if not settings.hosted or not (out / README).is_file():
        return _filled(settings, out)
    with TemporaryDirectory() as place:
        again = Path(place, out.name)
        card = _filled(settings, again)
        if _hashes(again) != _hashes(out):
            raise InputError(f"out={out} exists and is not what this command would write. Name a new folder.")
    return card


def _filled(settings: Settings, out: Path) -> dict[str, Any]:
    """Write a new folder. Returns the model's card."""
    source = settings.run or Path()
    model = model_folder(source)
    card = _card(settings, model)
    named = domain_name(card, f"run={settings.run}")
    report = _report(settings, model, card)
    files = hub_files(source, out, card)
    domain = make_domain(named, card.get("data") or {})
    name = str(settings.to) if settings.hosted else out.name

    def fill(folder: Path) -> None:
        files(folder)
        if isinstance(domain, HasTokenizer):
            domain.transformers_tokenizer().save_pretrained(folder)
        size = count_parameters(folder / MODEL)
        place = name if settings.hosted else f"./{name}"
        about = Published(name, card, size, report, place, isinstance(domain, HasTokenizer))
        write_atomic(folder / README, model_card(about))

    write_folder(out, fill)
    return card


def _hashes(folder: Path) -> dict[str, str]:
    """The hash of every file in a folder, by its path there."""
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


def _card(settings: Settings, model: Path) -> dict[str, Any]:
    """The model's card with what the settings add to it, and the command of its run."""
    card = read_card(model)
    added = {entry: getattr(settings, key) for key, entry in OF_THE_CARD.items() if getattr(settings, key) is not None}
    record = model.parent / RECORD
    if "command" not in card and record.is_file():
        added["command"] = shlex.join(["didi", *read_record(record).get("command_line", ())])
    return {**card, **added}


def _report(settings: Settings, model: Path, card: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report on the model. Raises InputError for a student without one, unless that is asked for."""
    if settings.report == NONE:
        return None
    if settings.report is not None:
        named = user_path(settings.report)
        return read_report(named / REPORT if named.is_dir() else named, card)
    beside = model.parent / REPORT
    if beside.is_file():
        return read_report(beside, card)
    if card.get("teacher") and not card.get("steps_matter"):
        raise InputError(
            f"run={settings.run} has no {REPORT}, and the card of a {STUDENT} shows results. Make one with `didi "
            f"evaluate run={settings.run} out=<folder>` and give report=<folder>, or report={NONE} for none."
        )
    return None


def _of_this_machine(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The keys of the domain that name a file or folder of this machine."""
    data = card.get("data") or {}
    named = [(key, value) for key, value in data.items() if isinstance(value, str) and "/" in value]
    return [(key, value) for key, value in named if Path(value).exists()]
