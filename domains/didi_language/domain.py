"""The domain of texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from didi_core.config import build
from didi_core.domain.conditioning import Conditioning, Request
from didi_core.domain.data_report import DataReport
from didi_core.errors import InputError, unknown
from didi_core.evaluation.held_out import load_reference
from didi_core.progress import Bar, counting
from didi_core.sequences import TokenDomain
from didi_core.storage.files import read_json, write_json
from didi_core.types import Metric, Sample, Vocabulary

from .assets import asset
from .conditioning import FORM, TextConditioning, gapped
from .controls import controls
from .judge import text_judge
from .metrics import language_metrics
from .packing import SPLITS, Blocks, Packed
from .settings import LanguageSettings
from .sources import Tally
from .tokenizer import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REFERENCE, REPORT = "reference.npz", "data_report.json"
FEATURE_BLOCKS = 1024  # training blocks in the reference of the energy distance
WHERE = "data.path=<text, JSONL or Parquet file, or hub id>, or data.path=pydoc (the manual that every Python carries)"


class LanguageDomain(TokenDomain):
    """Blocks of ``length`` tokens: begin token, a piece of documents joined by end tokens, end token.

    No natural text is bundled. Without ``path``, reports read statistics of held-out blocks, and ``batches`` and
    ``held_out`` raise InputError with the key to set. The text of a sample spells out end tokens inside it; metrics
    read it up to the first one.
    """

    name = "language"
    bundled, features = asset("teacher"), asset("features.npz")
    between = " "  # as in the training of the bundled teacher
    free_letters = ""  # gaps are written [[n]]
    form = FORM
    sample_cache = asset("samples")  # samples of the bundled teacher: the scorer's reference in a default run

    def __init__(self, settings: LanguageSettings | None = None, tokenizer: TextTokenizer | None = None) -> None:
        self.settings = settings or LanguageSettings()
        self.tokenizer = tokenizer or load_tokenizer(self.settings.tokenizer)
        self.vocabulary: Vocabulary = self.tokenizer.vocabulary

    # --- sequences

    def template(self, lengths: Sequence[int]) -> Int[Tensor, "B L"]:
        """Begin token, the requested number of masks, end token. Without padding, all lengths must be equal."""
        if not len(lengths) or min(lengths) < 1 or len(set(lengths)) > 1:
            raise InputError(
                f"lengths={list(lengths)[:5]}: texts of one batch have one length, of at least 1 token. "
                "Give one length=<tokens>, not a range."
            )
        mask = self.vocabulary.mask
        return torch.tensor([self._framed([mask] * length) for length in lengths])

    def lengths(self, n: int, generator: torch.Generator) -> list[int]:
        """The free positions of a block, n times."""
        del generator  # every block is full
        return [self.settings.length - 2] * n

    def encode(self, text: str) -> list[int]:
        """Token ids between begin and end token; an end token spelled out in the text becomes its id."""
        return self._framed(self.tokenizer.ids(text))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text between begin and end token, with end tokens inside it spelled out."""
        return self.tokenizer.text(self._inside(tokens))

    def transformers_tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the texts, with begin and end token around them and the mask, for a published model."""
        return self.tokenizer.for_transformers()

    def read_template(self, text: str) -> list[int]:
        """Token ids of a text with gaps such as ``[[12]]``; see ``didi_language.conditioning``."""
        return self._framed(gapped(self.tokenizer, text, self.settings.length - 2))

    def condition(self, wishes: Mapping[str, Any], request: Request) -> Conditioning:
        """Templates for ``prompt`` and ``suffix``: ``configs/conditioning/language.yaml``."""
        asked = build(TextConditioning, wishes)
        return asked.conditioning(self.tokenizer, request, self.settings.length - 2, self._framed)

    def _framed(self, ids: Sequence[int]) -> list[int]:
        return [self.tokenizer.begin, *ids, self.tokenizer.end]

    def _inside(self, tokens: Sequence[int]) -> list[int]:
        """The tokens without one begin token in front and one end token behind, if they are there."""
        first = 1 if len(tokens) and tokens[0] == self.tokenizer.begin else 0
        last = len(tokens) - 1 if len(tokens) > first and tokens[-1] == self.tokenizer.end else len(tokens)
        return list(tokens[first:last])

    def _own_tokens(self, sample: Sample) -> list[int]:
        """Token ids of a sample without begin and end token: its own ones, or those of its text."""
        return self._inside(sample.tokens) if sample.tokens is not None else self.tokenizer.ids(sample.text)

    @property
    def bundled_student(self) -> Path | None:
        """The student of the bundled teacher; None for another tokenizer."""
        return asset("student") if self._has_bundled_tokens else None

    # --- data

    @cached_property
    def packed(self) -> Packed:
        """The tokenised data of ``path``, from the cache if it is there."""
        source = self.settings.source
        if source is None:
            raise InputError(f"no text to train on: set {WHERE}.")
        making = {"source": source.fingerprint(), "tokenizer": self.tokenizer.digest, "held": vars(self.settings.held)}
        text = json.dumps(making, sort_keys=True, default=str)
        folder = self._cache / hashlib.sha256(text.encode()).hexdigest()[:24]
        found = Packed.open(folder)
        if found is not None:
            return found
        bar = Bar()
        bar.message(f"tokenising {', '.join(source.path)} into {folder} (once)")
        bar.start("documents", source.limit or 0)
        tally = Tally()

        def report() -> None:
            write_json(folder / REPORT, vars(tally))

        held = self.settings.held
        made = Packed.make(folder, source.read(tally), self.tokenizer, held, making, counting(bar), report)
        bar.stop()
        return made

    def data_report(self) -> DataReport | None:
        """The report on the documents of ``path``, counted when they were tokenised; None without it."""
        if self.settings.path is None:
            return None
        packed = self.packed
        kept = packed.card["documents"]
        if not (packed.folder / REPORT).is_file():  # a cache of an older version
            return DataReport(self.settings.path, sum(kept.values()), kept, unit="documents")
        tally = Tally(**read_json(packed.folder / REPORT))
        report = DataReport(
            tuple(tally.files),
            tally.read,
            kept,
            tally.left_out,
            {"empty": tally.empty} if tally.empty else {},
            tuple(tally.unread),
            tuple(tally.examples),
            "documents",
        )
        report.check_loss(self.settings.allow_loss)
        return report

    @property
    def _cache(self) -> Path:
        if self.settings.cache is not None:
            return self.settings.cache
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "didi_core" / "language"

    def blocks(self, split: str) -> Blocks:
        """The blocks of ``train`` or ``validation``. Raises InputError if there is none."""
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        made = Blocks(self.packed.stream(split), self.settings.length, self.tokenizer.begin, self.tokenizer.end)
        if not len(made):
            documents, tokens = (self.packed.card[key][split] for key in ("documents", "tokens"))
            raise InputError(
                f"the {split} split has {documents} documents of together {tokens} tokens, less than one block of "
                f"data.length={self.settings.length}: more text, a smaller data.length or another data.validation."
            )
        return made

    def _endless(self, split: str, batch_size: int, seed: int, start: int) -> Iterator[Int[Tensor, "B L"]]:
        return self.blocks(split).batches(batch_size, seed, split, start)

    def held_out(self, n: int, seed: int = 0) -> list[Sample]:
        """Up to n blocks of the validation split of ``path``, shuffled."""
        blocks = self.blocks(SPLITS[1])
        order = torch.randperm(len(blocks), generator=self.stream(seed, "held out"))
        rows = blocks.rows(order[:n]).tolist()
        return [Sample(self.decode(row), f"held_out_{i}", tuple(row)) for i, row in enumerate(rows, start=1)]

    def reference_statistics(self) -> dict[str, dict[str, np.ndarray]] | None:
        """Statistics of held-out blocks and their controls; None with ``path``, or for other blocks than the bundled.

        Perplexities are those of the bundled judge, so another judge leaves them out.
        """
        usual = LanguageSettings()
        if self.settings.path is not None or not asset(REFERENCE).exists():
            return None
        if self.settings.length != usual.length or not self._has_bundled_tokens:
            return None
        found = load_reference(asset(REFERENCE))
        if self.settings.judge == usual.judge:
            return found
        return {name: {key: x for key, x in row.items() if key != self._judge.name} for name, row in found.items()}

    def read(self, path: Path) -> list[Sample]:
        """Samples from ``write`` or from any other program.

        Token ids that do not spell the text come from another tokenizer, and are dropped; the text decides.
        """
        return [s if self._spells(s) else Sample(s.text, s.id, None, s.info) for s in super().read(path)]

    def _spells(self, sample: Sample) -> bool:
        if sample.tokens is None or not all(0 <= token < self.tokenizer.size for token in sample.tokens):
            return False
        return self.decode(sample.tokens) == sample.text

    # --- evaluation

    def metrics(self) -> list[Metric]:
        """Perplexity under the judge, entropy per sample, then repetition, variety and the energy distance."""
        energy = self.energy if self._has_bundled_tokens else []
        return [*language_metrics(self._judge, self._own_tokens), *energy]

    @property
    def _has_bundled_tokens(self) -> bool:
        """Whether the tokenizer is that of the bundled networks."""
        return self.tokenizer.digest == load_tokenizer().digest

    def feature_samples(self) -> Sequence[Sample]:
        """Up to ``FEATURE_BLOCKS`` training blocks; an empty list without ``path``."""
        if self.settings.path is None:
            return ()
        blocks = self.blocks(SPLITS[0])
        order = torch.randperm(len(blocks), generator=self.stream(0, "features"))[:FEATURE_BLOCKS]
        return [Sample(self.decode(row)) for row in blocks.rows(order).tolist()]

    @cached_property
    def _judge(self) -> Metric:
        """The judge, cached so that no text is scored twice."""
        return text_judge(self.settings.judge, self.tokenizer.end_text)

    def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
        """The negative controls ``shuffled``, ``random`` and ``repeats`` of the samples."""
        made = controls([self._own_tokens(s) for s in samples], self.vocabulary.size, seed)
        return {
            name: [
                Sample(self.tokenizer.text(row), f"{name}_{i}", tuple(self._framed(row)))
                for i, row in enumerate(rows, start=1)
            ]
            for name, rows in made.items()
        }
