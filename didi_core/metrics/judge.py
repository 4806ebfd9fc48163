"""Perplexity under a judge as a metric.

It follows the published protocol: exp of the token-weighted mean NLL, with the end token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.device import device_of
from didi_core.errors import InputError
from didi_core.metrics.samples import Better
from didi_core.models.judge import Judge
from didi_core.storage.fingerprint import model_hash
from didi_core.types import Sample


class CausalModel(Protocol):
    """A model that gives the NLL of every token given those before it."""

    @property
    def context(self) -> int:
        """Largest number of tokens of one sequence."""
        ...

    def token_nll(self, tokens: Int[Tensor, "B L"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """NLL in nats of tokens 1 .. L-1, and the model's own weights, which are not used here."""
        ...


@dataclass
class JudgePerplexity:
    """Perplexity under a judge: exp(sum of NLL / number of scored tokens); statistics are the two sums of a sample.

    Texts are scored from long to short in batches of at most ``token_budget`` tokens, and cached. A text without a
    token to score is undefined. A text longer than the judge's context is an error, because its end would not be
    scored. With ``windows`` it is scored in pieces instead, each of which begins with the last token of the one before.
    """

    judge: CausalModel
    encode: Callable[[str], list[int]]
    name: str = "perplexity"
    label: str = "perplexity"
    better: Better = "lower"
    minimum: int = 1
    token_budget: int = 8192
    windows: bool = False
    about: str = ""
    _known: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @cached_property
    def identity(self) -> str:
        """What the statistics depend on: weights and the treatment of long texts; "" for a judge without weights."""
        if not isinstance(self.judge, nn.Module):
            return ""
        return f"{model_hash(self.judge)} {self.judge.context} {self.windows}"

    @property
    def networks(self) -> Sequence[nn.Module]:
        """The judge, where it is a network."""
        return (self.judge,) if isinstance(self.judge, nn.Module) else ()

    @property
    def description(self) -> str:
        """The judge, because perplexities under two judges do not compare."""
        if self.about or not isinstance(self.judge, Judge):
            return self.about
        config, size = self.judge.config, sum(p.numel() for p in self.judge.parameters())
        shape = f"{config.layers} layers, {config.hidden} wide, {size / 1e6:.1f} M parameters"
        return f"under a judge, an autoregressive network trained apart from the models (GPT-2 architecture, {shape})"

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        """[n, 2]: summed NLL in nats, and scored tokens."""
        fresh = {s.text: s for s in samples if s.text not in self._known}
        pieces = [(text, ids) for text, sample in fresh.items() for ids in self._pieces(sample)]
        sums = {text: (0.0, 0.0) for text in fresh}
        for batch in self._batches(sorted(pieces, key=lambda row: (-len(row[1]), row[0]))):
            for (text, ids), nll in zip(batch, self._score([ids for _, ids in batch]), strict=True):
                sums[text] = (sums[text][0] + nll, sums[text][1] + len(ids) - 1)
        self._known |= {text: both if both[1] else (float("nan"), float("nan")) for text, both in sums.items()}
        return np.array([self._known[s.text] for s in samples], dtype=np.float64).reshape(-1, 2)

    def _pieces(self, sample: Sample) -> list[list[int]]:
        """The ids of a text in pieces that fit into the judge's context and have a token to score."""
        ids, context = self.encode(sample.text), self.judge.context
        if len(ids) <= context or self.windows:
            return [ids[i : i + context] for i in range(0, len(ids) - 1, context - 1)]
        raise InputError(
            f"sample {sample.id or sample.text[:30]!r} has {len(ids)} tokens, the judge's context {context}: "
            "leave it out, or use a judge with a longer context."
        )

    def _batches(self, rows: Sequence[tuple[str, list[int]]]) -> Iterator[list[tuple[str, list[int]]]]:
        """Batches of falling length within the token budget."""
        batch: list[tuple[str, list[int]]] = []
        for row in rows:
            if batch and (len(batch) + 1) * len(batch[0][1]) > self.token_budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.no_grad()
    def _score(self, rows: Sequence[list[int]]) -> list[float]:
        """Summed NLL of each row. Padding is on the right, invisible to a causal model, and is not counted."""
        width = len(rows[0])
        device = torch.device("cpu")
        if isinstance(self.judge, nn.Module):
            device = device_of(self.judge.eval())
        tokens = torch.tensor([[*ids, *([0] * (width - len(ids)))] for ids in rows], device=device)
        ends = torch.tensor([len(ids) - 1 for ids in rows], device=device)
        with torch.autocast(device.type, enabled=False):
            nll, _ = self.judge.token_nll(tokens)
        real = torch.arange(width - 1, device=device) < ends[:, None]
        totals: list[float] = (nll * real).sum(1).tolist()
        return totals

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        perplexity: np.ndarray = np.exp(means[..., 0] / means[..., 1])
        return perplexity
