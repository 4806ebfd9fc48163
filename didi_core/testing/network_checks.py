"""The contract of a domain's networks: its teacher, its scorer, and what samplers write with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.testing.bench import Bench, promise, refuses

ROUNDING = 1e-4  # relative to the largest logit: some hundred times the difference of fp32 sums in another order


def check_teacher(bench: Bench) -> None:
    """The teacher gives logits for every token at every position, and padding does not change them."""
    network, vocabulary, batch = bench.network, bench.domain.vocabulary, bench.batch
    named = getattr(network, "vocabulary", None)
    promise(named == vocabulary, "the teacher's vocabulary is not the domain's.")
    with torch.no_grad():
        logits, hidden = network(batch), network.trunk(batch)
    promise(
        logits.shape[:2] == batch.shape and logits.shape[2] >= vocabulary.size,
        f"the teacher gave logits {tuple(logits.shape)} for tokens {tuple(batch.shape)}; [B, L, >= {vocabulary.size}].",
    )
    with torch.no_grad():
        parts = network.head(hidden)
    inside = vocabulary.maskable(batch)
    promise(apart(parts[inside], logits[inside]) < ROUNDING, "head(trunk(tokens)) is not what the call gives.")
    promise(bool(torch.isfinite(logits[inside]).all()), "the teacher gave logits that are not numbers.")
    if vocabulary.pad is not None:
        wider = nn.functional.pad(batch, (0, 3), value=vocabulary.pad)
        with torch.no_grad():
            gap = apart(network(wider)[:, : batch.shape[1]][inside], logits[inside])
        promise(gap < ROUNDING, f"three columns of padding changed the teacher's logits by {gap:.2g} of the largest.")
    refuses(lambda: bench.domain.teacher("no/such/teacher"), "teacher('no/such/teacher')")


def check_scorer(bench: Bench) -> None:
    """The scorer gives one logit per position; one-hot soft tokens equal the tokens; it has trainable parameters."""
    made, batch = bench.domain.scorer(bench.network, 1), bench.batch
    scorer = made.eval()
    logits = scorer(batch)
    promise(logits.shape == batch.shape, f"the scorer gave {tuple(logits.shape)} for tokens {tuple(batch.shape)}.")
    where = bench.domain.vocabulary.maskable(batch)
    onehot = nn.functional.one_hot(batch[where], bench.domain.vocabulary.size).float().requires_grad_(True)
    soft = scorer.soft(batch, where, onehot)
    gap = apart(soft[where].detach(), logits[where].detach())
    change = f"changed the scorer's logits by {gap:.2g} of the largest"
    promise(gap < ROUNDING, f"one-hot soft tokens {change}; they are the tokens themselves.")
    (slope,) = torch.autograd.grad(soft[where].sum(), onehot, allow_unused=True)
    promise(slope is not None and bool(slope.abs().max() > 0), "soft is not differentiable in the weights.")
    promise(any(p.requires_grad for p in made.parameters()), "no parameter of the scorer learns.")
    shared = {id(p) for p in bench.network.parameters()} & {id(p) for p in made.parameters()}
    promise(not shared, "the scorer shares weights with the teacher; it must have a copy.")


def check_sampling(bench: Bench) -> None:
    """Every kind of sampler gives complete and decodable sequences, the same ones for a seed."""
    domain = bench.domain
    scorer = domain.scorer(bench.network, 1).eval()
    templates = domain.template([9] * 3)
    for name in ("ancestral", "first_hitting", "rgas"):
        made = [
            generate(domain, bench.network, scorer, settings=SamplerSettings(name, 3), num=3, length=9, seed=5)
            for _ in range(2)
        ]
        texts = [sample.text for sample in made[0].samples]
        promise(texts == [s.text for s in made[1].samples], f"sampler {name}: one seed gave different samples.")
        for sample, template in zip(made[0].samples, templates, strict=True):
            tokens, free = torch.tensor(sample.tokens), template == domain.vocabulary.mask
            promise(tokens.shape == template.shape, f"sampler {name} wrote another length than 9.")
            wrong = {*tokens[free].tolist()} - {*domain.vocabulary.generated}
            promise(not wrong, f"sampler {name} wrote the ids {sorted(wrong)}, which may not be generated.")
            promise(
                bool((tokens == template)[~free].all()), f"sampler {name} changed tokens that the template has pinned."
            )


def apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected number."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
