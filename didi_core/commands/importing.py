"""``import``: turn a checkpoint of other code into a run directory for ``sample``, ``evaluate`` and ``teacher=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from didi_core.checkpoints.card import MODEL, OF_THE_FILES, SCORER, save_model, save_scorer
from didi_core.checkpoints.importers import WEIGHTS, Imported, import_checkpoint
from didi_core.commands.common import CommonSettings, about_domain, make_domain, open_run
from didi_core.errors import InputError, at_least, unknown
from didi_core.progress import print_path
from didi_core.storage.files import write_atomic
from didi_core.types import Domain

README = "README.md"


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """``configs/import.yaml``."""

    source: str | None = None
    run_dir: Path | None = None
    domain: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    weights: str = "auto"
    heads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is None:
            raise InputError("source is missing: give source=<file, folder or hub id>.")
        if self.domain is None:
            raise InputError("domain is missing: give the domain that the checkpoint writes, such as domain=language.")
        if self.weights not in WEIGHTS:
            raise unknown("weights", self.weights, WEIGHTS)
        if self.heads is not None:
            at_least(1, heads=self.heads)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from, and the command that brings it. readme: a page on it, which is put into the run."""

    command: str
    source: str
    run_dir: Path | None
    config: Mapping[str, Any]
    command_line: tuple[str, ...]
    readme: Path | None = None


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Path:
    """Read the checkpoint, write ``student/``, and print what was used and what was not."""
    domain = make_domain(settings.domain or "", settings.data)
    source = settings.source or ""
    found = import_checkpoint(source, domain.vocabulary, weights=settings.weights, heads=settings.heads)
    return write_run(found, domain, settings.data, Origin("import", source, settings.run_dir, config, command_line))


def write_run(found: Imported, domain: Domain, data: Mapping[str, Any], origin: Origin) -> Path:
    """Write what was imported as a run directory. data: the keys of its domain."""
    with open_run(origin.command, domain.name, origin.run_dir, origin.config, origin.command_line) as opened:
        folder = opened.path / "student"
        about = {
            **about_domain(domain, data),
            **{key: value for key, value in found.card.items() if key not in OF_THE_FILES},
            "imported": {
                "source": origin.source,
                "layout": found.layout,
                "weights": found.weights,
                "ignored": dict(found.ignored),
            },
        }
        card = save_model(folder, found.denoiser, about)
        if found.scorer is not None:
            save_scorer(folder, found.scorer)
        else:
            (folder / SCORER).unlink(missing_ok=True)
        if origin.readme is not None:
            write_atomic(opened.path / README, origin.readme.read_bytes())
        opened.note(hashes={"model": card["sha256"]})
        _report(found)
        print_path("model", folder / MODEL)
    return opened.path


def _report(found: Imported) -> None:
    """Print what was used of a checkpoint, and what was not."""
    print(f"layout: {found.layout}; weights: {found.weights}; denoiser: {_size(found.denoiser)}")
    print(f"scorer: {_size(found.scorer) if found.scorer is not None else 'none in the checkpoint'}")
    for name, why in found.ignored.items():
        print(f"not used: {name} ({why})")


def _size(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:,.1f} M parameters"
