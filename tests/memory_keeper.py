"""Checkpoints and the log of a run in memory."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from didi_core.training.objective import Scalars
from didi_core.training.state import Stateful


@dataclass
class Memory:
    """A keeper in memory. stop: a step after whose checkpoint the process dies."""

    stop: int = 0
    saved: tuple[int, dict[str, Any]] | None = None
    lines: list[tuple[int, Scalars]] = field(default_factory=list)

    def restore(self, state: Mapping[str, Stateful]) -> int:
        if self.saved is None:
            return 0
        assert set(self.saved[1]) == set(state)
        for name, part in state.items():
            part.load_state_dict(copy.deepcopy(self.saved[1][name]))
        return self.saved[0]

    def save(self, step: int, state: Mapping[str, Stateful]) -> None:
        self.saved = step, {name: copy.deepcopy(part.state_dict()) for name, part in state.items()}
        if step == self.stop:
            raise KeyboardInterrupt

    def record(self, step: int, scalars: Scalars) -> None:
        assert step > 0
        self.lines.append((step, scalars))
