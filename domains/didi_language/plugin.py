"""How didi_core finds this domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from didi_core.hookspecs import hookimpl
from didi_core.types import Domain

from .domain import create


@hookimpl
def didi_register_domains() -> Mapping[str, Callable[..., Domain]]:
    return {"language": create}
