"""Coupled noise: which sequence has which noise, the loss as it is written down, and what one call can then write."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from torch import Tensor

from didi_core.config import build
from didi_core.diffusion.heads import draw_tokens
from didi_core.diffusion.masking import log_p_x0
from didi_core.errors import InputError
from didi_core.models.noise import learning, with_noise
from didi_core.objectives.base import Materials
from didi_core.objectives.coupled import Coupled
from didi_core.objectives.coupling import coupled, halved, mean_features
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings

TRAINING = TrainingSettings(steps=120, batch_size=32, lr=3e-3, warmup=5, ema=0.9, final=1.0)
LETTERS = 8  # of a sequence
KINDS = torch.tensor([3, 11])  # of two kinds of sequences, each of one letter


def two_kinds(num: int, steps: int = 1) -> Tensor:
    return KINDS[torch.arange(num) % 2, None].expand(num, LETTERS).clone()


def prepared(
    noise: int = 1, samples: Any = two_kinds, training: TrainingSettings = TRAINING, first: bool = False, **keys: Any
) -> Any:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)
    student = learning(with_noise(teacher, noise, 0, once=first, first_blocks=first))
    given = {"coupling": {"states": {"source": "teacher", "samples": 128, "steps": 1}, **keys}}
    return build(Coupled, given, "objective").prepare(Materials(Run(domain), training, student, teacher, samples))


def test_every_group_has_its_own_draws_once() -> None:
    noise = torch.randn(50, 2, generator=generator(0, "noise"))
    features = torch.randn(50, 5, generator=generator(0, "features"))
    sizes = torch.randint(10, (50,), generator=generator(0, "sizes"))
    made = coupled(features, sizes, 16, noise)
    for members in torch.argsort(sizes, stable=True).split(16):
        assert {tuple(row) for row in made[members].tolist()} == {tuple(row) for row in noise[members].tolist()}
    assert not torch.equal(made, noise)


def test_like_sequences_have_like_noise_at_each_size() -> None:
    """Two clusters, whose difference is the largest component, lie on two sides of a cut through the noise."""
    far = torch.arange(60) % 3 == 0
    features = torch.randn(60, 4, generator=generator(0, "features")) + 20.0 * far[:, None]
    features[30:] += 500  # the other size is another kind altogether, which says nothing about its own two clusters
    sizes = torch.arange(60) // 30
    made = coupled(features, sizes, 30, torch.randn(60, 1, generator=generator(0, "noise"))).squeeze(1)
    below = [made[(sizes == n) & far].max() < made[(sizes == n) & ~far].min() for n in (0, 1)]
    above = [made[(sizes == n) & far].min() > made[(sizes == n) & ~far].max() for n in (0, 1)]
    assert all(below) or all(above)  # the same side for both sizes


def test_halving_goes_by_one_coordinate_after_the_other() -> None:
    points = torch.tensor([[0.0, 5.0], [3.0, 1.0], [1.0, 2.0], [2.0, 9.0]])
    assert halved(points).tolist() == [2, 0, 1, 3]  # 0 and 2 are the lower half; of these 2 has the smaller second
    assert sorted(halved(torch.zeros(7, 2)).tolist()) == list(range(7))


def test_features_are_means_over_what_is_written() -> None:
    domain = registry().domain("protein", {})
    teacher = domain.teacher("bundled")
    rows = domain.template([31, 40])
    rows = torch.where(rows == domain.vocabulary.mask, 7, rows)
    with torch.no_grad():
        found, hidden = mean_features(teacher, rows, rows=2), teacher.trunk(rows)
    for row in (0, 1):
        torch.testing.assert_close(found[row], hidden[row][domain.vocabulary.maskable(rows)[row]].mean(0))


def test_the_loss_is_cross_entropy_where_all_is_masked_and_the_teachers_distribution_elsewhere() -> None:
    objective = prepared(noise=2)
    part = Slice(step=3, stream=generator(0, "slice"))
    made = objective.batch(part)
    student, teacher = objective.materials.student, objective.materials.frozen
    assert made.empty.sum() == 16 and made.masked[made.empty].all() and not made.masked[~made.empty].all()

    log_p = log_p_x0(student(made.xt, made.noise), student.vocabulary)
    log_q = log_p_x0(teacher(made.xt), teacher.vocabulary)
    nll = -log_p.gather(2, made.x0[..., None]).squeeze(2)
    kl = (log_q.exp() * (log_q - log_p)).nan_to_num().sum(2)
    each = torch.where(made.empty[:, None], nll, kl) * made.masked
    wanted = (each.sum(1) / made.masked.sum(1).clamp_min(1)).mean()
    torch.testing.assert_close(objective.loss("student", made, part).loss, wanted, rtol=1e-4, atol=1e-6)


def test_without_other_rows_the_loss_is_cross_entropy_alone() -> None:
    objective = prepared(noise=2, empty=1.0)
    part = Slice(step=3, stream=generator(0, "slice"))
    made = objective.batch(part)
    assert made.empty.all() and made.masked.all()
    log_p = log_p_x0(objective.materials.student(made.xt, made.noise), objective.materials.student.vocabulary)
    found = objective.loss("student", made, part)
    torch.testing.assert_close(found.loss, -log_p.gather(2, made.x0[..., None]).mean(), rtol=1e-4, atol=1e-6)
    assert {*found.measured} == {"loss", "nll"}


def test_rows_have_the_noise_of_their_sequence_only_where_all_is_masked() -> None:
    objective = prepared(noise=2)
    made = objective.batch(Slice(step=3, stream=generator(0, "slice")))
    chosen = objective.noise.source.indices(3, 32)
    assert torch.equal(made.noise[made.empty], objective.noise.vectors[chosen][made.empty])
    known = {tuple(row) for row in objective.noise.vectors.tolist()}
    assert not known & {tuple(row) for row in made.noise[~made.empty].tolist()}


def test_slices_are_those_of_one_batch() -> None:
    objective = prepared()
    whole = objective.batch(Slice(step=2, stream=generator(0, "slice")))
    cut = [objective.batch(Slice(2, number, 4, stream=generator(0, "slice", number))) for number in range(4)]
    assert torch.equal(torch.cat([part.x0 for part in cut]), whole.x0)
    assert torch.equal(torch.cat([part.empty for part in cut]), whole.empty)


def written_in_one_call(objective: Any, num: int = 200) -> Tensor:
    student, stream = objective.materials.student.eval(), generator(0, "drawn")
    empty = torch.full((num, LETTERS), student.vocabulary.mask)
    noise = torch.randn(num, student.noise_size, generator=stream)
    with torch.no_grad():
        hidden = student.trunk(empty, noise)
        return draw_tokens(student, hidden.flatten(0, 1), stream).view(num, LETTERS)


def pure(drawn: Tensor) -> Tensor:
    """Share of the samples that consist of one kind's letter, by kind."""
    return torch.stack([(drawn == letter).all(1).double().mean() for letter in KINDS])


