"""The contract of samplers, laws and grids that a plugin offers."""

from __future__ import annotations

import torch

from didi_core.diffusion.beliefs import Beliefs
from didi_core.diffusion.grids import Grid, Uniform, shares_of
from didi_core.diffusion.laws import Law, OpenLaw, law
from didi_core.errors import InputError
from didi_core.models.scorer import scorer_from_trunk
from didi_core.sampling.base import Sampler, SampleRequest
from didi_core.streams import generator, seeded
from didi_core.testing.bench import Broken, promise, tiny_network
from didi_core.types import Vocabulary

WORDS = Vocabulary(6, forbidden=(4, 5), pad=5, bos=4)


def check_sampler(sampler: Sampler) -> None:
    """A sampler fills every mask, changes nothing else, draws from its generator only, and counts its calls.

    The network is tiny and untrained; a sampler that needs a scorer gets one.
    """
    denoiser = tiny_network(WORDS)
    with seeded(0, "contract scorer"):
        scorer = scorer_from_trunk(denoiser, 1).eval() if sampler.needs_scorer else None
    template = torch.full((4, 10), WORDS.mask)
    template[:, 0], template[:, 3], template[2:, 8:] = 4, 1, 5  # BOS, a pinned token, padding

    def request(seed: int) -> SampleRequest:
        stream, shares = generator(seed, "contract"), Uniform().shares(4)
        return SampleRequest(denoiser, template.clone(), shares, law("stratified"), stream, scorer=scorer)

    made, again = sampler.sample(request(0)), sampler.sample(request(0))
    left = int((made.tokens == WORDS.mask).sum())
    promise(left == 0, f"the sampler left {left} positions masked.")
    fixed = template != WORDS.mask
    promise(bool((made.tokens == template)[fixed].all()), "the sampler changed positions that were pinned.")
    wrong = {*made.tokens[~fixed].tolist()} - {*WORDS.generated}
    promise(not wrong, f"the sampler wrote the ids {sorted(wrong)}, which may not be generated.")
    promise(
        bool((made.tokens == again.tokens).all()),
        "equal generators gave different samples: draw from request.generator.",
    )
    promise(made.nfe.denoiser > 0, f"the sampler counted {made.nfe.denoiser} calls of the denoiser.")
    if sampler.stepwise:
        promise(
            made.nfe.denoiser >= 4, f"stepwise with 4 shares, but {made.nfe.denoiser} calls: a step is a call at least."
        )


def check_law(made: Law) -> None:
    """A law gives every free position a reveal time in (0, 1], uniform on average, from its generator only.

    An open law reveals masked positions only, at least one in every row that has any.
    """
    if isinstance(made, OpenLaw):
        return _check_open_law(made)
    free = torch.ones(2000, 6, dtype=torch.bool)
    free[:, 0] = False
    times, again = (made.times(free, generator(0, "contract")) for _ in range(2))
    promise(
        times.shape == free.shape, f"law {made.name}: times have shape {tuple(times.shape)} for {tuple(free.shape)}."
    )
    inside = times[free]
    promise(bool(((inside > 0) & (inside <= 1)).all()), f"law {made.name}: times must lie in (0, 1].")
    promise(bool((times == again)[free].all()), f"law {made.name}: equal generators gave different times.")
    share = float((inside <= 0.5).double().mean())
    promise(
        abs(share - 0.5) < 0.05, f"law {made.name}: {share:.0%} of the positions come in the first half; expected 50%."
    )
    masked = free & (times > 0.4)  # the others have been written
    dealt = made.reorder(times, masked, torch.rand(free.shape, generator=generator(1, "contract")))
    promise(
        bool((dealt == times)[free & ~masked].all()),
        f"law {made.name}: reorder changed the times of positions that are written already.",
    )
    same = torch.allclose(dealt.masked_fill(~masked, 0).sort(1).values, times.masked_fill(~masked, 0).sort(1).values)
    promise(same, f"law {made.name}: reorder must only permute the times.")


def _check_open_law(made: OpenLaw) -> None:
    denoiser = tiny_network(WORDS)
    tokens = torch.randint(0, 4, (8, 10), generator=generator(0, "contract"))
    masked = torch.rand(tokens.shape, generator=generator(1, "contract")) < 0.6
    masked[0] = False
    tokens = tokens.masked_fill(masked, WORDS.mask)
    times = made.times(masked, generator(0, "contract"))
    with torch.no_grad():
        hidden = denoiser.trunk(tokens)
        where = made.choose(times, masked, Beliefs(denoiser, lambda chosen: hidden[chosen], masked))
    promise(where.shape == masked.shape and where.dtype == torch.bool, f"law {made.name}: choose gives a mask [B, L].")
    promise(not bool((where & ~masked).any()), f"law {made.name}: choose reveals positions that are not masked.")
    idle = int((masked.any(1) & ~where.any(1)).sum())
    promise(idle == 0, f"law {made.name}: choose reveals nothing in {idle} rows that have masks; at least one in each.")


def check_grid(made: Grid) -> None:
    """A grid gives the requested number of shares, ascending to exactly 1, which depend only on its arguments."""
    for steps in (1, 2, 7, 32):
        try:
            shares, again = (shares_of(made, steps, lambda share: 3 * (1 - share) ** 2 + 0.5) for _ in range(2))
        except InputError as error:
            raise Broken(str(error)) from error
        promise(bool((shares == again).all()), f"grid {made!r}: {steps} steps gave different shares when asked again.")
