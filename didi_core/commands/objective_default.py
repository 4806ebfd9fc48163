"""Which objective a command has where neither the user nor an experiment chooses one: its domain's default.

``default_objective`` is a plain key of the command's file, and a domain's file may set it anew, as ``domain/toy.yaml``
does. A domain's file cannot override the group of Hydra itself, because other commands that read the file have no such
group, or another default. So the configuration is composed twice: without an objective, which gives the key, and with
the objective that it names.
"""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

KEY = "default_objective"
FOUND_BY = "objective={name}: the default of domain={domain}"


def default_objective(composed: DictConfig) -> Any:
    """The name to compose with, of a configuration with Hydra's own settings; None where an objective is chosen."""
    chosen = composed.hydra.runtime.choices
    return composed.get(KEY) if "objective" in chosen and chosen.objective is None else None


def taken_out(composed: DictConfig) -> dict[str, Any]:
    """The settings as plain containers, unresolved, without the key and what is Hydra's."""
    plain: Any = OmegaConf.to_container(composed)
    return {str(key): value for key, value in plain.items() if key not in (KEY, "hydra")}
