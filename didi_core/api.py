"""The commands as Python functions. ``import didi_core`` offers these names.

Settings are those of the command line, as Python values: nested (``training={"steps": 50}``) or with dotted keys
(``**{"training.steps": 50}``). A string for a group (``domain="toy"``, ``objective="didi_paper"``) chooses one of its
files; a mapping changes values in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import Any

from torch import nn

from didi_core.checkpoints.card import MODEL
from didi_core.domain.scoring import Scored
from didi_core.errors import InputError
from didi_core.progress import Bar, Reporter, Silent
from didi_core.sampling.generate import Generated, SamplerSettings, generate
from didi_core.storage.fingerprint import model_hash
from didi_core.storage.frame import html_frame
from didi_core.types import Denoiser, Domain, Sample, Scorer

OF_GENERATION = ("seed", "length", "batch_size", "templates", "scorer")


class Report(dict[str, Any]):
    """The content of a report.json, with the folder that holds it."""

    folder: Path

    def __init__(self, folder: Path) -> None:
        super().__init__(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        self.folder = folder

    def __repr__(self) -> str:
        return f"Report({len(self.get('rows', ()))} rows, folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The report's page, for a notebook."""
        return html_frame(self.folder)


class RunFolder(PosixPath):
    """A run directory as a path; in a notebook it shows its page."""

    def _repr_html_(self) -> str:
        return html_frame(self)


def load_student(run_dir: Path | str) -> nn.Module:
    """The denoiser of a run directory or model folder, on the CPU and in eval mode.

    Called with tokens [B, L] (padded with the vocabulary's pad id) it returns raw logits [B, L, >= V] at all positions.
    """
    from didi_core.checkpoints.card import load_denoiser

    return load_denoiser(run_dir)


def sample(source: Path | str | nn.Module, *, domain: Domain | str | None = None, **settings: Any) -> Generated:
    """Samples from a run directory, or from a denoiser and its ``domain``, with text and number of network calls.

    Args:
        settings: any key of ``configs/sample.yaml``: num, steps, sampler, law, grid, temperature, length, seed ...
            With a run directory also the keys of its domain: ``contig``, ``prompt`` ... (``configs/conditioning``).

    Raises:
        InputError: a network without its domain, an unknown key, or a value that does not fit.
    """
    if isinstance(source, nn.Module):
        if domain is None:
            raise InputError("sample needs domain=... beside a network: only a run directory names its domain.")
        return _sample_network(source, domain, settings)
    from didi_core.commands.sample import Source

    named = {} if domain is None else {"domain": domain}
    return _drawn({"run": source, **named, **settings}, Source.open)


def sample_networks(
    card: Mapping[str, Any], denoiser: Denoiser, scorer: Scorer | None, name: str, settings: Mapping[str, Any]
) -> Generated:
    """``sample`` for networks in memory beside their card. name: what they are called, for messages."""
    from didi_core.commands.sample import Source

    known = {**card, "sha256": {MODEL: model_hash(denoiser)}}
    return _drawn({"run": name, **settings}, lambda asked: Source.of_networks(known, denoiser, scorer, asked, name))


def _drawn(settings: Mapping[str, Any], opening: Callable[[Any], Any]) -> Generated:
    """Samples by the keys of ``sample``. opening: gives the ``Source`` for the composed settings."""
    from didi_core.commands.sample import draw

    asked, *_ = _composed("sample", settings)
    opened = opening(asked)
    return draw(asked, replace(opened, run=replace(opened.run, reporter=_reporter())))


def _reporter() -> Reporter:
    """A live bar in a terminal or a notebook; nothing elsewhere."""
    bar = Bar()
    return bar if bar.live else Silent()


def _sample_network(network: nn.Module, domain: Domain | str, settings: Mapping[str, Any]) -> Generated:
    """Samples from a network in memory."""
    from didi_core.commands.common import make_domain
    from didi_core.commands.setting import plain
    from didi_core.config import build, unknown_key

    own = {key: value for key, value in settings.items() if key in OF_GENERATION}
    asked = {key: plain(value) for key, value in settings.items() if key not in (*OF_GENERATION, "num")}
    known = SamplerSettings.__dataclass_fields__
    for key in asked:
        if key not in known:
            raise unknown_key(key, [*known, *OF_GENERATION, "num"])
    made = make_domain(domain, {}) if isinstance(domain, str) else domain
    return generate(made, network, settings=build(SamplerSettings, asked), num=settings.get("num", 10), **own)


def pretrain(**settings: Any) -> Path:
    """Train a teacher or a judge on data (``pretrain``). Returns the run directory."""
    return _finished(_folder("pretrain", settings))


def distill(**settings: Any) -> Path:
    """Distil a teacher into a few-step student (``distill``). Returns the run directory."""
    return _finished(_folder("distill", settings))


def _finished(made: Any) -> Any:
    """A run directory that shows itself; anything else (the plan of a ``dry_run``) as it is."""
    return RunFolder(made) if isinstance(made, Path) else made


def evaluate(**settings: Any) -> Report:
    """Compare a student with its teacher, or measure files of samples (``evaluate``). Returns report.json's content."""
    return Report(_folder("evaluate", settings))


def score(designs: Path | str | Generated | Sequence[Sample], **settings: Any) -> Scored:
    """Score designs one by one, from a file or as samples. Keys as on the command line (``fold="none"``, ``out=...``).

    The result has the written ``folder``, ``rows``, and ``to_frame()``.
    """
    from didi_core.commands.score import score_designs

    given = None
    if isinstance(designs, Path | str):
        settings = {"input": designs, **settings}
    else:
        given = list(designs.samples if isinstance(designs, Generated) else designs)
    return score_designs(*_composed("score", settings), given)


def shortlist(folder: Path | str | Scored, **settings: Any) -> Scored:
    """The scored designs that pass, with the keys of the command ``filter`` (``min={"plddt": 70}``, ``top=20``)."""
    from didi_core.commands.filter import filter_designs

    place = folder.folder if isinstance(folder, Scored) else folder
    return filter_designs(*_composed("filter", {"input": place, **settings}))


def demo(**settings: Any) -> None:
    """Serve the page of ``demo`` until it is interrupted (``didi_core.demo(host="0.0.0.0")`` in the app of a Space)."""
    _folder("demo", settings)


def _composed(name: str, settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Settings, configuration and command line of a command; says which defaults are the domain's."""
    from didi_core.commands import find
    from didi_core.commands.compose import compose_mapping
    from didi_core.config import build
    from didi_core.processes import current

    job = compose_mapping(name, settings)
    if job.note and current().first:
        print(job.note, flush=True)
    return build(find(name).settings, job.config), job.config, (name, *job.words)


def _folder(name: str, settings: Mapping[str, Any]) -> Path:
    """Compose and run a command. Returns its folder."""
    from didi_core.commands import find
    from didi_core.processes import joined

    command = find(name)
    with joined() if command.parallel else nullcontext():
        folder: Path = command.run(*_composed(name, settings))
    return folder
