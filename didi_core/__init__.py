"""Distils masked diffusion models into few-step generators. See README.md, and ``didi --help``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from didi_core.catalogue import PLUGINS

if TYPE_CHECKING:
    from didi_core.api import demo, distill, evaluate, load_student, pretrain, sample, score, shortlist
    from didi_core.objectives.rewards import reward

    __version__: str

__all__ = ["demo", "distill", "evaluate", "load_student", "pretrain", "reward", "sample", "score", "shortlist"]


PLUGINS.load = lambda: importlib.import_module("didi_core.plugins").registry()


def __getattr__(name: str) -> Any:
    """The Python API, imported at first use, because torch takes seconds and ``--help`` does not need it."""
    if name == "reward":
        return importlib.import_module("didi_core.objectives.rewards").reward
    if name in __all__:
        return getattr(importlib.import_module("didi_core.api"), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("didi-core")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__")), "__version__"})
