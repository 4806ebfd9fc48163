"""The walk: the same states for samplers and rollouts, from any start, with laws that follow the model, tokens that are
taken back, and noise; against laws that are enumerated state by state."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

import pytest
import torch

from didi_core.config import Choice
from didi_core.diffusion import heads
from didi_core.diffusion.beliefs import Beliefs
from didi_core.diffusion.divergences import entropy
from didi_core.diffusion.grids import Power, Uniform, shares_of
from didi_core.diffusion.laws import LAWS, Law, OpenLaw, _van_der_corput, law
from didi_core.diffusion.masking import log_p_x0
from didi_core.diffusion.walk import Call, follow
from didi_core.errors import InputError
from didi_core.objectives.rollout import RolloutSettings, roll_out
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import Sampled, Sampler, SampleRequest, TokenRule
from didi_core.sampling.catalogue import BUILT_IN
from didi_core.sampling.first_hitting import FirstHitting
from didi_core.sampling.generate import SamplerSettings
from didi_core.sampling.p2 import P2, best
from didi_core.streams import generator
from didi_core.types import Denoiser, NoisyDenoiser
from didi_toy.enumeration import TableDenoiser, TableScorer, chi_square_p_value, every_sequence, histogram
from didi_toy.teacher import toy_vocabulary

SYMBOLS, LENGTH, N, LEAST = 3, 3, 8000, 1e-3
TABLE = TableDenoiser(SYMBOLS, LENGTH, generator(3, "table"), spread=2.0)  # its conditionals fit no joint distribution
MASK = TABLE.vocabulary.mask
TIMED = [name for name in LAWS if not isinstance(LAWS[name], OpenLaw)]
State = tuple[int, ...]


class Watched(Denoiser):
    """A denoiser that keeps the inputs of its trunk and the sizes of its head's."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.vocabulary = inner, inner.vocabulary
        self.inputs: list[torch.Tensor] = []
        self.head_rows: list[int] = []

    def trunk(self, tokens: torch.Tensor) -> torch.Tensor:
        self.inputs.append(tokens.clone())
        return self.inner.trunk(tokens)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        self.head_rows.append(hidden.shape[:-1].numel())
        return self.inner.head(hidden)


def fill(sampler: Sampler, template: torch.Tensor, denoiser: Denoiser = TABLE, **given: object) -> Sampled:
    given = {"shares": Uniform().shares(3), "law": law("stratified"), "generator": generator(0), **given}
    return sampler.sample(SampleRequest(denoiser, template, **given))


def blank(n: int, length: int = LENGTH) -> torch.Tensor:
    return torch.full((n, length), MASK)


@torch.no_grad()
def conditionals(state: State) -> torch.Tensor:
    """p(token) at every position of a state, [L, V]."""
    return log_p_x0(TABLE(torch.tensor([state])), TABLE.vocabulary)[0].double().exp()


def outcomes(state: State, places: Iterable[int]) -> Iterable[tuple[State, float]]:
    """Every way to write tokens at some places of a state, with its probability."""
    p, places = conditionals(state), tuple(places)
    for tokens in itertools.product(range(SYMBOLS), repeat=len(places)):
        written, chance = list(state), 1.0
        for place, token in zip(places, tokens, strict=True):
            written[place] = token
            chance *= float(p[place, token])
        yield tuple(written), chance


def enumerated(choose: Callable[[State], Iterable[int]], start: State = (MASK,) * LENGTH) -> torch.Tensor:
    """Exact probability of every sequence if ``choose`` returns the positions of a state that are written."""
    states, finished = {start: 1.0}, defaultdict(float)
    while states:
        following: defaultdict[State, float] = defaultdict(float)
        for state, chance in states.items():
            if MASK not in state:
                finished[state] += chance
                continue
            for after, p in outcomes(state, choose(state)):
                following[after] += chance * p
        states = following
    return torch.tensor([finished[tuple(x)] for x in every_sequence(SYMBOLS, LENGTH).tolist()], dtype=torch.float64)


