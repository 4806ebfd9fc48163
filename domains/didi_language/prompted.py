"""Texts that answer prompts: a conditional domain, in which the prompt of every sequence is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.config import build
from didi_core.domain.data_report import DataReport
from didi_core.errors import InputError, unknown
from didi_core.sequences.batches import shuffled_batches
from didi_core.types import Denoiser, Sample

from .assets import BUNDLED
from .domain import LanguageDomain
from .packing import SPLITS
from .prompts import Exchange, Writing, read_exchanges
from .settings import LanguageSettings
from .sources import Tally
from .tokenizer import TextTokenizer

if TYPE_CHECKING:
    import numpy as np


class PromptedDomain(LanguageDomain):
    """Blocks that begin with a prompt of ``data.prompts``, spelled with the ids by which tokens are given.

    Losses, rollouts and re-noising leave the prompt alone, as they do all that is given. A response ends by what the
    chat template writes behind an answer, or by the end token; the rest of the block is end tokens, which the model
    learns to write.
    """

    def __init__(self, settings: LanguageSettings, tokenizer: TextTokenizer | None = None) -> None:
        super().__init__(settings, tokenizer)
        self.vocabulary = replace(self.vocabulary, given_copies=True)

    def teacher(self, name: str = BUNDLED) -> Denoiser:
        """As for texts, reading what is given."""
        made = super().teacher(name)
        made.vocabulary = self.vocabulary
        return made

    def decode(self, tokens: Sequence[int]) -> str:
        """The text with its prompt, between begin and end token."""
        return super().decode(self._plain(tokens))

    def _own_tokens(self, sample: Sample) -> list[int]:
        plain = None if sample.tokens is None else tuple(self._plain(sample.tokens))
        return super()._own_tokens(replace(sample, tokens=plain))

    def _plain(self, tokens: Sequence[int]) -> list[int]:
        made: list[int] = self.vocabulary.as_read(torch.tensor(list(tokens), dtype=torch.long)).tolist()
        return made

    # --- data

    @cached_property
    def _read(self) -> tuple[dict[str, list[Exchange]], Tally]:
        """The exchanges of each split, and the counts of rows."""
        settings, tally = self.settings, Tally()
        assert settings.prompts is not None, "the domain is made where there are prompts"
        chat = self.tokenizer.has_chat if settings.chat is None else settings.chat
        writing = Writing(self.tokenizer, chat, settings.length)
        found = list(read_exchanges(settings.prompts, writing, settings.on_bad == "skip", tally))[: settings.limit]
        made: dict[str, list[Exchange]] = {split: [] for split in SPLITS}
        for split, number in settings.held.split(map(str, range(len(found)))):
            made[split].append(found[int(number)])
        return made, tally

    def exchanges(self, split: str) -> list[Exchange]:
        """Those of ``train`` or ``validation``. Raises InputError if there is none."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        found = self._read[0][split]
        if not found:
            others = sum(map(len, self._read[0].values()))
            raise InputError(
                f"data.prompts has no row for {split}: all {others} are for the other split. Give more rows, or "
                "another data.validation."
            )
        return found

    def data_report(self) -> DataReport:
        """How many rows were read and left out."""
        splits, tally = self._read
        counts = {split: len(rows) for split, rows in splits.items()}
        beyond = {"beyond data.limit": tally.read - sum(tally.left_out.values()) - sum(counts.values())}
        report = DataReport(
            tuple(tally.files),
            tally.read,
            counts,
            tally.left_out,
            {reason: count for reason, count in beyond.items() if count},
            examples=tuple(tally.examples),
            unit="prompts",
        )
        report.check_loss(self.settings.allow_loss)
        return report

    def templates(self, split: str, n: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
        """n prompts of a split, drawn with replacement, the mask behind them."""
        rows = self.exchanges(split)
        drawn = torch.randint(len(rows), (n,), generator=generator, device=generator.device).tolist()
        return torch.stack([self._block(rows[i].prompt) for i in drawn])

    def _block(self, prompt: Sequence[int], response: Sequence[int] | None = None) -> Int[Tensor, "L"]:
        """The prompt as given, then the response and end tokens; masks without a response."""
        rest = self.settings.length - len(prompt)
        written = [self.vocabulary.mask] * rest
        if response is not None:
            written = [*response, *[self.tokenizer.end] * (rest - len(response))]
        return torch.cat([self.vocabulary.as_given(torch.tensor(prompt)), torch.tensor(written)])

    def _answered(self, split: str) -> list[Exchange]:
        found = self.exchanges(split)
        without = next((one for one in found if one.response is None), None)
        if without is not None:
            raise InputError(
                f"{without.place}: there is no response, which is needed where data are read "
                "(objective.reference=data, states from data). Read the teacher's samples instead, or give a response "
                "in every row."
            )
        return found

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        rows = self._answered(split)
        numbers = shuffled_batches(len(rows), batch_size, partial(self.stream, seed, "prompts", split), start)
        blocks = ([self._block(rows[i].prompt, rows[i].response) for i in chosen.tolist()] for chosen in numbers)
        return map(torch.stack, blocks)

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """Up to n exchanges of the validation split, shuffled."""
        rows = self._answered(SPLITS[1])
        order = torch.randperm(len(rows), generator=self.stream(seed, "held out"))[:n].tolist()
        made = [self._block(rows[i].prompt, rows[i].response).tolist() for i in order]
        return [Sample(self.decode(row), f"held_out_{i}", tuple(row)) for i, row in enumerate(made, start=1)]

    def reference_statistics(self) -> dict[str, dict[str, np.ndarray]] | None:
        """None: the bundled statistics are those of texts without prompts."""
        return None


def create(**data: Any) -> LanguageDomain:
    """The domain from the keys of the ``data`` config group: of texts, or of answers where ``prompts`` are given."""
    settings = build(LanguageSettings, data, "data")
    return LanguageDomain(settings) if settings.prompts is None else PromptedDomain(settings)
