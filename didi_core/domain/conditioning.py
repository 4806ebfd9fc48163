"""Conditioning: from a user's wishes for a sequence to what samplers read, templates and a token bias.

A domain that is a ``HasConditioning`` has its own keys for the ``sample`` command, declared in
``configs/conditioning/<domain>.yaml`` (``contig`` for a protein, ``prompt`` for a text), and turns them into templates
and a bias. The core knows none of the keys; it fills the templates and verifies the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from didi_core.errors import DidiError, InputError
from didi_core.types import Domain, Sample, Vocabulary

FREE = "_"  # a position to fill, in a template


@dataclass(frozen=True)
class Request:
    """What a domain gets beside its own keys.

    num: number of samples; templates are used round-robin.
    lengths: (low, high) of each sample in turn, round-robin, if the user gave ``length``; otherwise None.
    generator: source of lengths, masked positions and the like.
    """

    num: int
    lengths: tuple[tuple[int, int], ...] | None
    generator: torch.Generator


@dataclass(frozen=True)
class Conditioning:
    """What is fixed before sampling starts.

    templates: token ids with the mask at the positions to fill; None: only ``length`` decides.
    origin: the key that the templates come from, for messages.
    bias: added to the logits at every position to fill; -inf excludes a token.
    info: entries for the record of each sample (a FASTA header, a JSONL row). maps: entries for the index map beside
        the samples. Both are used round-robin, like the templates.
    """

    templates: Sequence[Sequence[int]] | None = None
    origin: str = ""
    bias: Float[Tensor, "V"] | None = None
    info: Sequence[Mapping[str, Any]] = ()
    maps: Sequence[Mapping[str, Any]] = ()


@runtime_checkable
class HasConditioning(Protocol):
    """A domain with its own keys for what a sample must contain, declared in ``configs/conditioning/<domain>.yaml``."""

    free_letters: str  # letters that mark a position to fill in a template, beside "_"

    def condition(self, wishes: Mapping[str, Any], request: Request) -> Conditioning:
        """Templates and bias for the given keys. Raises InputError for a wrong value or an unknown key."""
        ...


@dataclass(frozen=True)
class Field:
    """How a page asks for one key of ``configs/conditioning/<domain>.yaml``.

    suffix: of the file that the key names; the page then asks for its content, and writes the file. Empty for a key
        whose value is typed. upload: the content is a file of the visitor's, and not typed.
    opening: put in front of a typed content that does not begin with the same character: a header of FASTA.
    """

    key: str
    label: str
    hint: str = ""
    suffix: str = ""
    upload: bool = False
    opening: str = ""


@runtime_checkable
class HasForm(Protocol):
    """A domain whose conditioning keys a page can ask for."""

    form: Sequence[Field]


@runtime_checkable
class ReadsTemplates(Protocol):
    """A domain that reads ``template`` in its own notation."""

    def read_template(self, text: str) -> list[int]:
        """Token ids with the mask at the positions to fill. Raises InputError."""
        ...


@runtime_checkable
class DrawsTemplates(Protocol):
    """A conditional domain: each sequence completes something given, such as the clues of a puzzle.

    What is given is spelled with the ``given`` ids of the vocabulary, in templates as in data.
    """

    def templates(self, split: str, n: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
        """n templates of the split, what is given in place and the mask at all other positions; padded on the right.

        ``train`` for what a model learns from, ``validation`` for what it is measured on.
        """
        ...


def condition(domain: Domain, wishes: Mapping[str, Any], request: Request) -> Conditioning:
    """The domain's conditioning for the user's keys; nothing is fixed without keys.

    Raises:
        InputError: the domain takes no keys, or refuses these.
    """
    if not wishes:
        return Conditioning()
    if not isinstance(domain, HasConditioning):
        key = next(iter(wishes))
        raise InputError(f"{key}={wishes[key]!r}: domain {domain.name!r} has no such key. Use template or length.")
    return domain.condition(wishes, request)


def read_template(domain: Domain, text: str, where: str = "template") -> list[int]:
    """Token ids of a text in which ``_`` marks a position to fill; everything else is pinned.

    Each piece between two positions to fill is encoded separately, and the domain's BOS and EOS enclose the whole.

    Args:
        where: the key that the text comes from, for messages.

    Raises:
        InputError: the text has no position to fill, or the domain cannot encode a piece.
    """
    vocabulary = domain.vocabulary
    if isinstance(domain, ReadsTemplates):
        return domain.read_template(text)
    if isinstance(domain, HasConditioning):
        text = text.translate({ord(letter): FREE for letter in domain.free_letters})
    if FREE not in text:
        raise InputError(f"{where}={text!r} has no position to fill: mark each with {FREE!r}.")
    inner: list[int] = []
    at = 0
    for number, piece in enumerate(text.split(FREE)):
        inner += [vocabulary.mask] * (number > 0)
        try:
            tokens = torch.tensor([domain.encode(piece) if piece else []], dtype=torch.long)
        except InputError as error:
            place = f", in {piece!r} after {at} characters" if at else ""
            raise InputError(f"{where}={text!r}{place}: {error}") from None
        inner += tokens[vocabulary.inside(tokens)].tolist()
        at += len(piece) + 1
    if isinstance(domain, DrawsTemplates):  # its ``template`` has something given of its own
        ends = ([] if one is None else [one] for one in (vocabulary.bos, vocabulary.eos))
        return list(itertools.chain(next(ends), inner, next(ends)))
    frame = domain.template([len(inner)])[0]
    frame[frame == vocabulary.mask] = torch.tensor(inner)
    return frame.tolist()


def draw_templates(domain: Domain, split: str, n: int, generator: torch.Generator) -> Int[Tensor, "n L"]:
    """n templates of a split: the domain's own, else all-masked ones of lengths from its prior."""
    if isinstance(domain, DrawsTemplates):
        return domain.templates(split, n, generator)
    return domain.template(domain.lengths(n, generator))