def masked_places(state: State, block: int = 0) -> list[int]:
    found = [i for i, token in enumerate(state) if token == MASK]
    return [i for i in found if not block or i // block == found[0] // block]


def above(probability: float, block: int = 0) -> Callable[[State], list[int]]:
    """What ``threshold`` should choose."""

    def choose(state: State) -> list[int]:
        surest = conditionals(state).amax(1)
        near = masked_places(state, block)
        return [i for i in near if surest[i] >= probability or surest[i] == max(surest[near])]

    return choose


def bounded(bound: float, block: int = 0) -> Callable[[State], list[int]]:
    """What ``entropy_bound`` should choose."""

    def choose(state: State) -> list[int]:
        spread = entropy(conditionals(state).log())
        near = sorted(masked_places(state, block), key=lambda i: float(spread[i]))
        total = list(itertools.accumulate(float(spread[i]) for i in near))
        return near[: max(sum(t <= bound for t in total), 1)]

    return choose


# --- laws that look at the model


@pytest.mark.parametrize(
    ("choice", "choose"),
    [
        ("confidence", above(1.0)),  # with as many calls as positions
        ({"kind": "threshold", "probability": 0.6}, above(0.6)),
        ({"kind": "threshold", "probability": 0.4, "block": 2}, above(0.4, 2)),
        ({"kind": "entropy_bound", "bound": 1.2}, bounded(1.2)),
        ({"kind": "entropy_bound", "bound": 1.2, "block": 2}, bounded(1.2, 2)),
    ],
)
def test_laws_that_see_the_model_draw_the_enumerated_law(
    choice: Choice, choose: Callable[[State], Iterable[int]]
) -> None:
    exact = enumerated(choose)
    assert exact.sum().item() == pytest.approx(1, abs=1e-6)
    made = fill(Ancestral(), blank(N), law=law(choice), generator=generator(0, str(choice)))
    assert chi_square_p_value(histogram(made.tokens, SYMBOLS), exact) > LEAST
    other = fill(Ancestral(), blank(N), law=law("stratified"))
    assert chi_square_p_value(histogram(other.tokens, SYMBOLS), exact) < 1e-6  # the test can fail


def test_calls_of_an_open_law_differ_by_sequence_and_finished_rows_are_not_called() -> None:
    watched = Watched(TABLE)
    template = torch.cat([blank(300), torch.tensor([[0, 1, 2]] * 20)])
    states: list[torch.Tensor] = []
    request = SampleRequest(
        watched, template, Uniform().shares(1), law({"kind": "threshold", "probability": 0.6}), generator(1)
    )
    follow(request.walk(request.law), lambda call: [states.append(call.tokens), request.draw(call)][1])  # type: ignore[func-returns-value]
    left = [int((tokens == MASK).any(1).sum()) for tokens in states]
    made = Ancestral().sample(SampleRequest(TABLE, template, request.shares, request.law, generator(1)))
    assert left[0] == 300 > left[-1] and not (made.tokens == MASK).any()
    assert made.nfe.denoiser == pytest.approx(sum(left) / 320)
    assert all((tokens == MASK).any(1).all() for tokens in watched.inputs)
    assert len(watched.inputs[0]) == 1  # the first call is the same for every row


def test_blocks_go_from_left_to_right_by_the_law_inside() -> None:
    free = torch.ones(200, 12, dtype=torch.bool)
    free[:100, 5] = False
    for inside in ("iid", "stratified", "dilated"):
        times = law({"kind": "blocks", "size": 4, "inside": inside}).times(free, generator(0, inside))
        ends = [times[:, i : i + 4].masked_fill(~free[:, i : i + 4], torch.nan) for i in (0, 4, 8)]
        for left, right in itertools.pairwise(ends):
            assert (left.nan_to_num(0).amax(1) < right.nan_to_num(2).amin(1)).all()
    by_model = law({"kind": "blocks", "size": 2, "inside": "confidence"})
    times = torch.tensor([[0.2, 0.4, 0.6, 0.8]], dtype=torch.float64)
    masked = torch.tensor([[True, True, True, True]])
    dealt = by_model.reorder(times, masked, torch.tensor([[0.1, 0.2, 0.3, 0.9]]))
    assert dealt.tolist() == [[0.4, 0.2, 0.8, 0.6]]


def test_a_law_that_reveals_nothing_is_named() -> None:
    class Idle(Law):
        name, sees_model = "idle", False

        def times(self, free: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return free.double()

        def choose(self, times: torch.Tensor, masked: torch.Tensor, beliefs: Beliefs) -> torch.Tensor:
            return torch.zeros_like(masked)

    with pytest.raises(InputError, match="law=idle reveals nothing in 5 of 5 sequences that still have masks"):
        fill(Ancestral(), blank(5), law=Idle())


def test_what_an_open_law_has_no_steps_for_is_not_recorded() -> None:
    record = SamplerSettings(law={"kind": "threshold", "probability": 0.7}, steps=9, grid="power").record()
    assert {"sampler": "ancestral", "law": "threshold", "law_probability": 0.7}.items() <= record.items()
    assert not {"steps", "grid", "power"} & {*record}
    with pytest.raises(InputError, match=r"objective.rollout.law=threshold decides itself how many calls"):
        RolloutSettings(law="threshold")
    with pytest.raises(InputError, match="^law.probability=2.0 is out of range"):
        SamplerSettings(law={"kind": "threshold", "probability": 2})
    with pytest.raises(InputError, match="sampler=rgas needs a law that does not look at the model; got law=threshold"):
        SamplerSettings(sampler="rgas", law="threshold")


# --- the same walk for samplers and rollouts


@pytest.mark.parametrize("start", ["blank", "pinned", "corrupted"])
@pytest.mark.parametrize("name", TIMED)
def test_a_rollout_visits_the_states_of_the_sampler(name: str, start: str) -> None:
    template = {
        "blank": blank(60, 3),
        "pinned": torch.tensor([[MASK, 1, MASK], [MASK, MASK, 2], [0, 1, 2]]).repeat(20, 1),
        "corrupted": torch.randint(SYMBOLS, (60, 3), generator=generator(1)).masked_fill(
            torch.rand(60, 3, generator=generator(2)) < 0.6, MASK
        ),
    }[start]
    shares, states = Power().shares(4), []
    request = SampleRequest(TABLE, template, shares, law(name), generator(5, name))

    def draw(call: Call) -> torch.Tensor:
        states.append(call.tokens)
        return request.draw(call)

    with torch.no_grad():
        last = follow(request.walk(request.law), draw)
    assert torch.equal(last, Ancestral().sample(SampleRequest(TABLE, template, shares, law(name), generator(5, name))).tokens)  # noqa: E501
    made = roll_out(TABLE, template, shares.expand(60, 4), law(name), generator(5, name), trained=2)
    assert all(torch.equal(call.tokens, state) for call, state in zip(made.calls, states, strict=True))
    assert torch.equal(made.completions[0], last)
    assert [call.hidden.requires_grad for call in made.calls] == [False, False, True, True]
    fixed = template != MASK
    assert torch.equal(last[fixed], template[fixed]) and not (last == MASK).any()


def test_shares_may_differ_by_row() -> None:
    shares = torch.tensor([[0.34, 1.0], [0.67, 1.0]], dtype=torch.float64).repeat(50, 1)
    made = roll_out(TABLE, blank(100), shares, law("stratified"), generator(0))
    revealed = made.calls[0].where.sum(1)
    assert revealed[0::2].double().mean() == pytest.approx(1.02, abs=0.2)
    assert revealed[1::2].double().mean() == pytest.approx(2.01, abs=0.2)


def test_confidence_is_a_probability_and_the_head_runs_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.tensor([[MASK, 1, MASK], [MASK, MASK, MASK], [0, 1, 2]])
    masked, hidden = tokens == MASK, TABLE.trunk(tokens)
    whole = Beliefs(TABLE, lambda where: hidden[where], masked)
    with torch.no_grad():
        p = log_p_x0(hidden, TABLE.vocabulary).exp()
    torch.testing.assert_close(whole.confidence, p.amax(-1) * masked)
    torch.testing.assert_close(whole.entropy, entropy(p.log()) * masked)
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", 2 * TABLE.vocabulary.size)  # two positions at once
    for name, sampler in BUILT_IN.items():
        if name == "autoregressive":
            continue
        watched = Watched(TABLE)
        made = fill(
            sampler(), blank(20), watched, scorer=TableScorer(SYMBOLS, LENGTH), generator=generator(0, name)
        )
        assert not (made.tokens == MASK).any()
        assert max(watched.head_rows) <= (LENGTH if name == "rgas" else 2)  # its gradient needs a sequence whole
    watched = Watched(TABLE)
    Beliefs(watched, lambda where: hidden[where], masked).confidence  # noqa: B018
    assert watched.head_rows == [2, 2, 1]


# --- tokens that are taken back


def p2_law(shares: torch.Tensor, eta: float) -> tuple[torch.Tensor, float]:
    """Exact probability of every sequence under P2, state by state, and the expected number of tokens taken back."""
    states, revoked = {(MASK,) * LENGTH: 1.0}, 0.0
    for share in shares.tolist():
        following: defaultdict[State, float] = defaultdict(float)
        for state, chance in states.items():
            p, masked = conditionals(state), masked_places(state)
            for whole, drawn in outcomes(state, masked):
                scores = [float(p[i, token]) * (1 if i in masked else eta) for i, token in enumerate(whole)]
                keep = sorted(range(LENGTH), key=lambda i: -scores[i])[: round(LENGTH * share)]
                after = tuple(token if i in keep else MASK for i, token in enumerate(whole))
                following[after] += chance * drawn
                revoked += chance * drawn * sum(a == MASK != b for a, b in zip(after, state, strict=True))
        states = following
    found = [states.get(tuple(x), 0.0) for x in every_sequence(SYMBOLS, LENGTH).tolist()]
    return torch.tensor(found, dtype=torch.float64), revoked


@pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
def test_p2_draws_the_enumerated_law(eta: float) -> None:
    exact, revoked = p2_law(Uniform().shares(3), eta)
    assert exact.sum().item() == pytest.approx(1, abs=1e-6) and revoked > 1e-3
    made = fill(P2(eta), blank(N), generator=generator(0, str(eta)))
    assert chi_square_p_value(histogram(made.tokens, SYMBOLS), exact) > LEAST


def test_p2_that_takes_nothing_back_is_ancestral_in_confidence_order() -> None:
    """With a nucleus of one token a draw is the likeliest token, and its probability the confidence."""
    table = TableDenoiser(SYMBOLS, 6, generator(7, "p2"), spread=2.0)
    start = torch.randint(SYMBOLS, (400, 6), generator=generator(1))
    start = start.masked_fill(torch.arange(6) >= torch.tensor([[0], [3]]).repeat(200, 1), MASK)
    rule, shares = TokenRule(top_p=1e-6), Uniform().shares(3)
    one, other = (
        fill(sampler, start, table, shares=shares, law=law("confidence"), rule=rule)
        for sampler in (P2(eta=1e9), Ancestral())
    )
    assert torch.equal(one.tokens, other.tokens) and one.nfe == other.nfe


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_p2_makes_so_many_calls_and_leaves_pinned_positions(steps: int) -> None:
    template = torch.tensor([[MASK, 1, MASK], [MASK, MASK, 2], [0, 1, 2]]).repeat(20, 1)
    shares, states = Uniform().shares(steps), []
    request = SampleRequest(TABLE, template, shares, law("iid"), generator(2))

    class Noting(SampleRequest):
        def walk(self, law: Law | None) -> object:  # type: ignore[override]
            return noted(super().walk(law))

    def noted(steps: object) -> object:
        state = None
        while True:
            try:
                call = steps.send(state)  # type: ignore[attr-defined]
            except StopIteration as end:
                return end.value
            states.append(call.tokens)
            state = yield call

    made = P2(0.5).sample(Noting(**vars(request)))
    fixed = template != MASK
    assert len(states) == steps == made.nfe.denoiser
    assert all(torch.equal(state[fixed], template[fixed]) for state in [*states, made.tokens])
    kept = [(tokens != MASK).sum(1) - fixed.sum(1) for tokens in states[1:]]
    for share, count in zip(shares.tolist(), kept, strict=False):
        assert torch.equal(count.double(), ((~fixed).sum(1) * share - 1e-9).ceil())


def test_best_counts_free_positions_and_breaks_ties_from_the_left() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.5, 0.7, 0.1], [0.0, 0.0, 0.0, 0.0, 0.0]])
    free = torch.tensor([[False, True, True, True, True]] * 2)
    assert best(scores, free, 0.5).tolist() == [[False, True, False, True, False], [False, True, True, False, False]]
    assert best(scores, free, 0.9).sum(1).tolist() == [4, 4]
    for n, k in itertools.product(range(1, 40), range(1, 40)):
        share = float(Uniform().shares(40)[k])
        kept = best(torch.zeros(1, n), torch.ones(1, n, dtype=torch.bool), share)
        assert int(kept.sum()) == -(-n * (k + 1) // 40)


# --- noise


class Coin(NoisyDenoiser):
    """All positions get the same token, by the sign of the noise; without noise both tokens are as likely."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.vocabulary, self.noise_size, self.rows = toy_vocabulary(2), size, []  # type: ignore[var-annotated]

    def trunk(self, tokens: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        self.rows.append(len(tokens))
        sign = torch.zeros(len(tokens)) if noise is None else noise[:, 0].sign()
        return sign[:, None, None].expand(*tokens.shape, 1)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.cat([50 * hidden, -50 * hidden, torch.zeros_like(hidden)], -1)


@pytest.mark.parametrize("sampler", [Ancestral(), FirstHitting()])
def test_noise_is_drawn_for_every_row_and_call(sampler: Sampler) -> None:
    coin = Coin()
    template = torch.full((200, 3), coin.vocabulary.mask)
    made = fill(sampler, template, coin, shares=Uniform().shares(1))
    assert coin.rows == [200] * (3 if isinstance(sampler, FirstHitting) else 1)
    counts = Counter(map(tuple, made.tokens.tolist()))
    if isinstance(sampler, FirstHitting):
        assert len(counts) == 8  # new noise at every call
    else:
        assert {*counts} == {(0, 0, 0), (1, 1, 1)} and 60 < counts[0, 0, 0] < 140
    again = fill(sampler, template, coin, shares=Uniform().shares(1))
    assert torch.equal(made.tokens, again.tokens)


def test_a_call_says_which_noise_it_had() -> None:
    coin = Coin()
    template = torch.full((50, 3), coin.vocabulary.mask)
    made = roll_out(coin, template, torch.tensor([[0.5, 1.0]]).double().expand(50, 2), law("stratified"), generator(0))
    first, last = (call.noise for call in made.calls)
    assert first is not None and last is not None and first.shape == (50, 2) and not torch.equal(first, last)
    shown = made.completions[0].masked_fill(~made.calls[1].where, -1)
    assert torch.equal(shown.amax(1), (last[:, 0] < 0).long())


def test_a_size_of_nothing_is_no_noise() -> None:
    coin = Coin(0)
    fill(Ancestral(), torch.full((9, 3), coin.vocabulary.mask), coin, shares=Uniform().shares(1))
    assert coin.rows == [1]


# --- grids with keys of their own


def test_a_grid_that_does_not_end_at_one_is_named() -> None:
    class Short(Uniform):
        def shares(self, steps: int, entropy_at: object = None) -> torch.Tensor:
            return super().shares(steps) / 2

    with pytest.raises(InputError, match=r"grid .*Short.* gives the shares \[0.25, 0.5\] for 2 steps"):
        shares_of(Short(), 2)


def test_keys_of_a_grid_reach_samplers_and_rollouts() -> None:
    settings = SamplerSettings(steps=2, grid={"kind": "power", "power": 2})
    assert settings.shares().tolist() == [0.25, 1.0]
    assert settings.record()["power"] == 2
    assert SamplerSettings(steps=2, grid="power", power=1).shares().tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="^grid.power=-1.0 is out of range"):
        SamplerSettings(grid={"kind": "power", "power": -1})
    with pytest.raises(InputError, match=r"objective.rollout.grid=optimised needs the NLL curve"):
        RolloutSettings(grid="optimised")


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9])
def test_the_order_of_dilated_mirrors_bits(length: int) -> None:
    expected = [sum(int(bit) / 2 ** (k + 1) for k, bit in enumerate(reversed(f"{i:b}"))) for i in range(length)]
    assert _van_der_corput(torch.arange(length)[None]).tolist() == [expected]
