"""The plugin through which didi_core finds this domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from didi_core.hookspecs import hookimpl
from didi_core.types import Domain

from .domain import DnaDomain

DIDI_INTERFACE = 2


@hookimpl
def didi_register_domains() -> Mapping[str, Callable[..., Domain]]:
    return {"dna": DnaDomain}


@hookimpl
def didi_register_config_folders() -> Sequence[Path]:
    return [Path(__file__).parent / "configs"]
