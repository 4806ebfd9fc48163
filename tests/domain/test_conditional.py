"""A conditional domain: each row says itself what it is given, and nobody masks, draws or mixes that up."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.commands.reference import teacher_samples
from didi_core.diffusion.schedules import schedule
from didi_core.domain.conditioning import draw_templates, own_templates, read_template
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.drawing import Drawing
from didi_core.evaluation.measure import evaluate_samples
from didi_core.metrics import Share
from didi_core.models.dit import DiT, DiTConfig
from didi_core.objectives.base import Materials
from didi_core.objectives.didi import group_template
from didi_core.objectives.few_calls import FewCalls, one_call
from didi_core.objectives.nelbo import nelbo
from didi_core.objectives.states import States, StateSettings
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.sequences import AlphabetDomain
from didi_core.streams import generator, seeded
from didi_core.testing import faults
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser, Metric, Sample, Vocabulary
from didi_toy import ToyDomain

ASKED, LETTERS = "ABCD", "abcd"
MADE = 400


class Copying(AlphabetDomain):
    """Two to five capitals are given, in train with no D and in validation with one; the same small letters follow."""

    name, alphabet = "copying", LETTERS + ASKED

    def make_vocabulary(self) -> Vocabulary:
        spellings = (*LETTERS, *ASKED, "<pad>")
        return Vocabulary(9, forbidden=(8,), pad=8, tokens=spellings, given=(4, 5, 6, 7))

    def load(self) -> list[Sample]:
        stream = generator(0, "copying")
        rows = [torch.randint(0, 4, (n,), generator=stream) for n in (2, 3, 4, 5) for _ in range(MADE // 4)]
        return [Sample(self.decode([*(row + 4).tolist(), *row.tolist()])) for row in rows]

    def divide(self, samples: object) -> dict[str, list[Sample]]:
        made: dict[str, list[Sample]] = {"train": [], "validation": []}
        for sample in self.samples:
            made["validation" if "D" in sample.text else "train"].append(sample)
        return made

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        return (self.templates("train", n, generator) == self.vocabulary.mask).sum(1).tolist()

    def template(self, lengths: object) -> Int[Tensor, "B L"]:
        made = super().template([2 * length for length in lengths])  # type: ignore[attr-defined]
        for row, length in zip(made, lengths, strict=True):  # type: ignore[call-overload]
            row[:length] = 4
        return made

    def templates(self, split: str, n: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
        rows = next(self.batches(split, n, int(torch.randint(2**31, (), generator=generator))))
        return torch.where(self.vocabulary.maskable(rows), self.vocabulary.mask, rows)

    def quality(self) -> Metric:
        return Share("copied", "copied", copied)


def copied(text: str) -> bool:
    return text[: len(text) // 2].lower() == text[len(text) // 2 :]


DOMAIN = Copying()
GIVEN = torch.tensor(DOMAIN.vocabulary.given)


def network() -> Denoiser:
    with seeded(0, "conditional"):
        return DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), DOMAIN.vocabulary).eval()


def materials(samples: Tensor | None = None) -> Materials:
    made = network()
    return Materials(Run(DOMAIN), TrainingSettings(batch_size=8), made, made, lambda num, steps: samples[:num])  # type: ignore[index]


def clues(tokens: Tensor) -> Tensor:
    """What is given in each row, -1 elsewhere."""
    return torch.where(torch.isin(tokens, GIVEN), tokens, -1)


def test_the_kit_finds_no_fault() -> None:
    assert faults(DOMAIN) == {}


def test_what_is_given_is_never_masked_nor_learnt() -> None:
    batch = next(DOMAIN.batches("train", 8, seed=0))
    states = States.of(StateSettings(low=0.99), materials(), schedule("log_linear"))
    state = states.draw(Slice(0, 0, 1, stream=generator(0, "slice")))
    assert torch.equal(clues(state.xt), clues(state.x0)) and bool(state.masked.any(1).all())
    assert torch.isin(state.xt, torch.tensor([*GIVEN, DOMAIN.vocabulary.mask, 8])).float().mean() > 0.9
    made = network().train()
    loss = nelbo(made, batch, torch.full((8,), 0.999), schedule("log_linear"), generator(0, "times"))
    free = DOMAIN.vocabulary.maskable(batch)
    with torch.no_grad():
        blank = torch.where(free, DOMAIN.vocabulary.mask, batch)
        letters = made(blank)[free][:, :4].log_softmax(1)  # all mass is on what may be generated
    own = -letters.gather(1, batch[free][:, None]).mean()
    assert torch.allclose(loss, own / 0.999, rtol=0.05)


def test_rollouts_start_from_clues_of_the_training_split_and_keep_them() -> None:
    made = group_template(DOMAIN, 8, 4, seed=0, slice=Slice(0, 0, 1, stream=generator(0, "slice")))
    assert torch.equal(made[0], made[3]) and not torch.equal(made[0], made[4])  # a group shares its clues
    assert 7 not in made  # D is in the validation split
    other = group_template(DOMAIN, 8, 4, seed=0, slice=Slice(1, 0, 1, stream=generator(0, "slice")))
    assert made.shape != other.shape or not torch.equal(made, other)
    found = one_call(materials(), FewCalls(calls=(3,)), Slice(0, 0, 1, stream=generator(0, "slice")))
    assert torch.equal(clues(found.tokens), clues(found.x)) and bool((clues(found.x) >= 0).any(1).all())
    assert not bool((found.masked & torch.isin(found.x, GIVEN)).any())


def test_references_and_kept_samples_complete_training_clues() -> None:
    made = teacher_samples(Run(DOMAIN), network(), 12, 2, None)
    assert 7 not in made and bool((clues(made) >= 0).any(1).all())
    states = States.of(StateSettings("teacher", 12, low=0.9), materials(made), schedule("log_linear"))
    state = states.draw(Slice(0, 0, 1, stream=generator(0, "slice")))
    assert torch.equal(clues(state.xt), clues(state.x0))


def test_samples_complete_held_out_clues_the_same_for_every_model() -> None:
    many, few = (generate(DOMAIN, network(), settings=SamplerSettings(steps=k), num=12, seed=3) for k in (4, 1))
    wanted = own_templates(DOMAIN, "validation", 12, generator(3, "lengths"))
    assert wanted is not None
    for sample, other, template in zip(many.samples, few.samples, wanted, strict=True):
        tokens, first = torch.tensor(sample.tokens), torch.tensor(other.tokens)
        assert torch.equal(clues(tokens), clues(torch.tensor(template))) and torch.equal(clues(tokens), clues(first))
        assert 7 in tokens and "_" not in sample.text


def test_a_kept_set_is_not_that_of_other_clues() -> None:
    class Other(Copying):
        def divide(self, samples: object) -> dict[str, list[Sample]]:
            return {split: found[::2] for split, found in super().divide(samples).items()}

    model, settings = Contender(network(), [SamplerSettings(steps=2)]), SamplerSettings(steps=2)
    first, again, other = (
        Drawing(Run(domain), Measuring(8))._making(model, settings, seed=0) for domain in (DOMAIN, Copying(), Other())
    )
    assert first == again != other


def test_a_template_in_letters_pins_what_is_given() -> None:
    assert read_template(DOMAIN, "AB__") == [4, 5, 9, 9]
    found = generate(DOMAIN, network(), settings=SamplerSettings(steps=2), num=2, templates=[[4, 5, 9, 9]])
    assert all(sample.text.startswith("AB") and set(sample.text[2:]) <= set(LETTERS) for sample in found.samples)


def test_where_nothing_is_given_lengths_decide_as_before() -> None:
    toy = ToyDomain()
    lengths = toy.lengths(5, generator(1, "test"))
    assert torch.equal(draw_templates(toy, "train", 5, generator(1, "test")), toy.template(lengths))
    assert own_templates(toy, "train", 5, generator(1, "test")) is None


def test_a_share_of_held_out_tasks_is_one_with_wilsons_interval() -> None:
    found = evaluate_samples(DOMAIN.metrics(), DOMAIN.held_out(50, 0)).values["copied"]
    assert found.value == found.high == 1 and 0.92 < found.low < 0.94  # n / (n + z^2)