def own_templates(domain: Domain, split: str, n: int, generator: torch.Generator) -> list[list[int]] | None:
    """n templates of a conditional domain as rows of ids without padding; None for a domain where lengths decide."""
    if not isinstance(domain, DrawsTemplates):
        return None
    drawn = domain.templates(split, n, generator)
    ends = domain.vocabulary.lengths(drawn).tolist()
    return [row[:end] for row, end in zip(drawn.tolist(), ends, strict=True)]


def verify(samples: Sequence[Sample], conditioning: Conditioning, vocabulary: Vocabulary) -> None:
    """Check that every pinned position is unchanged, and that no excluded token was written.

    Raises:
        DidiError: the sampler violated one of these; the message names sample, position and tokens.
    """
    excluded = set()
    if conditioning.bias is not None:
        excluded = set(torch.isneginf(conditioning.bias).nonzero().flatten().tolist())
    for number, sample in enumerate(samples):
        tokens = sample.tokens or ()
        template: Sequence[int] = [vocabulary.mask] * len(tokens)
        if conditioning.templates is not None:
            template = conditioning.templates[number % len(conditioning.templates)]
        if len(template) != len(tokens):
            raise DidiError(f"{sample.id} has {len(tokens)} tokens, its template {len(template)}.")
        for position, (wanted, written) in enumerate(zip(template, tokens, strict=True), start=1):
            if wanted != vocabulary.mask and written != wanted:
                raise DidiError(f"{sample.id}: token {position} was pinned to id {wanted} and came back as {written}.")
            if wanted == vocabulary.mask and written in excluded:
                raise DidiError(f"{sample.id}: token {position} is id {written}, which was excluded.")


def index_map(samples: Sequence[Sample], conditioning: Conditioning, vocabulary: Vocabulary) -> dict[str, Any] | None:
    """Content of the file beside the samples: the pinned positions, 1-based and inclusive.

    None if there are none, or if no key asked for them (the domain's own BOS and EOS).
    """
    if conditioning.templates is None or not conditioning.origin:
        return None
    rows: dict[str, Any] = {}
    for number, sample in enumerate(samples):
        template = torch.tensor([list(conditioning.templates[number % len(conditioning.templates)])])
        inside = template[vocabulary.inside(template)]
        details = conditioning.maps[number % len(conditioning.maps)] if conditioning.maps else {}
        rows[sample.id] = {"length": len(inside), "pinned": ranges((inside != vocabulary.mask).tolist()), **details}
    if not any(row["pinned"] for row in rows.values()):
        return None
    return map_of(rows)


def map_of(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The index map with an entry for each sample, by id."""
    return {"format": "didi_core.map/1", "positions": "1-based, inclusive", "samples": dict(rows)}


def ranges(marked: Sequence[bool]) -> str:
    """1-based inclusive ranges of the marked positions: ``"1-3,8,10-12"``."""
    spans: list[list[int]] = []
    for position in (i for i, mark in enumerate(marked, start=1) if mark):
        if spans and spans[-1][1] == position - 1:
            spans[-1][1] = position
        else:
            spans.append([position, position])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
