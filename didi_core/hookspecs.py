"""The hooks: what a plugin may offer (``didi_register_*``) and what it may listen to (``didi_on_*``).

A plugin is a module (or object) named by an entry point in the group ``didi.plugins``; each hook it implements is a
function marked with ``@hookimpl``. It implements the hooks it needs and may leave out arguments that it does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pluggy

from didi_core.types import Domain, Sample
from didi_core.unmasking import Law

PROJECT = "didi"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def didi_register_domains() -> Mapping[str, Callable[..., Domain]]:  # type: ignore[empty-body]
    """Domains by name. The factory gets the keys of the config node ``data`` and refuses those it does not know."""


@hookspec
def didi_register_laws() -> Mapping[str, Law]:  # type: ignore[empty-body]
    """Unmasking laws by name, for every sampler and rollout."""


@hookspec
def didi_register_config_folders() -> Sequence[Path]:  # type: ignore[empty-body]
    """Folders of YAML files that extend the config groups: ``domain/dna.yaml``, ``objective/mine.yaml`` ..."""


@hookspec
def didi_on_step(run_dir: Path, step: int, scalars: Mapping[str, float]) -> None:
    """A training step was logged."""


@hookspec
def didi_on_samples(run_dir: Path, samples: Sequence[Sample], record: Mapping[str, object]) -> None:
    """Samples were written; ``record`` says how they were made."""


@hookspec
def didi_on_run_end(run_dir: Path, record: Mapping[str, object]) -> None:
    """A run has done everything it was asked for; ``record`` is the content of run.json."""
