"""Generation of a given number of samples, by lengths or template and with any sampler; a seed reproduces it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.config import Choice, own_keys, split_choice
from didi_core.device import device_of
from didi_core.diffusion.grids import Curve, Grid, grid, shares_of
from didi_core.diffusion.laws import PROTOCOL, Law, OpenLaw, block_size, law
from didi_core.domain.conditioning import own_templates
from didi_core.errors import InputError, at_least, positive, warn
from didi_core.sampling.base import Sampler, SampleRequest, TokenRule
from didi_core.sampling.batching import Batches, Length, parse_length
from didi_core.sampling.catalogue import sampler
from didi_core.sampling.sharing import Drawn, Sharing
from didi_core.storage.frame import frame, html_table
from didi_core.streams import generator
from didi_core.types import NFE, Denoiser, Domain, Sample, Scorer

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_LAW, DEFAULT_GRID = "iid", "uniform"
COMPARED = "compared"  # entry of a card: the plan of the comparison at the end of the run
POWER = "power"  # the grid with an exponent


@dataclass(frozen=True)
class SamplerSettings:
    """How samples are written. Every field that has an effect goes into a result's record.

    sampler, law, grid: each a name, or {kind: name, ...} with its own keys. The law chooses which positions are
        revealed together, the grid how many at each step.
    power: exponent of ``grid=power`` where the grid is given by name alone.
    steps: denoiser calls. ``first_hitting`` makes one per token instead, and open laws (``threshold``,
        ``entropy_bound``) decide the number of calls themselves.
    """

    sampler: Choice = field(default="ancestral", hash=False)
    steps: int = 16
    law: Choice = field(default=DEFAULT_LAW, hash=False)
    grid: Choice = field(default=DEFAULT_GRID, hash=False)
    power: float = 3.0
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        made, order = self.make(), self.make_law()
        if not made.uses_law and self.law != DEFAULT_LAW:
            raise InputError(f"sampler={self.sampler} does not use a law: leave law={self.law} out.")
        if made.needs_scorer and order.sees_model:
            raise InputError(f"sampler={self.sampler} needs a law that does not look at the model; got law={self.law}.")
        self.make_grid()
        if not 1 <= self.steps <= 100_000:
            raise InputError(f"steps={self.steps} is out of range: it must be between 1 and 100000.")
        positive(power=self.power)
        TokenRule(self.temperature, self.top_p)

    def make(self) -> Sampler:
        """The sampler. Raises InputError where there is none of that name, or it has no such key."""
        return sampler(self.sampler)

    def make_law(self) -> Law:
        """The unmasking law."""
        return law(self.law)

    def make_grid(self) -> Grid:
        """The time grid."""
        return grid(self.grid, self.power)

    @property
    def calls(self) -> int | None:
        """Denoiser calls per sequence; None where they follow from its length or from the model."""
        made = self.make()
        return self.steps if made.stepwise and not (made.uses_law and isinstance(self.make_law(), OpenLaw)) else None

    @property
    def needs_curve(self) -> bool:
        """Whether ``shares`` needs an NLL curve."""
        return self.calls is not None and self.make_grid().needs_curve

    def shares(self, entropy_at: Curve | None = None) -> Float[Tensor, "k"]:
        """Share of the free positions revealed after each call; a single 1 where no grid is used."""
        return (
            torch.ones(1, dtype=torch.float64)
            if self.calls is None
            else shares_of(self.make_grid(), self.steps, entropy_at)
        )

    def record(self) -> dict[str, object]:
        """The settings that had an effect, for a sample's record."""
        made = self.make()
        recorded = _entries("sampler", self.sampler, made) | {"temperature": self.temperature, "top_p": self.top_p}
        if self.calls is not None:
            recorded |= {"steps": self.steps} | _entries("grid", self.grid, self.make_grid())
        if made.uses_law:
            recorded |= _entries("law", self.law, self.make_law())
        return recorded


def _entries(key: str, choice: Choice, made: object) -> dict[str, object]:
    """A choice and its keys under their names in a record: ``law``, ``law_probability``; ``power`` has no prefix."""
    own = {k if k == "power" else f"{key}_{k}": getattr(made, k) for k in own_keys(made, PROTOCOL)}
    return {key: split_choice(choice, key)[0]} | own


def trained_with(card: Mapping[str, Any]) -> tuple[Choice, Choice]:
    """Law and grid with which a model was trained, by its card.

    A model that was trained without goes by those of the comparison at the end of its run, or else by the defaults.
    """
    training, compared = card.get("training") or {}, card.get(COMPARED) or {}
    law = training.get("rollout_law") or next(iter(compared.get("laws") or ()), DEFAULT_LAW)
    grid = training.get("rollout_grid") or next(iter(compared.get("grids") or ()), DEFAULT_GRID)
    power = training.get("rollout_power", compared.get("power", SamplerSettings.power))
    if grid == POWER and power != SamplerSettings.power:
        grid = {"kind": POWER, "power": power}
    return law, grid


