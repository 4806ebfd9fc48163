"""What is fixed in every sample before it is written: from the keys of a request to templates and a bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from didi_core.domain.conditioning import Conditioning, Request, condition, own_templates, read_template
from didi_core.errors import InputError
from didi_core.sampling.batching import Length, length_ranges
from didi_core.streams import generator
from didi_core.types import Domain

REACH = 8  # largest ratio of a length to the longest one that a model was trained on


class Wanted(Protocol):
    """The keys of a request that lay a sample out; ``configs/sample.yaml`` describes them."""

    @property
    def num(self) -> int: ...

    @property
    def length(self) -> Length | None: ...

    @property
    def template(self) -> str | None: ...

    @property
    def conditioning(self) -> Mapping[str, Any]: ...

    @property
    def seed(self) -> int: ...


def lay_out(wanted: Wanted, domain: Domain, card: Mapping[str, Any]) -> Conditioning:
    """What is fixed in every sample: by the domain's keys, by the template, or by lengths like those in training.

    Raises:
        InputError: keys exclude each other, or ask for what the model or domain cannot write.
    """
    allowed = None if wanted.length is None else tuple(length_ranges(wanted.length))
    check_reach([high for _, high in allowed or ()], card)
    request = Request(wanted.num, allowed, generator(wanted.seed, "conditioning"))
    asked = condition(domain, wanted.conditioning, request)
    if asked.templates is None:
        origin = "template" if wanted.template is not None else ""
        return replace(asked, templates=_templates(wanted, domain, card), origin=origin)
    if wanted.template is not None:
        raise InputError(
            f"template and {asked.origin} exclude each other: each lays out the whole sequence. "
            "Leave one out."
        )
    return asked


def check_reach(lengths: Sequence[int], card: Mapping[str, Any]) -> None:
    """Raise InputError for lengths far beyond those in training, because the model has never seen such positions."""
    known = [int(length) for length in card.get("lengths") or ()]
    if known and lengths and max(lengths) > REACH * max(known):
        raise InputError(
            f"length={max(lengths)} is out of range: the model was trained on sequences of at most {max(known)}, and "
            f"more than {REACH} times that length is refused."
        )


def _templates(wanted: Wanted, domain: Domain, card: Mapping[str, Any]) -> Sequence[Sequence[int]] | None:
    """The user's template, the domain's own, or templates of lengths like those that the model was trained on; None
    for ``length``."""
    if wanted.template is not None:
        return [read_template(domain, wanted.template)]
    lengths, stream = card.get("lengths"), generator(wanted.seed, "lengths")
    if wanted.length is not None:
        return None
    own = own_templates(domain, "validation", wanted.num, stream)
    if own is not None or not lengths:
        return own
    weights = torch.tensor([float(count) for count in lengths.values()])
    drawn = torch.multinomial(weights, wanted.num, replacement=True, generator=stream).tolist()
    values = [int(length) for length in lengths]
    return [domain.template([values[i]])[0].tolist() for i in drawn]
