"""DPLM's decoder: what a step masks, keeps and revokes, how tokens are proposed, and what the redraw changes."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, Int
from tolerance import close
from torch import Tensor, nn

from didi_core.diffusion.grids import Cosine, Grid, Uniform
from didi_core.diffusion.laws import law
from didi_core.errors import InputError
from didi_core.sampling import reparameterised as module
from didi_core.sampling.base import Sampled, SampleRequest, TokenRule
from didi_core.sampling.generate import SamplerSettings
from didi_core.sampling.reparameterised import Dplm, lowest, propose, redraw
from didi_core.types import Vocabulary

VOCABULARY = Vocabulary(8, forbidden=(3,), pad=0, bos=1, eos=2)  # 4..7 may be written
MASK = VOCABULARY.mask


class Table(nn.Module):
    """Logits that depend on the place and on how much of the sequence is visible. Remembers its inputs."""

    def __init__(self, logits: Float[Tensor, "L V"], visible: float = 0.0) -> None:
        super().__init__()
        self.vocabulary, self.table, self.visible = VOCABULARY, logits, visible
        self.inputs: list[Tensor] = []

    def trunk(self, tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        self.inputs.append(tokens.clone())
        shown = ((tokens != MASK) & (tokens != 0)).sum(1)[:, None, None]
        return self.table[: tokens.shape[1]] + self.visible * shown * torch.sin(self.table[: tokens.shape[1]] * 9)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_table(length: int = 22, visible: float = 0.3) -> Table:
    return Table(torch.randn(length, 9, generator=stream(5)), visible)


def template(*lengths: int, width: int = 0) -> Tensor:
    rows = torch.zeros(len(lengths), max(width, max(lengths) + 2), dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[0], row[1 : length + 1], row[length + 1] = 1, MASK, 2
    return rows


def reparameterised(
    network: Table, rows: Tensor, *, steps: int, grid: type[Grid] = Uniform, resample: float = 0.25
) -> Sampled:
    request = SampleRequest(network, rows, grid().shares(steps), law("iid"), stream())  # type: ignore[arg-type]
    return Dplm(resample).sample(request)


@pytest.mark.parametrize("grid", [Uniform, Cosine])
def test_each_step_leaves_the_share_masked_that_the_schedule_says(grid: type[Grid]) -> None:
    network, steps = random_table(), 7
    made = reparameterised(network, template(20, 20), steps=steps, grid=grid, resample=1)
    left = [20] + [int(20 * (1 - share)) for share in grid().shares(steps).tolist()]
    # The first call sees one row for both: they are the same.
    assert [(tokens == MASK).sum(1).tolist() for tokens in network.inputs[1:]] == [[n, n] for n in left[1:-1]]
    assert made.nfe.denoiser == steps == len(network.inputs)
    assert VOCABULARY.allowed()[made.tokens[:, 1:-1]].all()


def test_visible_tokens_are_kept_or_revoked_but_never_replaced_at_once() -> None:
    network = random_table(visible=1.0)
    made = reparameterised(network, template(20, 18), steps=9, resample=1)
    revoked = 0
    for before, after in zip(network.inputs, [*network.inputs[1:], made.tokens], strict=True):
        both = (before != MASK) & (after != MASK)
        assert torch.equal(before[both], after[both])
        revoked += int(((before != MASK) & (after == MASK)).sum())
    assert revoked > 0


def test_pinned_tokens_stay_and_padding_changes_nothing() -> None:
    given = template(20, 11)
    given[0, 5:8] = torch.tensor([4, 7, 4])
    narrow, wide = (
        reparameterised(random_table(40), rows, steps=6).tokens for rows in (given, nn.functional.pad(given, (0, 9)))
    )
    pinned = given != MASK
    assert torch.equal(narrow[pinned], given[pinned]) and not (narrow == MASK).any()
    assert torch.equal(wide[:, :22], narrow) and not wide[:, 22:].any()


def test_one_step_draws_from_the_network() -> None:
    """Gumbel-max is an exact draw: frequencies of a single place over many rows."""
    logits = torch.randn(3, 9, generator=stream(2))
    made = reparameterised(Table(logits), template(1).repeat(40_000, 1), steps=1, resample=1)
    found = torch.bincount(made.tokens[:, 1], minlength=8)[4:] / 40_000
    torch.testing.assert_close(found, logits[1, 4:8].softmax(-1), atol=0.01, rtol=0)


def test_score_is_the_probability_under_the_noisy_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = torch.randn(5, 8, generator=stream(3))
    monkeypatch.setattr(module, "gumbel", lambda like, generator: noise)
    logits = torch.randn(5, 9, generator=stream(4))
    tokens, scores = propose(Table(logits), logits, TokenRule(temperature=0.5), stream())
    noisy = logits[:, 4:8] + 0.5 * noise[:, 4:8]
    assert torch.equal(tokens, noisy.argmax(-1) + 4)
    close(scores, noisy.softmax(-1).amax(-1).log())


def test_lowest_counts_free_positions_only_and_leaves_ties_out() -> None:
    scores = torch.tensor([[-9.0, -3.0, -1.0, -2.0, -4.0], [-9.0, -1.0, -1.0, -1.0, -1.0]])
    free = torch.tensor([[0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]).bool()
    found = lowest(scores, free, 0.5)
    assert found.tolist() == [[False, True, False, False, True], [False] * 5]
    assert not lowest(scores, free, 0.0).any()
    assert not lowest(scores, torch.zeros_like(free), 0.5).any()


def test_redraw_masks_overused_tokens_where_they_are_free() -> None:
    network = Table(torch.zeros(10, 9))
    whole = torch.tensor([[1, 4, 4, 4, 5, 6, 7, 4, 2, 0], [1, 4, 5, 6, 7, 4, 5, 6, 7, 2]])
    free = VOCABULARY.maskable(whole)
    free[0, 7] = False  # pinned by the user
    before = torch.full(whole.shape, -1.0)
    tokens, scores, rows = redraw(network, whole, before, free, TokenRule(), 0.25, stream())
    assert rows == 1 and len(network.inputs) == 1
    assert network.inputs[0].tolist() == [[1, MASK, MASK, MASK, 5, 6, 7, 4, 2, 0]]
    changed = scores != before
    assert changed[0].nonzero().squeeze(1).tolist() == [1, 2, 3] and not changed[1].any()
    assert torch.equal(tokens[~changed], whole[~changed])


def test_extra_calls_of_the_redraw_are_counted() -> None:
    logits = torch.zeros(22, 9)
    logits[:, 4] = 6.0  # nearly everything is token 4 in every row: one extra call a step
    network = Table(logits)
    made = reparameterised(network, template(20, 19), steps=5)
    assert made.nfe.denoiser == 10
    # All free positions tie at every step here, so that the state stays as it was: it is not computed again.
    assert len(network.inputs) <= 10
    plain = reparameterised(Table(logits), template(20, 19), steps=5, resample=1)
    assert plain.nfe.denoiser == 5


def test_settings_are_checked_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"^sampler.resample=1.5 is out of range"):
        SamplerSettings(sampler={"kind": "dplm", "resample": 1.5})
    with pytest.raises(InputError, match="sampler=dplm does not use a law: leave law=dilated out"):
        SamplerSettings(sampler="dplm", law="dilated")
    record = SamplerSettings(sampler={"kind": "dplm", "resample": 0.5}, steps=500).record()
    assert record["sampler_resample"] == 0.5 and record["steps"] == 500 and "law" not in record
