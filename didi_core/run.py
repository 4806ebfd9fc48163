"""The context of a command: domain, machine, processes, seed, folder and reporter."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from didi_core.device import Machine, autocast
from didi_core.processes import Processes
from didi_core.progress import Reporter, Silent
from didi_core.streams import generator
from didi_core.types import Domain


@dataclass(frozen=True)
class Run:
    """The context that every long job needs.

    machine: device and precision of all networks. processes: those that share the work.
    seed: every random stream derives from it. folder: where results go; None where nothing is kept.
    reporter: shows progress to a person.
    """

    domain: Domain
    machine: Machine = field(default_factory=lambda: Machine(torch.device("cpu"), "fp32"))
    seed: int = 0
    folder: Path | None = None
    processes: Processes = field(default_factory=Processes)
    reporter: Reporter = field(default_factory=Silent)

    @property
    def device(self) -> torch.device:
        return self.machine.device

    def stream(self, *purpose: str | int) -> torch.Generator:
        """A fresh random stream of that purpose, on the device of the run; the same at every call."""
        return generator(self.seed, *purpose, device=self.device)

    def autocast(self) -> AbstractContextManager:
        """The run's precision: bf16 autocast over fp32 weights, or a context that does nothing."""
        return autocast(self.device, self.machine.precision)
