"""Rewards that are functions of the decoded text: net charge, the number of matches of a pattern, a folding confidence.

    @reward
    def charge(texts: list[str], *, pull: float = 1.0) -> list[float]:
        return [pull * (text.count("K") + text.count("R")) for text in texts]

A keyword parameter with a default is a key of the reward in ``objective.reward``: ``{kind: charge, pull: 2.0}``. A
function may also ask for ``times`` (the corruption time of each sample) and ``groups`` (samples with the same number
are compared with each other).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from didi_core.errors import InputError
from didi_core.objectives.rewards.base import Context, Corrupted, Reward, RewardSettings

ASKS = ("times", "groups")  # parameters that a function may have beside the texts


@dataclass(frozen=True)
class TextFunction:
    """A function (texts) -> scores as a reward. It can still be called, and ``didi_register_rewards`` can offer it."""

    function: Callable[..., Sequence[float]]

    def __post_init__(self) -> None:
        parameters = list(inspect.signature(self.function).parameters.values())
        if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            raise InputError(f"reward {self.name!r} takes no texts: write def {self.name}(texts: list[str]).")
        for parameter in parameters[1:]:
            if parameter.name not in ASKS and parameter.default is inspect.Parameter.empty:
                raise InputError(
                    f"reward {self.name!r} asks for {parameter.name!r}. A reward gets texts and, on request, "
                    f"{' and '.join(ASKS)}; a setting of its own needs a default."
                )

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __call__(self, *arguments: Any, **settings: Any) -> Sequence[float]:
        return self.function(*arguments, **settings)

    @property
    def asks(self) -> tuple[str, ...]:
        return tuple(name for name in ASKS if name in inspect.signature(self.function).parameters)

    @cached_property
    def settings(self) -> type[RewardSettings]:
        """A frozen dataclass of the function's own settings."""
        annotations = typing.get_type_hints(self.function)
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        fields = [
            (p.name, annotations.get(p.name, type(p.default)), dataclasses.field(default=p.default))
            for p in parameters
            if p.name not in ASKS
        ]

        def make(own: Any, context: Context) -> TextReward:
            return TextReward(self, dataclasses.asdict(own))

        made: type[RewardSettings] = dataclasses.make_dataclass(
            self.name, fields, namespace={"make": make}, frozen=True
        )
        return made


def reward(function: Callable[..., Sequence[float]]) -> TextFunction:
    """Make a function of texts a reward for ``objective.reward``. Higher is better."""
    return TextFunction(function)


@dataclass
class TextReward(Reward):
    """One score per sample, computed from its text."""

    function: TextFunction
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.function.name

    def score(self, noised: Corrupted) -> Float[Tensor, "B"]:
        known = {"times": noised.time, "groups": noised.group}
        asked = {name: values.tolist() for name in self.function.asks if (values := known[name]) is not None}
        absent = [name for name in self.function.asks if name not in asked]
        if absent:
            raise InputError(f"reward {self.name!r} asks for {' and '.join(absent)}, which these samples do not have.")
        scores = self.function(noised.texts, **asked, **self.settings)
        return torch.tensor(self._checked(scores, len(noised.texts)), device=noised.x.device)

    def _checked(self, scores: Any, wanted: int) -> list[float]:
        """The scores as numbers. Raises InputError for a wrong number of scores, or one that is not finite."""
        try:
            listed = list(scores)
        except TypeError:
            raise InputError(
                f"reward {self.name!r} returned {scores!r}: it must return one number for each text."
            ) from None
        if len(listed) != wanted:
            raise InputError(
                f"reward {self.name!r} returned {len(listed)} scores for {wanted} texts: it must return one for each."
            )
        for i, score in enumerate(listed):
            number = isinstance(score, numbers.Real) or (isinstance(score, Tensor) and score.ndim == 0)
            if not number or not math.isfinite(float(score)):
                raise InputError(f"reward {self.name!r} gave text {i} the score {score!r}: it must be a finite number.")
        return [float(score) for score in listed]
