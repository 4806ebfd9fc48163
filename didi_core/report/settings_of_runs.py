"""The settings in which runs of one objective differ, so that different settings do not count as seeds of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from didi_core.config import flatten
from didi_core.report.runs import RunReport

DECIDING = ("objective", "training", "student", "adapter")  # nodes of a configuration that change what a student learns
INDIFFERENT = tuple(
    f"training.{key}" for key in ("timeout", "log_every", "checkpoint_every", "accumulate", "activation_checkpointing")
)


def by_settings(runs: Sequence[RunReport]) -> dict[str, list[RunReport]]:
    """Runs by the name of their objective, followed by the settings in which runs of that objective differ."""
    named: dict[str, list[RunReport]] = {}
    for run in runs:
        named.setdefault(run.objective, []).append(run)
    found: dict[str, list[RunReport]] = {}
    for name, same in named.items():
        for run, setting in zip(same, differences([_deciding(run.config) for run in same]), strict=True):
            found.setdefault(" ".join(filter(None, (name, setting))), []).append(run)
    return found


def differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each configuration its keys whose values are not the same in all, as ``key=value`` with spaces between."""
    flat = [_leaves(config) for config in configs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({one.get(key) for one in flat}) > 1]
    kept = [key for key in keys if not any(key.startswith(f"{other}[") for other in keys)]
    return [" ".join(f"{key}={one[key]}" for key in kept if key in one) for one in flat]


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    return {node: config[node] for node in DECIDING if node in config}


def _leaves(config: Mapping[str, Any]) -> dict[str, str]:
    """Values as text, by dotted key. A list of groups has its kinds, and the keys of each group."""
    found: dict[str, str] = {}
    for key, value in flatten(config).items():
        if key in INDIFFERENT or isinstance(value, Mapping):
            continue
        groups = [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []
        if groups:
            found[key] = f"[{','.join(str(one.get('kind', '')) for one in groups)}]"
            for number, one in enumerate(groups):
                found |= _leaves({f"{key}[{number}]": one})
        else:
            found[key] = "null" if value is None else str(value).replace(" ", "")
    return found
