"""Short forms of keys below the list ``objective.reward``."""

from __future__ import annotations

from typing import Any

from didi_core.objectives.rewards import CRITIC

REWARD = "objective.reward."


def respelled(key: str, value: Any) -> tuple[str, Any]:
    """A setting below the list of rewards, replaced by the setting that it stands for; any other one unchanged.

    ``objective.reward.kind=scorer`` is the list of that one; ``objective.reward.lr=1e-4`` is ``objective.critic.lr``;
    ``objective.reward.clip=4`` goes to every reward that has such a setting (``objective.each_reward``), and
    ``objective.reward.scorer.clip=4`` to those of that kind.
    """
    if not key.startswith(REWARD):
        return key, value
    own = key.removeprefix(REWARD)
    if own == "kind":
        return "objective.reward", [{"kind": value}]
    if own == "coupled":
        return "objective.coupled", value
    return (f"objective.critic.{own}" if own in CRITIC else f"objective.each_reward.{own}"), value
