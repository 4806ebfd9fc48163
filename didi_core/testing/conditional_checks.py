"""The contract of a conditional domain, whose sequences complete given tokens."""

from __future__ import annotations

import torch

from didi_core.domain.abilities import DrawsTemplates
from didi_core.sequences.batches import SPLITS
from didi_core.streams import generator
from didi_core.testing.bench import Bench, promise, refuses


def check_given(bench: Bench) -> None:
    """Templates of a conditional domain hold only given tokens, differ, and depend only on the generator."""
    domain, vocabulary = bench.domain, bench.domain.vocabulary
    if not isinstance(domain, DrawsTemplates):
        promise(not vocabulary.given, "the vocabulary has given ids; a domain with such draws its templates itself.")
        return
    for split in SPLITS:
        made, again = (domain.templates(split, 5, generator(1, "contract")) for _ in range(2))
        promise(torch.equal(made, again), f"templates({split!r}) differ for equal generators.")
        other = domain.templates(split, 5, generator(2, "contract"))
        promise(not torch.equal(made, other), f"templates({split!r}) ignore the generator that is passed.")
        promise(bool((made == vocabulary.mask).any(1).all()), f"templates({split!r}): a row has nothing to complete.")
        rest = made[(made != vocabulary.mask) & ~vocabulary.is_given(made)]
        strange = {*rest.tolist()} - {*vocabulary.frame}
        promise(not strange, f"templates({split!r}) hold the ids {sorted(strange)}; only given ids belong there.")
        given = vocabulary.is_given(next(iter(domain.batches(split, 5, seed=3))))
        promise(bool(given.any(1).all()), f"{split}: a row of a batch has no given token.")
    refuses(lambda: domain.templates("test", 5, generator(1, "contract")), "templates('test')")
