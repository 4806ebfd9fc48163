"""States from data: corrupted at times that cover the whole batch, whichever process computes a slice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from didi_core.diffusion.schedules import schedule
from didi_core.errors import InputError
from didi_core.objectives.base import Materials
from didi_core.objectives.states import State, States, StateSettings
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings
from didi_protein import ProteinDomain
from didi_toy import ToyDomain

BATCH = 24
SAMPLES = torch.arange(32)[:, None].expand(32, 6) % 20


def materials(domain: object, samples: Tensor = SAMPLES) -> Materials:
    run = Run(domain)  # type: ignore[arg-type]
    return Materials(run, TrainingSettings(batch_size=BATCH), nn.Linear(1, 1), None, lambda num, steps: samples[:num])


def drawn(states: States, total: int, step: int = 3) -> list[State]:
    return [states.draw(Slice(step, number, total, stream=generator(0, "slice", number))) for number in range(total)]


def test_times_cover_the_whole_batch_and_its_slices_are_those_of_one() -> None:
    states = States.of(StateSettings(low=0.1, high=0.9), materials(ToyDomain()), schedule("log_linear"))
    for total in (1, 2, 6):
        cut = drawn(states, total)
        time = torch.cat([state.time for state in cut])
        strata = ((time - 0.1) / 0.8 * BATCH).ceil().long().sort().values
        assert torch.equal(strata, torch.arange(1, BATCH + 1))
        assert torch.equal(time, drawn(states, 1)[0].time)
        assert torch.equal(torch.cat([state.x0 for state in cut]), drawn(states, 1)[0].x0)
    assert not torch.equal(drawn(states, 1, step=4)[0].time, time)


def test_visible_tokens_are_those_of_the_data_and_the_shares_are_alpha() -> None:
    states = States.of(StateSettings(), materials(ToyDomain()), schedule("cosine"))
    (one,) = drawn(states, 1)
    vocabulary = ToyDomain().vocabulary
    assert torch.equal(one.xt[~one.masked], one.x0[~one.masked]) and (one.xt[one.masked] == vocabulary.mask).all()
    free = vocabulary.maskable(one.x0)
    share, count = (free & ~one.masked).double().sum(1) / free.sum(1), free.sum(1)
    z = (share - one.alpha) / (one.alpha * (1 - one.alpha) / count).sqrt().clamp_min(1e-2)
    assert z.abs().max() < 4.5 and abs(z.mean()) < 4 / BATCH**0.5
    again = drawn(states, 1)[0]
    assert torch.equal(again.xt, one.xt)


def test_pinned_positions_are_never_masked() -> None:
    domain = ProteinDomain()
    rows = domain.template([30 + i for i in range(BATCH)])
    kept = materials(domain, torch.where(rows == domain.vocabulary.mask, 7, rows))
    states = States.of(StateSettings("teacher", BATCH, low=0.99), kept, schedule("log_linear"))
    (one,) = drawn(states, 1)
    pinned = ~domain.vocabulary.maskable(one.x0)
    assert pinned.any() and not one.masked[pinned].any() and one.masked[~pinned].float().mean() > 0.97


def test_the_teachers_samples_stand_in_for_data() -> None:
    settings = StateSettings(source="teacher", samples=32, steps=2)
    states = States.of(settings, materials(ToyDomain()), schedule("log_linear"))
    (one,) = drawn(states, 1)
    assert one.x0.shape == (BATCH, 6) and (one.x0 == one.x0[:, :1]).all()
    assert len(one.x0.unique()) >= BATCH - 12  # twelve rows are there twice


def test_without_data_the_message_says_what_to_do() -> None:
    class Empty(ToyDomain):
        def batches(self, split: str, batch_size: int, seed: int, start: int = 0):  # type: ignore[no-untyped-def]
            raise InputError("data.path is missing.")

    with pytest.raises(
        InputError, match="there is no data: data.path is missing. Without a corpus, set .*source=teacher"
    ):
        States.of(StateSettings(), materials(Empty()), schedule("log_linear"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"source": "corpus"}, "unknown source of states 'corpus' .objective.states.source"),
        ({"low": 0.5, "high": 0.5}, "need 0 <= low < high <= 1"),
        ({"steps": 0}, "objective.states.steps=0 is out of range: it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(StateSettings(), **changed)


def test_a_row_of_the_batch_is_in_one_slice() -> None:
    whole = torch.arange(12)
    parts: list[Tensor] = [Slice(number=n, total=4).of(whole) for n in range(4)]
    assert torch.equal(torch.cat(parts), whole)
