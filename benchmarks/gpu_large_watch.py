"""Times and memory of the stages of ``distill``, noted while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import nn

from didi_core.commands import distill
from didi_core.training.engine import Engine

# Functions of ``distill`` that are timed, in the order in which it calls them.
STAGES = ("load_teacher", "describe", "note_machine", "make_student", "merged", "card", "save_student")


@dataclass(frozen=True)
class Span:
    """A stretch of a run on the clock, with the bytes that were in use when it began and at most."""

    began: float
    ended: float
    before: int
    peak: int
    reserved: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Watch:
    """Times and peaks of the parts of a run, and what they returned. ``told`` gets each name and span as it ends."""

    device: torch.device
    told: Callable[[str, Span], None]
    spans: dict[str, list[Span]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, the stages of ``distill`` and the steps of its training are noted."""
        with ExitStack() as stack:
            for name in STAGES:
                whole = self._noted(name, getattr(distill, name))
                stack.enter_context(mock.patch.object(distill, name, whole))
            stack.enter_context(mock.patch.object(Engine, "step", self._noted("step", Engine.step)))
            yield

    def _noted(self, name: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **more: Any) -> Any:
            self._wait()
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            before, began = self._bytes("memory_allocated"), time.monotonic()
            made = action(*given, **more)
            self._wait()
            peaks = [self._bytes(key) for key in ("max_memory_allocated", "max_memory_reserved")]
            self.made[name] = made
            self.spans.setdefault(name, []).append(Span(began, time.monotonic(), before, *peaks))
            self.told(name, self.spans[name][-1])
            return made

        return noted

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _bytes(self, key: str) -> int:
        return int(getattr(torch.cuda, key)(self.device)) if self.device.type == "cuda" else 0

    def network(self, name: str) -> nn.Module:
        """A network of the run. Raises RuntimeError where the run did not get so far."""
        if name not in self.made:
            raise RuntimeError(f"the run did not reach {name}")
        made: nn.Module = self.made[name]
        return made
