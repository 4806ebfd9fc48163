"""The models of the page: what a domain carries, run directories and hub ids, loaded once for all visitors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from didi_core.checkpoints.card import has_card, load_denoiser, model_folder, read_card
from didi_core.checkpoints.hub import is_hub_id, locate, on_disk
from didi_core.checkpoints.importers.parts import check_vocabulary
from didi_core.config import user_path
from didi_core.device import Machine
from didi_core.domain.abilities import HasBundledStudent
from didi_core.errors import InputError
from didi_core.plugins import registry
from didi_core.sampling.generate import SamplerSettings
from didi_core.sampling.trace import trace
from didi_core.types import Denoiser, Domain

BUNDLED = "bundled"
TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True)
class Pair:
    """Two networks of one domain, side by side.

    first, second: the model that is shown and the one that it is compared with, usually student and teacher. Without a
        second one the model is compared with itself at more calls.
    labels: what each of them is. card: of the first; empty without one.
    """

    domain: Domain
    first: Denoiser
    second: Denoiser
    labels: tuple[str, str]
    card: Mapping[str, Any] = field(default_factory=dict)


def folder_of(path: Path) -> Path | None:
    """The folder with a card in a path; None where there is none."""
    return model_folder(path) if has_card(path) else None


def fetched(name: str) -> Path | None:
    """The folder with a card of a path or a hub id, fetched if it is not here; None for another program's model."""
    path = user_path(name)
    return folder_of(locate(name, "model") if not path.exists() and is_hub_id(name) else path)


def domain_of(name: str) -> str | None:
    """The domain of a model by its card; None for one without a card on this machine, which may be of any domain."""
    path = on_disk(name)
    folder = None if path is None else folder_of(path)
    return None if folder is None else str(read_card(folder).get("domain", ""))


@dataclass
class Shelf:
    """The models that were asked for. Loading is done by one visitor at a time; the networks are only read."""

    machine: Machine
    _kept: dict[tuple[str, str], Pair] = field(default_factory=dict)
    _warm: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def find(self, domain: str, name: str) -> Pair:
        """The model of that name and its teacher.

        Raises:
            InputError: there is no such model, or it is one of another domain.
        """
        with self._lock:
            if (domain, name) not in self._kept:
                self._kept[domain, name] = self._load(domain, name)
            return self._kept[domain, name]

    def warm_up(self, pair: Pair, templates: Sequence[Sequence[int]]) -> None:
        """Set up allocators and kernels of both networks once, outside the seconds that are shown."""
        with self._lock:
            for network in (pair.first, pair.second):
                if id(network) not in self._warm:
                    list(trace(pair.domain, network, SamplerSettings(steps=1), templates))
                    self._warm.add(id(network))

    def _load(self, domain: str, name: str) -> Pair:
        folder = None if name == BUNDLED else fetched(name)
        if folder is not None:
            return self._of_folder(domain, name, folder)
        made = registry().domain(domain, {})
        found = self._ready(made, made.teacher(name), name)
        if name != BUNDLED:
            return Pair(made, found, found, (name, f"{name}, more calls"))
        carried = made.bundled_student if isinstance(made, HasBundledStudent) else None
        if carried is not None:
            student = self._ready(made, load_denoiser(carried), name)
            return Pair(made, student, found, (STUDENT, TEACHER), read_card(carried))
        return Pair(made, found, found, ("teacher, few calls", "teacher, more calls"))

    def _of_folder(self, domain: str, name: str, folder: Path) -> Pair:
        """A model with a card, and the teacher that the card names."""
        card = read_card(folder)
        if card.get("domain") != domain:
            raise InputError(
                f"model={name} is one of domain {card.get('domain')!r} and does not fit the domain {domain!r}: choose "
                "it under its own domain, or another model here."
            )
        made = registry().domain(domain, card.get("data") or {})
        first = self._ready(made, load_denoiser(folder), name)
        teacher = (card.get("teacher") or {}).get("name")
        if teacher is None:
            return Pair(made, first, first, ("model, few calls", "model, more calls"), card)
        try:
            second = self._ready(made, made.teacher(teacher), f"teacher={teacher}")
        except InputError:  # its files need not be where the model is used
            return Pair(made, first, first, (STUDENT, f"student, more calls (no teacher {teacher!r} here)"), card)
        return Pair(made, first, second, (STUDENT, TEACHER), card)

    def _ready(self, domain: Domain, network: Denoiser, name: str) -> Denoiser:
        """A network on the machine of the page. Raises InputError where its tokens are not the domain's."""
        check_vocabulary(network.vocabulary, domain.vocabulary, f"model={name}")
        return network.to(self.machine.device).eval()