@dataclass(frozen=True, repr=False)
class Generated:
    """Samples in the order of the request, mean network calls per sample, and seconds spent in the sampler.

    rates: samples per second of each batch, measured until the device has finished.
    """

    samples: list[Sample]
    nfe: NFE
    seconds: float
    rates: tuple[float, ...] = ()

    def __repr__(self) -> str:
        first = f", first={self.samples[0].text[:40]!r}" if self.samples else ""
        return f"Generated({len(self.samples)} samples, {self.nfe.calls} each{first})"

    def _repr_html_(self) -> str:
        """The first samples, in a notebook."""
        return html_table(repr(self), [{"id": sample.id, "text": sample.text} for sample in self.samples])

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with id, text and the samples' records. Raises InputError without pandas."""
        return frame([{"id": s.id, "text": s.text, **s.info} for s in self.samples])


def generate(
    domain: Domain,
    denoiser: nn.Module,
    scorer: Scorer | None = None,
    *,
    settings: SamplerSettings,
    num: int,
    length: Length | None = None,
    templates: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    bias: Float[Tensor, "V"] | None = None,
    entropy_at: Curve | None = None,
    progress: Callable[[int], None] | None = None,
    sharing: Sharing | None = None,
) -> Generated:
    """Write ``num`` samples, sorted into batches of similar lengths; every batch has its own random stream.

    Args:
        templates: token ids with the mask at free positions (anything else is pinned), used round-robin; excludes
            ``length``. Without either, a conditional domain's own of the validation split.
        bias: added to the logits of every token; -inf excludes a token.
        entropy_at: NLL curve, for a grid that needs one such as ``optimised`` (see ``nll_curve``).
        progress: called with the number of samples finished.
        sharing: the processes that share the batches, and where finished ones are kept; this one alone by default.

    Samples depend on ``batch_size``, which is therefore part of the record.

    Raises:
        InputError: a number is below 1, or ``length`` and ``templates`` are both given.
    """
    at_least(1, num=num, batch_size=batch_size)
    if templates is not None and length is not None:
        raise InputError("length and template exclude each other: the template fixes the length. Leave one out.")
    model: Denoiser = denoiser  # type: ignore[assignment]  # or a CausalGenerator, which its sampler alone takes
    if advice := order_advice(model, settings):
        warn(advice)
    device = device_of(denoiser)
    bias = None if bias is None else bias.to(device)
    if templates is None and length is None:
        templates = own_templates(domain, "validation", num, generator(seed, "lengths"))
    if templates is None:
        lengths = parse_length(length, domain, num, generator(seed, "lengths"))
        batches = Batches.of_lengths(domain, lengths, batch_size)
    else:
        batches = Batches.of_templates(templates, num, batch_size, domain.vocabulary.pad)

    def draw(number: int) -> Drawn:
        started = time.perf_counter()
        stream = generator(seed, "sample", number, device=device)
        template = batches.templates[number].to(device)
        made = settings.make().sample(sample_request(model, scorer, template, settings, stream, bias, entropy_at))
        tokens = made.tokens.cpu()
        seconds = time.perf_counter() - started  # the copy to the CPU has waited for the device
        ends = domain.vocabulary.lengths(tokens).tolist()
        return Drawn([row[:end].tolist() for row, end in zip(tokens, ends, strict=True)], made.nfe, seconds)

    def report(finished: int) -> None:
        if progress:
            progress(min(finished * batch_size, num))

    drawn = (sharing or Sharing()).all_batches(len(batches.templates), draw, report)
    return _collected(domain, batches.order, drawn)


def _collected(domain: Domain, order: Sequence[int], drawn: Sequence[Drawn]) -> Generated:
    """The samples of all batches in the order of the request. order: number of the sample of each drawn row."""
    rows = [tuple(row) for batch in drawn for row in batch.tokens]
    frame = {*domain.vocabulary.frame}
    samples = [
        Sample(
            domain.decode(tokens),
            f"sample_{number + 1}",
            tokens,
            {"length": sum(token not in frame for token in tokens)},  # in tokens, as ``length`` is given
        )
        for number, tokens in sorted(zip(order, rows, strict=True))
    ]
    nfe, seconds = NFE(), 0.0
    for batch in drawn:
        part = len(batch.tokens) / len(rows)
        nfe += NFE(batch.nfe.denoiser * part, batch.nfe.scorer * part)
        seconds += batch.seconds
    return Generated(samples, nfe, seconds, tuple(len(batch.tokens) / batch.seconds for batch in drawn))


def order_advice(model: Denoiser, settings: SamplerSettings) -> str:
    """What to set where a model of blocks is to write in another order than it has learnt; '' where it is not."""
    own = getattr(model, "block_size", 0)
    asked = block_size(settings.make_law()) if settings.make().uses_law else 0
    if not own or (asked and own % asked == 0):
        return ""
    return (
        f"the model has learnt to write blocks of {own} from left to right, and law={settings.law} takes it to states "
        f"that it has never seen. Set law={{kind: blocks, size: {own}}} or law={{kind: threshold, block: {own}}}."
    )


def sample_request(
    model: Denoiser,
    scorer: Scorer | None,
    template: Int[Tensor, "B L"],
    settings: SamplerSettings,
    stream: torch.Generator,
    bias: Float[Tensor, "V"] | None = None,
    entropy_at: Curve | None = None,
) -> SampleRequest:
    """One batch for the sampler of the settings."""
    return SampleRequest(
        model,
        template,
        shares=settings.shares(entropy_at),
        law=settings.make_law(),
        generator=stream,
        rule=TokenRule(settings.temperature, settings.top_p, bias),
        scorer=scorer,
    )