def test_one_call_writes_one_kind_or_the_other() -> None:
    """Independent letters of two kinds, one half each, would be of one kind in 2 of 2^8 samples."""
    objective = prepared()
    run, training = objective.materials.run, objective.materials.training
    Engine(objective, run, training, Memory(), "test", partial(run.stream, "test")).train()
    assert pure(written_in_one_call(objective)).min() > 0.1
    assert pure(written_in_one_call(prepared())).max() < 0.02  # before training


def test_with_blocks_of_its_own_the_first_call_learns_and_later_ones_stay_the_teachers() -> None:
    objective = prepared(noise=1, first=True, empty=1.0)
    run, training = objective.materials.run, objective.materials.training
    Engine(objective, run, training, Memory(), "test", partial(run.stream, "test")).train()
    assert pure(written_in_one_call(objective)).min() > 0.1
    begun = torch.full((4, LETTERS), objective.materials.student.vocabulary.mask)
    begun[:, 2] = torch.arange(4)
    torch.testing.assert_close(objective.materials.student(begun), objective.materials.frozen(begun))


def test_data_are_a_fixed_set_too() -> None:
    first, again = (prepared(states={"source": "data", "samples": 40}).noise for _ in range(2))
    kept = first.source.sequences
    assert len(kept) == len(first.vectors) == 40 and torch.equal(kept, again.source.sequences)
    assert torch.equal(kept[:32], next(first.materials.run.domain.batches("train", 32, 0)))


def test_a_student_without_noise_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs a student that reads noise.*student\.noise=2"):
        prepared(noise=0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"empty": 0.0}, r"objective\.coupling\.empty=0\.0 is out of range"),
        ({"empty": 1.5}, r"objective\.coupling\.empty=1\.5 is out of range"),
        ({"group": 1}, r"objective\.coupling\.group=1"),
        ({"schedule": "steep"}, r"steep"),
    ],
)
def test_wrong_settings_are_refused_by_name(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(**keys)
