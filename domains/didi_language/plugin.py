"""The plugin through which didi_core finds this domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from didi_core.hookspecs import hookimpl
from didi_core.types import Domain


@hookimpl
def didi_register_domains() -> Mapping[str, Callable[..., Domain]]:
    return {"language": create}


def create(**data: Any) -> Domain:
    """``didi_language.create``, imported at first use so that other domains start without it."""
    from .prompted import create

    return create(**data)
