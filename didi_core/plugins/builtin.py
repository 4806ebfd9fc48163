"""The core's own laws, grids, samplers, objectives and rewards, offered through the same hooks as those of plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from didi_core.config import config_folder
from didi_core.diffusion import grids
from didi_core.diffusion import laws as unmasking
from didi_core.diffusion.grids import Grid
from didi_core.diffusion.laws import Law
from didi_core.hookspecs import hookimpl
from didi_core.objectives import registry, rewards
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.rewards import RewardSettings
from didi_core.sampling import catalogue as sampling
from didi_core.sampling.base import Sampler


@hookimpl
def didi_register_laws() -> Mapping[str, Law]:
    return {law.name: law for law in unmasking.BUILT_IN}


@hookimpl
def didi_register_grids() -> Mapping[str, type[Grid]]:
    return grids.BUILT_IN


@hookimpl
def didi_register_samplers() -> Mapping[str, type[Sampler]]:
    return sampling.BUILT_IN


@hookimpl
def didi_register_objectives() -> Mapping[str, type[ObjectiveSettings]]:
    return registry.BUILT_IN


@hookimpl
def didi_register_rewards() -> Mapping[str, type[RewardSettings]]:
    return rewards.BUILT_IN


@hookimpl
def didi_register_config_folders() -> Sequence[Path]:
    return [config_folder()]
