"""Configurations of older runs in the current keys: before objectives had kinds, rewards were a list, and rollouts said
whether the call that is learnt from completes the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from didi_core.errors import InputError
from didi_core.objectives.registry import read_objective
from didi_core.objectives.rewards import CRITIC


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run's record as this version would have written it.

    Raises:
        InputError: the objective of an older run no longer exists.
    """
    objective, command = config.get("objective"), str(config.get("command"))
    made = dict(config)
    if isinstance(made.get("training"), Mapping):
        made["training"] = {"seconds": 0, **made["training"]}
    if command == "distill":
        made["student"] = {"noise": 0, "noise_once": False, "first_blocks": False, **made.get("student", {})}
    if command == "pretrain" and isinstance(objective, str):
        own = {key: made.pop(key) for key in ("schedule", "weight_clip") if key in made}
        objective = {"kind": objective, "name": objective, **(own if objective == "nelbo" else {})}
    elif isinstance(objective, Mapping) and "kind" not in objective:
        objective = _with_a_list(objective)
    elif isinstance(objective, Mapping) and objective["kind"] == "idlm":
        rollout, coupling = objective.get("rollout"), objective.get("coupling")
        if coupling and "lr" not in coupling:
            raise InputError(
                "an older version began this run, and its objective cannot be continued: one optimiser trained both "
                "halves of its student, and each has its own now. Finish it with that version, or name another run_dir."
            )
        rollout = {"complete": True, **rollout} if rollout else rollout
        return made | {"objective": {"coupling": None, **objective, "rollout": rollout}}
    else:
        return made
    try:
        return made | {"objective": read_objective(objective, command).resolved()}
    except InputError as error:
        raise InputError(
            f"an older version began this run, and its objective cannot be continued: {error} "
            "Finish it with that version, or name another run_dir."
        ) from None


def _with_a_list(objective: Mapping[str, Any]) -> dict[str, Any]:
    """The current keys of ``didi``, from older ones in which ``reward`` was one group."""
    made = {key: value for key, value in objective.items() if key != "reward"}
    reward = dict(objective.get("reward", {}))
    kind, options = reward.get("kind", "scorer"), reward.get("options", {})
    clip = {"clip": reward.get("clip", 8.0)}
    scorer = {
        "kind": "scorer",
        **clip,
        **{key: reward[key] for key in ("smoothing", "trainable_blocks") if key in reward},
    }
    ratio = {"kind": "log_ratio", **clip, "credit": reward.get("credit", "sample")}
    listed = {
        "scorer": [scorer],
        "log_ratio": [ratio],
        "both": [scorer, {**ratio, "weight": reward.get("ratio_weight", 1.0)}],
    }.get(kind, [{"kind": kind, **options}])
    critic = {key: reward[key] for key in CRITIC if key in reward}
    return {**made, "kind": "didi", "coupled": reward.get("coupled", True), "reward": listed, "critic": critic}
