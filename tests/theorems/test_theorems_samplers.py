"""What a sampler draws, against the law it should have: the chain's own, or the enumerated few-step one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from tolerance import close, near

from didi_core.diffusion.grids import GRIDS, Optimised, Uniform, grid, shares_of
from didi_core.diffusion.heads import sharpen
from didi_core.diffusion.laws import LAWS, OpenLaw, law
from didi_core.diffusion.masking import log_p_x0
from didi_core.errors import InputError
from didi_core.objectives.rollout import roll_out
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import Sampled, Sampler, SampleRequest, TokenRule
from didi_core.sampling.first_hitting import FirstHitting
from didi_core.sampling.joint_fp32 import JointFp32
from didi_core.sampling.rgas import Rgas, reward_gradient
from didi_core.streams import generator
from didi_toy import ExactTeacher, MarkovChain, default_chain
from didi_toy.enumeration import (
    TableDenoiser,
    TableScorer,
    chi_square_p_value,
    every_sequence,
    few_step_law,
    histogram,
    iid_assignments,
    one_by_one_assignments,
)

SYMBOLS, LENGTH, N = 3, 4, 8000
LEAST = 1e-5  # p-value that a right sampler stays above, whatever a build of torch makes of the seed
TIMED = [name for name in LAWS if not isinstance(LAWS[name], OpenLaw)]
BLIND = [name for name in TIMED if not LAWS[name].sees_model]
# Open laws whose own key lets them reveal one position a call.
ONE_A_CALL = {
    "threshold": {"kind": "threshold", "probability": 1.0},
    "entropy_bound": {"kind": "entropy_bound", "bound": 0},
}


def random_chain(symbols: int, seed: int) -> MarkovChain:
    weights = torch.rand(symbols + 1, symbols, generator=generator(seed, "chain"), dtype=torch.float64) ** 2 + 0.02
    rows = weights / weights.sum(1, keepdim=True)
    return MarkovChain(rows[0], rows[1:])


CHAIN = random_chain(SYMBOLS, 7)
TEACHER = ExactTeacher(CHAIN)
MASK = TEACHER.vocabulary.mask
TABLE = TableDenoiser(SYMBOLS, 3, generator(3, "table"), spread=2.0)  # its conditionals fit no joint distribution


def blank(n: int, length: int, mask: int = MASK) -> torch.Tensor:
    return torch.full((n, length), mask)


def uniform_grid(steps: int) -> torch.Tensor:
    return Uniform().shares(steps)


def fill(sampler: Sampler, denoiser: torch.nn.Module, template: torch.Tensor, **given: object) -> Sampled:
    given = {"shares": uniform_grid(1), "law": law("iid"), **given}
    return sampler.sample(SampleRequest(denoiser, template, **given))  # type: ignore[arg-type]


def ancestral(denoiser: torch.nn.Module, template: torch.Tensor, **given: object) -> Sampled:
    return fill(Ancestral(), denoiser, template, **given)


def first_hitting(denoiser: torch.nn.Module, template: torch.Tensor, **given: object) -> Sampled:
    return fill(FirstHitting(), denoiser, template, **given)


class Counting(torch.nn.Module):
    """A denoiser that notes how many rows each trunk call and each head call had."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.vocabulary = inner, inner.vocabulary
        self.calls: list[int] = []
        self.head_rows: list[int] = []

    def trunk(self, tokens: torch.Tensor) -> torch.Tensor:
        self.calls.append(tokens.shape[0])
        return self.inner.trunk(tokens)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        self.head_rows.append(hidden.shape[:-1].numel())
        return self.inner.head(hidden)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(tokens))


# --- the law of a sampler


