"""A sampling call by call: what a page or a film of it shows. Where its reader stops asking, the sampling stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from didi_core.device import device_of
from didi_core.diffusion.grids import Curve
from didi_core.errors import InputError
from didi_core.sampling.base import TracedSampler
from didi_core.sampling.batching import stacked
from didi_core.sampling.generate import SamplerSettings, sample_request
from didi_core.streams import generator
from didi_core.types import Domain

BROKEN = "\ufffd"  # what a decoder writes for a letter of which it has only some of the bytes
NO_TEXT = "¶"  # a token that has no text of its own, such as the end of a document
LONGEST_LETTER = 4  # tokens of a letter whose bytes are tokens


@dataclass(frozen=True)
class Snapshot:
    """Some sequences after a number of calls.

    rows: token ids of each, without padding; the mask at what is not written yet.
    seconds: in the sampler so far, without the time that the reader took.
    """

    call: int
    rows: tuple[tuple[int, ...], ...]
    seconds: float


def trace(
    domain: Domain,
    denoiser: nn.Module,
    settings: SamplerSettings,
    templates: Sequence[Sequence[int]],
    *,
    seed: int = 0,
    bias: Float[Tensor, "V"] | None = None,
    entropy_at: Curve | None = None,
    within: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[Snapshot]:
    """The templates, and then their state after every denoiser call. It samples only when it is asked for the next one.

    The last one is what ``generate`` writes for the same templates, in one batch: it has the same random stream.

    Args:
        within: the context of every call, such as ``Run.autocast``.

    Raises:
        InputError: the sampler of the settings cannot be watched.
    """
    made = settings.make()
    if not isinstance(made, TracedSampler):
        raise InputError(f"sampler={settings.sampler} cannot be watched call by call. Use sampler=ancestral.")
    device, vocabulary = device_of(denoiser), domain.vocabulary
    template = stacked(templates, vocabulary.pad).to(device)
    ends = vocabulary.lengths(template).tolist()
    request = sample_request(
        denoiser,  # type: ignore[arg-type]
        None,
        template,
        settings,
        generator(seed, "sample", 0, device=device),
        None if bias is None else bias.to(device),
        entropy_at,
    )
    states, tokens, seconds, call = made.states(request), template, 0.0, 0
    while True:
        cut = (tuple(row[:end]) for row, end in zip(tokens.tolist(), ends, strict=True))
        yield Snapshot(call, tuple(cut), seconds)
        started = time.perf_counter()
        with within():
            found = next(states, None)
        if found is None:
            return
        tokens, call = found.cpu(), call + 1
        seconds += time.perf_counter() - started  # the copy to the CPU has waited for the device


def spelled(domain: Domain, tokens: Sequence[int]) -> list[str | None]:
    """The text of each token: None for a mask, "" for BOS, EOS and padding, ``¶`` for any other token without text.

    The bytes of one letter may be several tokens. The letter is then the text of the last of them.
    """
    vocabulary, known = domain.vocabulary, domain.vocabulary.tokens
    made: list[str | None] = []
    begun: list[int] = []
    for place, token in enumerate(tokens):
        if known is not None or token in (vocabulary.mask, *vocabulary.frame):
            written = "" if known is None or token in (vocabulary.mask, *vocabulary.frame) else known[token]
            made.append(None if token == vocabulary.mask else written)
            begun = []
            continue
        begun.append(token)
        text = domain.decode(begun)
        if BROKEN in text and len(begun) < LONGEST_LETTER:
            made.append("")
            continue
        edge = place in (0, len(tokens) - 1)  # where a domain without a frame of its own pins begin and end
        made.append(text or ("" if edge else NO_TEXT))
        begun = []
    return made
