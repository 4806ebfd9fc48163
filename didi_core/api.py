"""didi_core from Python: what the commands do, as functions. ``import didi_core`` offers these names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from didi_core.domain.scoring import Scored
from didi_core.errors import InputError
from didi_core.sampling.generate import Generated, SamplerSettings, generate
from didi_core.types import Domain, Sample


def load_student(run_dir: Path | str) -> nn.Module:
    """The denoiser of a run directory or model folder, on the CPU, in eval mode.

    Called with tokens [B, L] (padding by the vocabulary's pad id) it returns raw logits of all positions, [B, L, >= V].
    """
    from didi_core.checkpoints.card import load_denoiser

    return load_denoiser(run_dir)


def sample(
    source: Path | str | nn.Module, *, num: int = 10, steps: int = 16, domain: Domain | None = None, **settings: Any
) -> Generated:
    """Samples with text and network calls, from a run directory (or a denoiser and its ``domain``).

    Args:
        settings: any key of ``configs/sample.yaml``: sampler, law, grid, temperature, length, template, seed ...
            With a run directory also the keys of its domain: ``contig``, ``prompt`` ... (``configs/conditioning``).
    """
    if isinstance(source, nn.Module):
        if domain is None:
            raise InputError("sample needs domain=... beside a network: only a run directory says what it writes.")
        own = {key: settings.pop(key) for key in ("seed", "length", "batch_size", "templates") if key in settings}
        return generate(domain, source, settings=SamplerSettings(steps=steps, **settings), num=num, **own)
    from didi_core.commands.sample import Settings, Source, draw

    wishes = {key: settings.pop(key) for key in list(settings) if key not in Settings.__dataclass_fields__}
    asked = Settings(run=Path(source), num=num, steps=steps, conditioning=wishes, **settings)
    return draw(asked, Source.open(asked))


def distill(**settings: Any) -> Path:
    """Run ``distill`` with keys as on the command line (``**{"training.steps": 50}``); returns the run directory."""
    return _command("distill", settings)


def evaluate(**settings: Any) -> dict[str, Any]:
    """Run ``evaluate`` with keys as on the command line; returns the content of report.json."""
    report: dict[str, Any] = json.loads((_command("evaluate", settings) / "report.json").read_text())
    return report


def score(designs: Path | str | Generated | Sequence[Sample], **settings: Any) -> Scored:
    """Score designs one by one: a file of them, or samples. Keys as on the command line (``fold="none"``, ``out=...``).

    The result has the ``folder`` that was written, ``rows``, and ``to_frame()``.
    """
    from didi_core.commands.score import score_designs

    given = None
    if isinstance(designs, Path | str):
        settings = {"input": designs, **settings}
    else:
        given = list(designs.samples if isinstance(designs, Generated) else designs)
    return score_designs(*_composed("score", settings), given)


def shortlist(folder: Path | str | Scored, **settings: Any) -> Scored:
    """The scored designs that pass: the command ``filter``, with its keys (``**{"min.plddt": 70}``, ``top=20``)."""
    from didi_core.commands.filter import filter_designs

    place = folder.folder if isinstance(folder, Scored) else folder
    return filter_designs(*_composed("filter", {"input": place, **settings}))


def _composed(name: str, settings: dict[str, Any]) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Settings, configuration and command line of a command."""
    from didi_core.commands import find
    from didi_core.commands.compose import compose_jobs
    from didi_core.config import build

    words = [f"{key}={_written(value)}" for key, value in settings.items()]
    config = compose_jobs(name, words)[0].config
    return build(find(name).settings, config), config, (name, *words)


def _command(name: str, settings: dict[str, Any]) -> Path:
    """Compose, run, and tell where the results are."""
    from didi_core.commands import find
    from didi_core.processes import joined
    from didi_core.storage.run_dir import RunDirectory

    command = find(name)
    with joined() if command.parallel else nullcontext():
        command.run(*_composed(name, settings))
    if RunDirectory.current is None:
        raise RuntimeError(f"{name} opened no run directory")
    return RunDirectory.current


def _written(value: Any) -> str:
    """A value as the command line writes it."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    return "null" if value is None else str(value)