def one_by_one(name: str) -> Callable[..., Sampled]:
    """A sampler that reveals one token per step: every law whose count per step is even, and first-hitting."""
    if name == "first_hitting":
        return first_hitting
    if name == "rgas":
        return lambda denoiser, template, generator: fill(
            Rgas(candidates=3), denoiser, template, scorer=TableScorer(SYMBOLS, template.shape[1]),
            shares=uniform_grid(template.shape[1]), law=law("stratified"), generator=generator,
        )  # fmt: skip
    # Independent reveal times collide unless steps are many: 200 leave 3 % of the sequences with a collision.
    steps = 200 if name == "iid" else None
    return lambda denoiser, template, generator: ancestral(
        denoiser, template, shares=uniform_grid(steps or template.shape[1]),
        law=law(ONE_A_CALL.get(name, name)), generator=generator,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*LAWS, "first_hitting", "rgas"])
def test_one_token_per_step_with_the_exact_teacher_reproduces_the_chain(name: str) -> None:
    """Also ``confidence`` (it looks at what is visible, not at the token to be drawn) and RGAS with a flat scorer."""
    drawn = one_by_one(name)(TEACHER, blank(N, LENGTH), generator=generator(0, name)).tokens
    exact = CHAIN.joint(LENGTH)[1].exp()
    assert chi_square_p_value(histogram(drawn, SYMBOLS), exact) > LEAST


@pytest.mark.parametrize("name", ["dilated", "stratified", "confidence", "first_hitting"])
def test_long_sequences_have_the_pairs_of_the_chain(name: str) -> None:
    chain, n, length = default_chain(), 3000, 8
    teacher = ExactTeacher(chain)
    drawn = one_by_one(name)(teacher, blank(n, length, teacher.vocabulary.mask), generator=generator(1, name)).tokens
    for first, lag in ((3, 1), (1, 5)):  # one pair per sequence: the counts are independent
        code = drawn[:, first] * chain.symbols + drawn[:, first + lag]
        counts = torch.bincount(code, minlength=chain.symbols**2).double()
        assert chi_square_p_value(counts, chain.pairs(lag, length).reshape(-1)) > LEAST


