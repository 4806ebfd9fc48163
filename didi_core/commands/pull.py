"""``pull``: a model of the Hugging Face hub as a run directory, which needs no network any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.checkpoints.card import has_card, model_folder, read_card
from didi_core.checkpoints.hub import locate
from didi_core.checkpoints.importers import import_checkpoint
from didi_core.commands.common import CommonSettings, make_domain
from didi_core.commands.importing import README, Origin, write_run
from didi_core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/pull.yaml``."""

    source: str | None = None
    run_dir: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is None:
            raise InputError("source is missing: give source=owner/name of the Hugging Face hub.")


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Fetch the model, check it, and write a run directory with its README. Returns the directory."""
    source = settings.source or ""
    path = locate(source)
    if not has_card(path):
        raise InputError(
            f"source={source} was not written by `didi push`, so nothing says what its tokens are. Use didi import "
            f"source={source} domain=<name>."
        )
    folder = model_folder(path)
    card = read_card(folder)
    if card.get("domain") is None:
        raise InputError(f"source={source} has no domain in its card: use didi import source={source} domain=<name>.")
    domain, data = make_domain(card["domain"], card.get("data") or {}), card.get("data") or {}
    found = import_checkpoint(str(folder), domain.vocabulary)
    readme = folder / README
    origin = Origin("pull", source, settings.run_dir, config, command_line, readme if readme.is_file() else None)
    return write_run(found, domain, data, origin)
