"""What a vocabulary of 50,258 rows costs beside the matrix products, the straightforward way and ours.

    python benchmarks/large_vocabulary.py [--quick] [--out FILE]

``SUBS``: forbidden tokens from a list of ids at each call, against a mask that is kept. ``statistics`` and ``expected
log-ratio``: log-probability, entropy and divergence with gradients for the hidden states and the head, traced by
autograd in chunks with recomputation, against closed forms. Logits are made by a head 256 wide.

``draw``: an exponential race over all tokens at each position, against a distribution function that is inverted.
``8 sampling steps``: the same in a whole generation; then the generation against its 8 calls of the trunk alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import torch
from measure import TEXT, Case, close, main, network
from sampling import same_law
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from didi_core.diffusion import divergences, heads
from didi_core.diffusion.draws import draw
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.heads import closed_rows, expected_log_ratio, token_statistics
from didi_core.diffusion.laws import law
from didi_core.diffusion.masking import log_p_x0
from didi_core.models.dit import DiT
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.types import Vocabulary

WIDTH, TRACED_ROWS, CLIP = 256, 667, 8.0


def subs(vocabulary: Vocabulary, rows: int) -> Case:
    """Log-probabilities of a few rows, eight times."""
    logits = torch.randn(rows, vocabulary.size + 1, generator=generator(0, "logits"))

    def listed() -> Tensor:
        allowed = torch.zeros(vocabulary.size, dtype=torch.bool)
        allowed[list(vocabulary.generated)] = True
        return torch.log_softmax(logits[:, : vocabulary.size].float().masked_fill(~allowed, -torch.inf), dim=-1)

    return Case(lambda: eight(listed), lambda: eight(lambda: log_p_x0(logits, vocabulary)), torch.equal)


def eight(one: Callable[[], Tensor]) -> Tensor:
    return [one() for _ in range(8)][-1]


def hidden_of(name: str, rows: int, width: int) -> Tensor:
    return torch.randn(rows, width, generator=generator(0, name))


def gradients(model: DiT, hidden: Tensor, loss: Tensor) -> Tensor:
    """The loss and its gradients for hidden states and head, in one row."""
    found = torch.autograd.grad(loss, (hidden, *model.output_layer.linear.parameters()))
    return torch.cat([loss.detach()[None], *(part.flatten() for part in found)])


def statistics(vocabulary: Vocabulary, rows: int, width: int, chunk: int) -> Case:
    """Policy loss with a KL anchor and an entropy bonus."""
    student, teacher = network(vocabulary, width, 1), network(vocabulary, width, 1).requires_grad_(False)
    hidden, other = hidden_of("student", rows, width).requires_grad_(True), hidden_of("teacher", rows, width)
    tokens = torch.randint(vocabulary.size, (rows, 1), generator=generator(0, "tokens"))
    weight = hidden_of("advantages", rows, 1).squeeze(1)

    def traced_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
        return divergences.reverse_kl(log_q, log_p)

    def measured(divergence: divergences.Divergence, rows_at_once: int) -> Tensor:
        found = token_statistics(
            student,
            hidden,
            tokens,
            reference=teacher,
            reference_hidden=other,
            divergence=divergence,
            chunk=rows_at_once,
        )
        policy = (found.log_p.squeeze(1) * weight).sum()
        return gradients(student, hidden, policy + 0.05 * found.divergence.sum() - 0.02 * found.entropy.sum())

    ours = min(closed_rows(vocabulary.size, hidden.device), chunk)
    return Case(lambda: measured(traced_kl, chunk), lambda: measured(divergences.reverse_kl, ours), close)


def expected(vocabulary: Vocabulary, rows: int, width: int, chunk: int) -> Case:
    """The expected log-ratio of teacher and fake under the student."""
    student = network(vocabulary, width, 1)
    teacher, fake = (network(vocabulary, width, 1).requires_grad_(False) for _ in range(2))
    hidden = hidden_of("student", rows, width).requires_grad_(True)
    others = [hidden_of(name, rows, width) for name in ("teacher", "fake")]
    weight = hidden_of("weights", rows, 1).squeeze(1)

    def ratio(part: Tensor, wanted: Tensor, made: Tensor) -> Tensor:
        p = log_p_x0(student.head(part), vocabulary).exp()
        with torch.no_grad():
            wanted, made = (log_p_x0(z, vocabulary).clamp_min(-1e4) for z in (teacher.head(wanted), fake.head(made)))
            found = (wanted - made).clamp(-CLIP, CLIP)
            found = found - (p * found).sum(-1, keepdim=True)
        return (p * found).sum(-1)

    def traced() -> Tensor:
        parts = zip(*(part.split(chunk) for part in (hidden, *others)), strict=True)
        value = torch.cat([checkpoint(ratio, *some, use_reentrant=False) for some in parts])  # type: ignore[misc]
        return gradients(student, hidden, (value * weight).sum())

    def closed() -> Tensor:
        value, _ = expected_log_ratio(student, hidden, teacher, others[0], fake, others[1], CLIP)
        return gradients(student, hidden, (value * weight).sum())

    return Case(traced, closed, close)


def race(logits: Tensor, stream: torch.Generator) -> Tensor:
    """Argmax of p / Exp(1), in fp64."""
    noise = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=stream).clamp_min_(1e-300)
    return (torch.log_softmax(logits, dim=-1) - noise.log_().to(logits)).argmax(dim=-1)


def draws(vocabulary: Vocabulary, rows: int) -> Case:
    """A token for each of these rows. Both leave room for the pinned positions that ``same_law`` skips."""
    logits = torch.randn(rows, vocabulary.size, generator=generator(0, "logits")) * 3

    def laid_out(one: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        return one(logits, generator(0, one.__name__))[None]

    return Case(lambda: laid_out(race), lambda: laid_out(draw), lambda a, b: same_law(a, b, vocabulary))


def generation(vocabulary: Vocabulary, batch: int, length: int, bare: bool) -> Case:
    """Eight steps of a 4 x 256 network, rows with different first tokens: against a race, or the trunk ``bare``."""
    model, steps = network(vocabulary, min(WIDTH, length), 4), 8
    template = torch.full((batch, length), vocabulary.mask)
    template[:, 0] = torch.arange(batch)

    def sample(name: str) -> Tensor:
        request = SampleRequest(model, template, Uniform().shares(steps), law("iid"), generator(0, name))
        return Ancestral().sample(request).tokens

    def raced() -> Tensor:
        with patch.object(heads, "draw", race):
            return sample("race")

    @torch.no_grad()
    def calls() -> Tensor:
        return [model.trunk(template) for _ in range(steps)][-1]

    if bare:
        return Case(lambda: sample("ours"), calls, lambda tokens, _: not bool((tokens == vocabulary.mask).any()))
    return Case(raced, lambda: sample("ours"), lambda a, b: same_law(a, b, vocabulary))


GUARDED = replace(TEXT, forbidden=(3,))
SMALL, LARGE = Vocabulary(60, forbidden=(3,)), Vocabulary(5000)
CASES = {
    "SUBS of 8 rows": lambda quick: subs(SMALL if quick else TEXT, 8),
    "SUBS of 8 rows, a token forbidden": lambda quick: subs(SMALL if quick else GUARDED, 8),
    "statistics of 1,024 rows": lambda quick: (
        statistics(SMALL, 8, 16, 3) if quick else statistics(TEXT, 1024, WIDTH, TRACED_ROWS)
    ),
    "expected log-ratio of 1,024 rows": lambda quick: (
        expected(SMALL, 8, 16, 3) if quick else expected(TEXT, 1024, WIDTH, TRACED_ROWS)
    ),
    "draw of 256 rows": lambda quick: draws(LARGE, 64) if quick else draws(TEXT, 256),
    "8 sampling steps": lambda quick: generation(LARGE, 1, 16, False) if quick else generation(TEXT, 4, 256, False),
    "8 sampling steps over 8 trunk calls": lambda quick: (
        generation(LARGE, 1, 16, True) if quick else generation(TEXT, 4, 256, True)
    ),
}

if __name__ == "__main__":
    main(__file__, "straightforward / ours at a large vocabulary", CASES)