def law_assignments(name: str, shares: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How often the law gives positions to steps: exact for iid, else from many draws of its reveal times."""
    if name == "iid":
        return iid_assignments(length, shares)
    times = law(name).times(torch.ones(100_000, length, dtype=torch.bool), generator(5, name))
    steps, counts = torch.unique(torch.searchsorted(shares, times), dim=0, return_counts=True)
    return steps, counts.double() / counts.sum()


@pytest.mark.parametrize("shares", [(1.0,), (0.5, 1.0), (0.1, 0.35, 1.0)])
@pytest.mark.parametrize("name", BLIND)
def test_few_steps_draw_the_enumerated_law(name: str, shares: tuple[float, ...]) -> None:
    """With a denoiser whose conditionals contradict each other, so that order and grouping matter."""
    grid_ = torch.tensor(shares, dtype=torch.float64)
    drawn = ancestral(TABLE, blank(N, 3), shares=grid_, law=law(name), generator=generator(0, name, *shares)).tokens
    with torch.no_grad():
        exact = few_step_law(TABLE, SYMBOLS, law_assignments(name, grid_, 3))
    assert exact.sum().item() == near(1)
    assert chi_square_p_value(histogram(drawn, SYMBOLS), exact) > LEAST


def test_the_test_can_fail() -> None:
    """The same number of samples distinguishes the enumerated distributions of neighbouring settings."""
    drawn = ancestral(TABLE, blank(N, 3), shares=uniform_grid(2), law=law("iid"), generator=generator(0)).tokens
    with torch.no_grad():
        other = few_step_law(TABLE, SYMBOLS, iid_assignments(3, uniform_grid(1)))
    assert chi_square_p_value(histogram(drawn, SYMBOLS), other) < 1e-6


@pytest.mark.parametrize("name", ["first_hitting", "stratified"])
def test_one_by_one_is_the_mean_over_all_orders(name: str) -> None:
    drawn = one_by_one(name)(TABLE, blank(N, 3), generator=generator(2, name)).tokens
    with torch.no_grad():
        exact = few_step_law(TABLE, SYMBOLS, one_by_one_assignments(3))
    assert chi_square_p_value(histogram(drawn, SYMBOLS), exact) > LEAST


@pytest.mark.parametrize("sampler", [Ancestral(), JointFp32()], ids=["factorised", "joint"])
def test_factorised_and_joint_draw_have_the_same_law(sampler: Sampler) -> None:
    """At three tokens the truncation of ``joint_fp32`` does not show."""
    shares = torch.tensor([0.3, 0.7, 1.0], dtype=torch.float64)
    with torch.no_grad():
        exact = few_step_law(TABLE, SYMBOLS, iid_assignments(3, shares))
    denoiser = Counting(TABLE)
    drawn = fill(sampler, denoiser, blank(N, 3), shares=shares, generator=generator(4, "exact")).tokens
    assert chi_square_p_value(histogram(drawn, SYMBOLS), exact) > LEAST
    # The factorised draw asks the head for what a step reveals, the joint draw for all that is still masked.
    expected = torch.tensor([0.3, 0.4, 0.3] if sampler == Ancestral() else [1.0, 0.7, 0.3]) * 3 * N
    assert (torch.tensor(denoiser.head_rows) - expected).abs().max() < 4 * (3 * N / 4) ** 0.5


def test_rollout_draws_what_the_sampler_draws() -> None:
    shares = torch.tensor([0.4, 1.0], dtype=torch.float64)
    with torch.no_grad():
        rollout = roll_out(TABLE, blank(N, 3), shares.expand(N, 2), law("iid"), generator(6), branches=2)
        exact = few_step_law(TABLE, SYMBOLS, iid_assignments(3, shares))
    for branch in rollout.completions:
        assert chi_square_p_value(histogram(branch, SYMBOLS), exact) > LEAST
    first, last = rollout.calls
    assert (first.where ^ last.where).all()
    assert torch.equal(last.tokens == MASK, last.where)
    for branch in rollout.completions:
        assert torch.equal(torch.where(first.where, branch, MASK), last.tokens)


# --- temperature, nucleus, bias


def test_token_rules_shape_the_law() -> None:
    log_p = log_p_x0(TABLE(blank(1, 3)), TABLE.vocabulary)[0].detach()
    bias = torch.tensor([0.0, 1.5, 0.0, 9.0])  # the last is the pad token: forbidden stays forbidden
    rule = TokenRule(temperature=0.5, bias=bias)
    drawn = ancestral(
        TABLE, blank(N, 3), shares=uniform_grid(1), law=law("iid"), rule=rule, generator=generator(0)
    ).tokens
    expected = torch.softmax((log_p + bias) / 0.5, -1)
    for position in range(3):
        counts = torch.bincount(drawn[:, position], minlength=4).double()
        assert chi_square_p_value(counts, expected[position]) > LEAST


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p() -> None:
    log_p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)):
        sharp = sharpen(log_p, top_p=top_p).exp()
        assert int((sharp > 0).sum()) == kept
        close(sharp[0, :kept], log_p.exp()[0, :kept] / log_p.exp()[0, :kept].sum())
    close(sharpen(log_p, temperature=1e-3).exp()[0, 0], torch.tensor(1.0))


# --- what never changes, and what is counted


def pinned_template() -> torch.Tensor:
    """Rows of different length, with pinned symbols between the masks; one row has nothing to fill."""
    pad = TEACHER.vocabulary.pad
    rows = [[MASK, 1, MASK, MASK, 2], [MASK, MASK, 0, pad, pad], [2, MASK, pad, pad, pad], [0, 1, 2, pad, pad]]
    return torch.tensor(rows).repeat(50, 1)


@pytest.mark.parametrize("name", [*LAWS, "first_hitting", "rgas"])
def test_pinned_positions_never_change_and_nothing_stays_masked(name: str) -> None:
    template = pinned_template()
    before = template.clone()
    drawn = one_by_one(name)(TEACHER, template, generator=generator(0)).tokens
    assert torch.equal(template, before)  # nor does the caller's tensor
    pinned = template != MASK
    assert torch.equal(drawn[pinned], template[pinned])
    assert (drawn[~pinned] < SYMBOLS).all()


def test_infilling_draws_the_conditional_of_the_chain() -> None:
    template = torch.tensor([[MASK, 1, MASK, MASK, 2]]).repeat(N, 1)
    drawn = first_hitting(TEACHER, template, generator=generator(3)).tokens
    x, log_p = CHAIN.joint(5)
    fits = (x[:, 1] == 1) & (x[:, 4] == 2)
    exact = torch.where(fits, log_p.exp(), 0.0)
    assert chi_square_p_value(histogram(drawn, SYMBOLS), exact / exact.sum()) > LEAST


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_steps_are_exactly_so_many_calls(name: str, steps: int) -> None:
    denoiser = Counting(TEACHER)
    made = ancestral(denoiser, blank(20, 6), shares=uniform_grid(steps), law=law(name), generator=generator(0))
    assert len(denoiser.calls) == steps == made.nfe.denoiser and made.nfe.scorer == 0
    assert denoiser.calls[0] == 1  # the all-masked input is the same for every row
    assert (made.tokens < SYMBOLS).all()
    if not law(name).sees_model:
        assert sum(denoiser.head_rows) == 20 * 6  # the head runs once for each token drawn


def test_first_hitting_calls_each_row_as_often_as_it_has_free_positions() -> None:
    template = pinned_template()
    denoiser = Counting(TEACHER)
    made = first_hitting(denoiser, template, generator=generator(0))
    assert made.nfe.denoiser == pytest.approx((3 + 2 + 1 + 0) / 4)
    assert len(denoiser.calls) == 3


def test_a_template_without_masks_comes_back() -> None:
    whole = torch.tensor([[0, 1, 2, 0]])
    for sampler in (*LAWS, "first_hitting", "rgas"):
        assert torch.equal(one_by_one(sampler)(TEACHER, whole, generator=generator(0)).tokens, whole)


# --- laws and grids


@pytest.mark.parametrize("name", TIMED)
def test_reveal_times_are_uniform_and_within_bounds(name: str) -> None:
    """So that on average every grid reveals the shares it names, also where rows have different free positions."""
    free = (pinned_template() == MASK).repeat(200, 1)
    times = law(name).times(free, generator(0, name))[free]
    assert times.min() > 0 and times.max() <= 1
    counts = torch.histc(times, 20, 0, 1)
    if name == "iid":
        assert chi_square_p_value(counts, torch.full((20,), 1 / 20)) > LEAST
    assert (counts / counts.sum() - 1 / 20).abs().max() < 0.005


@pytest.mark.parametrize("name", ["stratified", "dilated"])
def test_even_laws_reveal_equal_numbers(name: str) -> None:
    times = law(name).times(torch.ones(500, 12, dtype=torch.bool), generator(0, name))
    for steps in (1, 2, 3, 4, 6, 12):
        steps_of = torch.searchsorted(uniform_grid(steps), times)
        assert (torch.nn.functional.one_hot(steps_of, steps).sum(1) == 12 // steps).all()
    uneven = torch.searchsorted(uniform_grid(5), times)
    assert set(torch.nn.functional.one_hot(uneven, 5).sum(1).unique().tolist()) <= {2, 3}


def test_dilated_reveals_positions_far_apart() -> None:
    free = torch.ones(200, 32, dtype=torch.bool)
    steps_of = torch.searchsorted(uniform_grid(8), law("dilated").times(free, generator(0)))
    for step in range(8):
        places = (steps_of == step).nonzero()[:, 1].view(200, 4)
        gaps = torch.cat([places.diff(dim=1), places[:, :1] + 32 - places[:, -1:]], 1)
        assert gaps.min() >= 4  # four of 32 at once; never neighbours


def test_confidence_reveals_the_surest_first() -> None:
    times = torch.tensor([[0.1, 0.4, 0.7, 0.9]], dtype=torch.float64)
    masked = torch.tensor([[False, True, True, True]])
    dealt = law("confidence").reorder(times, masked, torch.tensor([[0.99, 0.2, 0.3, 0.8]]))
    torch.testing.assert_close(dealt, torch.tensor([[0.1, 0.9, 0.7, 0.4]], dtype=torch.float64))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 32])
def test_grids_rise_to_exactly_one(name: str, steps: int) -> None:
    shares = shares_of(grid(name), steps, lambda share: 3 * (1 - share) ** 2 + 0.5)
    assert shares.shape == (steps,) and shares[-1] == 1
    assert (torch.diff(shares, prepend=torch.zeros(1, dtype=shares.dtype)) > 0).all()


def test_optimised_grid_is_uniform_for_a_straight_curve_and_early_for_a_steep_one() -> None:
    straight = Optimised(65).shares(4, lambda share: 2 - share)
    torch.testing.assert_close(straight, uniform_grid(4), atol=0.02, rtol=0)
    steep = Optimised(129).shares(4, lambda share: torch.exp(-12 * share))
    assert (steep[:-1] < uniform_grid(4)[:-1]).all()


# --- guidance


@pytest.mark.parametrize("name", BLIND)
def test_guidance_without_strength_and_choice_is_ancestral_bit_for_bit(name: str) -> None:
    scorer = TableScorer(SYMBOLS, 5)
    torch.nn.init.normal_(scorer.table, generator=generator(0, "scorer"))
    template = pinned_template()
    # A TableScorer knows no padding; with nothing to guide it must not even be asked.
    off = Rgas(scale=(0.0, 0.0), candidates=1)
    for rule in (TokenRule(), TokenRule(temperature=0.7, top_p=0.9)):
        plain = ancestral(
            TEACHER, template, shares=uniform_grid(4), law=law(name), rule=rule, generator=generator(1, name)
        )
        guided = fill(
            off, TEACHER, template, scorer=scorer, shares=uniform_grid(4), law=law(name), rule=rule,
            generator=generator(1, name),
        )  # fmt: skip
        assert torch.equal(plain.tokens, guided.tokens)
        assert guided.nfe == plain.nfe


def test_vanishing_guidance_draws_the_same_tokens() -> None:
    """Through the guided branch itself: h = 1e-9 moves no draw."""
    scorer = TableScorer(SYMBOLS, 3)
    torch.nn.init.normal_(scorer.table, generator=generator(0, "scorer"))
    weak = Rgas(scale=(1e-9, 1e-9), candidates=1, gradient_share=1.0)
    plain = ancestral(TABLE, blank(500, 3), shares=uniform_grid(3), law=law("iid"), generator=generator(1))
    guided = fill(weak, TABLE, blank(500, 3), scorer=scorer, shares=uniform_grid(3), generator=generator(1))
    assert torch.equal(plain.tokens, guided.tokens)


def test_soft_tokens_that_are_one_hot_give_the_logits_of_the_tokens() -> None:
    scorer = TableScorer(SYMBOLS, 3)
    torch.nn.init.normal_(scorer.table, generator=generator(0, "scorer"))
    x = every_sequence(SYMBOLS, 3)
    where = torch.rand(x.shape, generator=generator(1)) < 0.5
    weights = torch.nn.functional.one_hot(x[where], SYMBOLS + 1).float()
    close(scorer.soft(torch.where(where, MASK, x), where, weights), scorer(x))


def test_the_gradient_is_that_of_the_summed_soft_logits() -> None:
    scorer = TableScorer(SYMBOLS, 2)
    torch.nn.init.normal_(scorer.table, generator=generator(0, "scorer"))
    tokens = torch.tensor([[MASK, 1], [MASK, MASK]])
    masked = tokens == MASK
    log_p = torch.log_softmax(torch.randn(3, SYMBOLS + 1, generator=generator(1)), -1)
    gradient = reward_gradient(scorer, tokens, masked, log_p)
    step = 1e-2
    for entry in itertools.product(range(3), range(SYMBOLS)):
        total = []
        for sign in (1, -1):
            moved = log_p.clone()
            moved[entry] += sign * step
            total.append(scorer.soft(tokens, masked, moved.exp())[masked].sum())
        assert gradient[entry].item() == pytest.approx(((total[0] - total[1]) / (2 * step)).item(), abs=2e-3)


@pytest.mark.parametrize("guidance", [
    Rgas(scale=(2.0, 3.0), candidates=1, gradient_share=1.0),
    Rgas(scale=(0.0, 0.0), candidates=8, gradient_share=0.0),
])  # fmt: skip
def test_each_kind_of_guidance_raises_the_score(guidance: Rgas) -> None:
    scorer = TableScorer(SYMBOLS, 3)
    torch.nn.init.normal_(scorer.table, generator=generator(0, "scorer"))
    settings = {"shares": uniform_grid(3), "law": law("stratified")}
    plain = ancestral(TABLE, blank(2000, 3), **settings, generator=generator(1)).tokens
    guided = fill(guidance, TABLE, blank(2000, 3), scorer=scorer, **settings, generator=generator(1)).tokens
    with torch.no_grad():
        gain = scorer(guided).mean() - scorer(plain).mean()
    assert gain > 0.1


def test_candidates_are_kept_by_softmax_of_their_reward() -> None:
    """One step, many candidates: the law becomes the denoiser's times exp(reward), as importance resampling has it."""
    scorer = TableScorer(SYMBOLS, 2)
    torch.nn.init.normal_(scorer.table, 0, 0.5, generator=generator(0, "scorer"))
    table = TableDenoiser(SYMBOLS, 2, generator(0, "pair"))
    many = Rgas(candidates=60, gradient_share=0.0)
    drawn = fill(many, table, blank(4000, 2), scorer=scorer, generator=generator(2))
    with torch.no_grad():
        plain = few_step_law(table, SYMBOLS, iid_assignments(2, uniform_grid(1)))
        tilted = plain * scorer(every_sequence(SYMBOLS, 2)).mean(1).exp()
    assert chi_square_p_value(histogram(drawn.tokens, SYMBOLS), tilted / tilted.sum()) > LEAST
    assert drawn.nfe.denoiser == 1 and drawn.nfe.scorer == 60


def test_calls_of_both_networks_are_counted() -> None:
    scorer = TableScorer(SYMBOLS, LENGTH)
    sampler, denoiser = Rgas(scale=(30.0, 40.0), candidates=4), Counting(TEACHER)
    made = fill(
        sampler, denoiser, blank(10, LENGTH), scorer=scorer, shares=uniform_grid(8), generator=generator(0)
    )
    assert made.nfe.denoiser == len(denoiser.calls) == 8
    assert made.nfe.scorer == 4 * 3 + 4 * 4  # a gradient counts as three, every candidate as one
    assert made.nfe.total == 8 + 28


# --- seeds and errors


@pytest.mark.parametrize("name", [*LAWS, "first_hitting", "rgas"])
def test_the_same_seed_draws_the_same_tokens(name: str) -> None:
    made = [one_by_one(name)(TEACHER, blank(30, 5), generator=generator(s, "draw")).tokens for s in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_settings_out_of_range_name_the_value() -> None:
    with pytest.raises(InputError, match=r"temperature=0"):
        TokenRule(temperature=0)
    with pytest.raises(InputError, match=r"top_p=1.5"):
        TokenRule(top_p=1.5)
    with pytest.raises(InputError, match=r"steps=0"):
        shares_of(Uniform(), 0)
    with pytest.raises(InputError, match="Did you mean 'dilated'"):
        law("dilatd")
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        grid("cosin")
    with pytest.raises(InputError, match="unknown key 'grid.pover'. Did you mean 'grid.power'"):
        grid({"kind": "power", "pover": 2})
    with pytest.raises(InputError, match=r"law=.* names nothing: write law=NAME"):
        law({"probability": 0.5})
    with pytest.raises(InputError, match=r"unknown key 'bound' \(law=threshold\). Known: block, probability"):
        law({"kind": "threshold", "bound": 1.0})
