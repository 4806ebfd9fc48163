"""Rewards by name, and the list ``objective.reward``: the scores that the student maximises, each with its weight.

    reward:
      - kind: scorer
      - {kind: log_ratio, credit: expected, weight: 0.5, updates: 2}

An entry has a kind, a ``weight``, keys of ``objective.critic`` for its own network, and the keys of its kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from didi_core.catalogue import Catalogue
from didi_core.config import build, convert, unknown_key
from didi_core.errors import InputError
from didi_core.objectives.rewards.base import Context, Corrupted, CriticSettings, Reward, RewardSettings, corrupt
from didi_core.objectives.rewards.log_ratio import LogRatioSettings
from didi_core.objectives.rewards.scorer import ScorerSettings
from didi_core.objectives.rewards.text import TextFunction, reward

__all__ = [
    "REWARDS",
    "Corrupted",
    "Entry",
    "Reward",
    "RewardSettings",
    "TextFunction",
    "corrupt",
    "read_rewards",
    "reward",
]

BUILT_IN: dict[str, type[RewardSettings]] = {"scorer": ScorerSettings, "log_ratio": LogRatioSettings}
REWARDS: Catalogue[type[RewardSettings] | TextFunction] = Catalogue("reward", BUILT_IN)
OWN = ("kind", "weight")
CRITIC = tuple(field.name for field in dataclasses.fields(CriticSettings))


@dataclass(frozen=True)
class Entry:
    """One entry of the list: kind and settings of the reward, its weight, and how its network learns."""

    kind: str
    rule: RewardSettings
    weight: float
    critic: CriticSettings


def read_rewards(
    given: Any, critic: CriticSettings, each: Mapping[str, Any] | None = None, where: str = "objective.reward"
) -> tuple[Entry, ...]:
    """The entries of a list of rewards. A single reward counts as a list of one; an entry may be a name or a function.

    Args:
        critic: how networks learn, unless the entry has its own settings.
        each: settings for every reward that has such keys.

    Raises:
        InputError: an unknown reward, a key that it does not have, or a value out of range.
    """
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not listed:
        raise InputError(f"{where} is empty: give at least one reward, as {where}=[scorer].")
    plain = [_as_mapping(item, f"{where}[{i}]") for i, item in enumerate(listed)]
    named = [_settings_of(item["kind"], f"{where}[{i}].kind") for i, item in enumerate(plain)]
    kinds = [kind for _, kind in named]
    plain = _spread(each or {}, [item | {"kind": name} for item, (name, _) in zip(plain, named, strict=True)], kinds)
    return tuple(
        _read(item, kind, critic, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(plain, kinds, strict=True))
    )


def _as_mapping(item: Any, where: str) -> dict[str, Any]:
    if isinstance(item, str) or callable(item):
        item = {"kind": item}
    if not isinstance(item, Mapping) or "kind" not in item:
        raise InputError(f"{where}={item!r} names no reward: write a name, or {{kind: <name>, weight: 1.0}}.")
    return dict(item)


def _settings_of(kind: Any, where: str) -> tuple[str, type[RewardSettings]]:
    """Name and settings of a reward, by its name or as a function of texts."""
    if callable(kind):
        function = kind if isinstance(kind, TextFunction) else reward(kind)
        if function.name in BUILT_IN:
            raise InputError(f"{where}: there is a reward {function.name!r} already: give the function another name.")
        return function.name, function.settings
    if kind == "both":
        raise InputError(
            f"{where}=both is now a list of two: objective.reward=[scorer,{{kind: log_ratio, credit: expected}}]."
        )
    found = REWARDS.find(str(kind), where)
    return str(kind), found.settings if isinstance(found, TextFunction) else found


def _keys(kind: type[RewardSettings]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]


def _spread(
    each: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], kinds: Iterable[type[RewardSettings]]
) -> list[dict[str, Any]]:
    """The entries with the settings of ``each``: a key applies to every reward that has it, a mapping to its kind."""
    made = [dict(item) for item in listed]
    known = [{*_keys(kind), "weight", *CRITIC} for kind in kinds]
    for key, value in each.items():
        named = [item for item in made if item["kind"] == key]
        if named and isinstance(value, Mapping):
            for item in named:
                item |= value
            continue
        having = [item for item, keys in zip(made, known, strict=True) if key in keys]
        if not having:
            there = {f"{item['kind']}: {', '.join(sorted(keys))}" for item, keys in zip(made, known, strict=True)}
            raise InputError(f"no reward of the list has a key {key!r}. Known keys of {'; of '.join(sorted(there))}.")
        for item in having:
            item[key] = value
    return made


def _read(item: Mapping[str, Any], kind: type[RewardSettings], critic: CriticSettings, where: str) -> Entry:
    own = {key: value for key, value in item.items() if key not in (*OWN, *CRITIC)}
    for key in own:
        if key not in _keys(kind):
            raise unknown_key(f"{where}.{key}", [f"{where}.{known}" for known in (*_keys(kind), *OWN, *CRITIC)])
    learning = {**dataclasses.asdict(critic), **{key: item[key] for key in CRITIC if key in item}}
    weight: float = convert(float, item.get("weight", 1.0), f"{where}.weight")
    if weight < 0:
        raise InputError(f"{where}.weight={weight} is out of range: it must not be negative.")
    return Entry(item["kind"], build(kind, own, where), weight, build(CriticSettings, learning, where))


def make_rewards(entries: Iterable[Entry], context: Context) -> list[tuple[Reward, float]]:
    """The rewards of a run with their weights, in the order of the list."""
    return [(entry.rule.make(replace(context, critic=entry.critic)), entry.weight) for entry in entries]
