"""The conformance kit: the built-in domains keep the contract, and each broken one fails for its own reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from didi_core import testing
from didi_core.diffusion.beliefs import Beliefs
from didi_core.diffusion.grids import BUILT_IN as GRIDS
from didi_core.diffusion.laws import BUILT_IN as LAWS
from didi_core.diffusion.laws import Iid, Threshold
from didi_core.metrics import Mean
from didi_core.plugins.kinds import KINDS, Kind
from didi_core.sampling.base import Sampled, SampleRequest
from didi_core.sampling.catalogue import BUILT_IN
from didi_core.sequences import AlphabetDomain
from didi_core.testing import Broken, DomainContract, check_grid, check_law, check_metric, check_sampler, faults
from didi_core.testing.domain_checks import CHECKS
from didi_core.types import NFE, Domain, Metric, Sample, Vocabulary
from didi_protein import ProteinDomain
from didi_toy import ToyDomain


class TestToy(DomainContract):
    def make(self) -> Domain:
        return ToyDomain()

    def teacher(self, domain: Domain) -> nn.Module:
        return domain.teacher("bundled")


class TestProtein(DomainContract):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        rows = ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), size=random.integers(30, 60))) for _ in range(80)]
        self.path = tmp_path / "some.fasta"
        self.path.write_text("".join(f">p{i}\n{row}\n" for i, row in enumerate(rows)))

    def make(self) -> Domain:
        return ProteinDomain(self.path, validation_fraction=0.3)


class Sound(AlphabetDomain):
    """A domain that keeps every promise; the broken ones below differ from it in one method each."""

    name, alphabet = "sound", "abcd"

    def load(self) -> list[Sample]:
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list("abcd"), p=[0.6, 0.2, 0.15, 0.05], size=9)) for _ in range(200)]
        return [Sample(text) for text in texts]


class ForgetsCase(Sound):
    def encode(self, text: str) -> list[int]:
        return super().encode(text)[1:]


class DropsGaps(Sound):
    """Natural texts have no gap, so only what a model writes shows that decode loses it."""

    alphabet = "abcd-"

    def decode(self, tokens: Sequence[int]) -> str:
        return super().decode(tokens).replace("-", "")


class JoinsTwoLetters(Sound):
    """One pair of neighbours out of 676 is written as a third letter."""

    alphabet = "abcdefghijklmnopqrstuvwxyz"

    def decode(self, tokens: Sequence[int]) -> str:
        return super().decode(tokens).replace("qx", "k")


class CountsPadding(Sound):
    def template(self, lengths: Sequence[int]) -> Tensor:
        return torch.full((len(lengths), max(lengths)), self.vocabulary.mask)


class GlobalDice(Sound):
    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        return torch.randint(3, 9, (n,)).tolist()


class CannotSkip(Sound):
    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        return super().batches(split, batch_size, seed, 0)


class MasksItself(Sound):
    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        for batch in super().batches(split, batch_size, seed, start):
            yield batch.masked_fill(torch.arange(batch.shape[1]) == 0, self.vocabulary.mask)


class Leaks(Sound):
    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        return self.splits["train"][:n]


class AnyTeacher(Sound):
    def teacher(self, name: str = "bundled") -> nn.Module:
        return nn.Linear(1, 1)


class SharedScorer(Sound):
    def scorer(self, teacher: nn.Module, trainable_blocks: int = 4) -> nn.Module:
        made = super().scorer(teacher, trainable_blocks)
        made.network.blocks = teacher.blocks  # type: ignore[union-attr]
        return made


class NoEntropy(Sound):
    def metrics(self) -> list[Metric]:
        return [self.quality()]


class Indifferent(Sound):
    def quality(self) -> Metric:
        return Mean("length", "length", len, "lower")


class Strange(Sound):
    def read(self, path: Path) -> list[Sample]:
        return [Sample(line) for line in path.read_text(errors="replace").splitlines()]


class Guesses(Sound):
    def encode(self, text: str) -> list[int]:
        return [max(self.alphabet.find(letter), 0) for letter in text]


class Stuck(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.hook = lambda: None


class Shouts(Sound):
    name = "Sound"


class GivesNothing(Sound):
    def make_vocabulary(self) -> Vocabulary:
        return replace(super().make_vocabulary(), given=(0,))


class SameClues(GivesNothing):
    def templates(self, split: str, n: int, generator: torch.Generator) -> Tensor:
        return self.template([9] * n)


BROKEN: list[tuple[Callable[[], Any], str, str]] = [
    (Shouts, "vocabulary", "give a lower-case name"),
    (ForgetsCase, "text", "decode does not undo encode"),
    (DropsGaps, "generated", "encode does not undo decode: a model may write the tokens"),
    (JoinsTwoLetters, "generated", "encode does not undo decode: a model may write the tokens"),
    (CountsPadding, "template", r"template\(\[9, 11\]\) has \[11, 11\] free positions"),
    (GlobalDice, "lengths", "lengths differ for equal generators"),
    (CannotSkip, "batches", "start=2 does not give what comes after two batches"),
    (MasksItself, "batches", "a batch holds the mask; the core does the masking"),
    (Leaks, "held_out", "held-out samples are training sequences too"),
    (AnyTeacher, "teacher", r"teacher\('no/such/teacher'\) was accepted"),
    (GivesNothing, "given", "a domain with such draws its templates itself"),
    (SameClues, "given", "ignore the generator that is passed"),
    (SharedScorer, "scorer", "the scorer shares weights with the teacher"),
    (NoEntropy, "metrics", r"metrics\(\) gave 1; the first is the quality, the second the entropy"),
    (Indifferent, "controls", "the quality length is 9 on held-out samples and no worse on the controls"),
    (Strange, "files", "read of a binary file as .jsonl was accepted|not the same after write and read"),
    (Guesses, "input", "encode of a letter outside the alphabet was accepted"),
    (Stuck, "pickling", "the domain cannot be pickled for worker processes"),
]


def test_sound_domain_has_no_faults() -> None:
    assert faults(Sound()) == {}


@pytest.mark.parametrize(("make", "check", "told"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
def test_broken_domain_fails_for_its_own_reason(
    make: Callable[[], Domain], check: str, told: str, tmp_path: Path
) -> None:
    from didi_core.testing.bench import Bench

    with pytest.raises(Broken, match=told):
        CHECKS[check](Bench(make(), None, tmp_path))


def test_every_check_but_one_has_a_domain_that_fails_it() -> None:
    assert {check for _, check, _ in BROKEN} == {*CHECKS} - {"sampling"}, "sampling follows from the rest"


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "autoregressive"])
def test_samplers_in_the_box_pass(name: str) -> None:
    check_sampler(BUILT_IN[name]())


@dataclass(frozen=True)
class Overwrites:
    needs_scorer: ClassVar[bool] = False
    stepwise: ClassVar[bool] = False
    uses_law: ClassVar[bool] = False

    def sample(self, request: SampleRequest) -> Sampled:
        return Sampled(torch.zeros_like(request.template), NFE(denoiser=1))


@dataclass(frozen=True)
class Lazy(Overwrites):
    def sample(self, request: SampleRequest) -> Sampled:
        return Sampled(request.template, NFE(denoiser=1))


def test_sampler_that_breaks_its_promise_fails() -> None:
    with pytest.raises(Broken, match="changed positions that were pinned"):
        check_sampler(Overwrites())
    with pytest.raises(Broken, match="left .* positions masked"):
        check_sampler(Lazy())


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_laws_in_the_box_pass(law: Any) -> None:
    check_law(law)


class Late(Iid):
    def times(self, free: Tensor, generator: torch.Generator) -> Tensor:
        return super().times(free, generator) / 2 + 0.5


class Never(Iid):
    def times(self, free: Tensor, generator: torch.Generator) -> Tensor:
        return torch.full(free.shape, torch.inf, dtype=torch.float64)


class Dicing(Iid):
    def times(self, free: Tensor, generator: torch.Generator) -> Tensor:
        return 1 - torch.rand(free.shape, dtype=torch.float64)


class Rewrites(Iid):
    def reorder(self, times: Tensor, masked: Tensor, confidence: Tensor) -> Tensor:
        return torch.full_like(times, 0.9)


class Invents(Iid):
    def reorder(self, times: Tensor, masked: Tensor, confidence: Tensor) -> Tensor:
        return torch.where(masked, 0.9, times)


class Waits(Threshold):
    def choose(self, times: Tensor, masked: Tensor, beliefs: Beliefs) -> Tensor:
        return beliefs.confidence > 2


class Grabs(Threshold):
    def choose(self, times: Tensor, masked: Tensor, beliefs: Beliefs) -> Tensor:
        return torch.ones_like(masked)


@pytest.mark.parametrize(
    ("law", "told"),
    [
        (Late(), "of the positions come in the first half"),
        (Never(), r"times must lie in \(0, 1\]"),
        (Dicing(), "equal generators gave different times"),
        (Rewrites(), "reorder changed the times of positions that are written already"),
        (Invents(), "reorder must only permute the times"),
        (Waits(), "choose reveals nothing in . rows that have masks"),
        (Grabs(), "choose reveals positions that are not masked"),
    ],
)
def test_broken_law_fails_for_its_own_reason(law: Any, told: str) -> None:
    with pytest.raises(Broken, match=told):
        check_law(law)


@dataclass(frozen=True)
class Backwards:
    needs_curve: ClassVar[bool] = False

    def shares(self, steps: int, entropy_at: Any = None) -> Tensor:
        return torch.linspace(1, 0, steps, dtype=torch.float64)


@dataclass(frozen=True)
class Generous(Backwards):
    def shares(self, steps: int, entropy_at: Any = None) -> Tensor:
        return torch.linspace(0, 1, steps + 2, dtype=torch.float64)[1:]


@pytest.mark.parametrize("grid", [Backwards(), Generous()])
def test_grid_that_does_not_ascend_to_one_in_its_steps_fails(grid: Any) -> None:
    with pytest.raises(Broken, match="in double precision, ascending, the last one exactly 1"):
        check_grid(grid)


@pytest.mark.parametrize("name", GRIDS)
def test_grids_in_the_box_pass(name: str) -> None:
    check_grid(GRIDS[name]())


def test_metric_that_is_undefined_fails() -> None:
    with pytest.raises(Broken, match="is nan on the samples"):
        check_metric(Mean("odd", "odd", lambda text: float("nan")), [Sample("ab")] * 3)
    check_metric(Mean("length", "length", len), [Sample("ab"), Sample("a"), Sample("abc")])


@pytest.mark.parametrize(
    "kind", [kind for name, kind in KINDS.items() if name != "configs"], ids=lambda kind: kind.name
)
def test_every_kind_of_plugin_has_a_check_and_a_scaffold(kind: Kind) -> None:
    assert callable(getattr(testing, kind.conformance))
    assert kind.scaffolds
