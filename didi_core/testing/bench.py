"""Common code of the checks: the domain under test, and the functions that report a violation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.streams import seeded
from didi_core.types import Denoiser, Domain, Sample, Vocabulary

SAMPLES = 24


def tiny_network(vocabulary: Vocabulary) -> DiT:
    """A denoiser of random weights, always the same ones."""
    with seeded(0, "contract"):
        return DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), vocabulary).eval()


class Broken(AssertionError):
    """A violation of the contract."""


@dataclass
class Bench:
    """A domain under test, with the networks and samples that several checks share."""

    domain: Domain
    given: Denoiser | None
    folder: Path

    @cached_property
    def network(self) -> Denoiser:
        """The given teacher, or else a tiny untrained one."""
        return tiny_network(self.domain.vocabulary) if self.given is None else self.given.eval()

    @cached_property
    def batch(self) -> Int[Tensor, "B L"]:
        """A few training sequences."""
        return next(iter(self.domain.batches("train", 6, seed=0)))

    @cached_property
    def natural(self) -> list[Sample]:
        """Held-out samples."""
        return self.domain.held_out(SAMPLES, 0)


def promise(kept: bool, words: str) -> None:
    """Raise ``Broken`` with the words unless the condition holds."""
    __tracebackhide__ = True  # pytest shows the check, then the words
    if not kept:
        raise Broken(words)


def refuses(action: Callable[[], object], what: str) -> None:
    """Raise ``Broken`` unless the action raises InputError, which a user sees as one message."""
    __tracebackhide__ = True
    try:
        made = action()
    except InputError:
        return
    except Exception as error:
        raise Broken(f"{what} raised {type(error).__name__} ({error}); raise didi_core.errors.InputError.") from error
    raise Broken(f"{what} was accepted (it gave {str(made)[:60]!r}); raise didi_core.errors.InputError.")
