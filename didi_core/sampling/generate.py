"""Generation as a user asks for it: so many samples, these lengths or this template, this sampler, reproducible by
seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from didi_core.config import build
from didi_core.diffusion.heads import token_statistics
from didi_core.diffusion.laws import GRIDS, grid, law
from didi_core.diffusion.masking import forward_mask
from didi_core.errors import InputError, unknown
from didi_core.sampling.ancestral import PRECISIONS, Sampled, TokenRule
from didi_core.sampling.base import SAMPLERS, Job, Sampler
from didi_core.sampling.rgas import GuidanceSettings
from didi_core.storage.frame import frame
from didi_core.streams import generator
from didi_core.types import NFE, Denoiser, Domain, Sample, Scorer

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_LAW = "iid"


@dataclass(frozen=True)
class SamplerSettings:
    """How samples are written. Every field goes into a result's record.

    sampler: a name of ``didi_core.sampling.base.SAMPLERS``. options: settings of its own, of a sampler that has any.
    steps: denoiser calls; not used by ``first_hitting``, which takes one per token.
    law: which positions are revealed together. grid, power: how many at each step.
    precision: ``exact``, or ``legacy_fp32`` for the peers' joint draw.
    """

    sampler: str = "ancestral"
    steps: int = 16
    law: str = DEFAULT_LAW
    grid: str = "uniform"
    power: float = 3.0
    temperature: float = 1.0
    top_p: float = 1.0
    precision: str = "exact"
    guidance: GuidanceSettings = field(default_factory=GuidanceSettings)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        law(self.law)
        if not self.make().uses_law and self.law != DEFAULT_LAW:
            raise InputError(f"sampler={self.sampler} does not go by a law: leave law={self.law} out.")
        for kind, value, known in (
            ("grid", self.grid, GRIDS),
            ("sampling precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise unknown(kind, value, known)
        if not 1 <= self.steps <= 100_000:
            raise InputError(f"steps={self.steps} is out of range: it must be between 1 and 100000.")
        if self.power <= 0:
            raise InputError(f"power={self.power} is out of range: it must be positive.")
        if self.precision == "legacy_fp32" and (self.sampler, self.law) != ("ancestral", "iid"):
            raise InputError("precision=legacy_fp32 is the peers' sampler: it needs sampler=ancestral and law=iid.")
        TokenRule(self.temperature, self.top_p)

    def make(self) -> Sampler:
        """The sampler with its options. Raises InputError for one that is not there or has no such option."""
        return build(SAMPLERS.find(self.sampler), self.options, "options")

    def record(self) -> dict[str, object]:
        """What a sample's record says of its making; only what had an effect."""
        said: dict[str, object] = {"sampler": self.sampler, "temperature": self.temperature, "top_p": self.top_p}
        sampler = self.make()
        said |= {f"option_{f.name}": getattr(sampler, f.name) for f in fields(sampler)}  # type: ignore[arg-type]
        if sampler.stepwise:
            said |= {"steps": self.steps, "grid": self.grid, "precision": self.precision}
            if self.grid == "power":
                said["power"] = self.power
        if sampler.uses_law:
            said["law"] = self.law
        if sampler.needs_scorer:
            said |= {f"guidance_{k}": v for k, v in asdict(self.guidance).items()}
        return said


@dataclass(frozen=True)
class Generated:
    """Samples in the order asked for, mean network calls per sample, and seconds spent in the sampler.

    rates: samples per second of each batch, the device waited for.
    """

    samples: list[Sample]
    nfe: NFE
    seconds: float
    rates: tuple[float, ...] = ()

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with id, text and whatever the samples' records say. Raises InputError without pandas."""
        return frame([{"id": s.id, "text": s.text, **s.info} for s in self.samples])


Length = str | int | Sequence[str | int]  # 120, "80-120", or several of them


def length_ranges(length: Length) -> list[tuple[int, int]]:
    """Lowest and highest length of ``120``, ``"80-120"``, or of each in a list. Raises InputError for anything else."""
    given = [length] if isinstance(length, str | int) else list(length)
    if not given:
        raise InputError("length=[] is empty: give a number, a range such as 80-120, or a list of them.")
    ranges = []
    for one in given:
        first, dash, second = str(one).partition("-")
        try:
            low = int(first)
            high = int(second) if dash else low
        except ValueError:
            raise InputError(
                f"length={one!r} is neither a number nor a range: write length=120, length=80-120 or length=[80,120]."
            ) from None
        if not 1 <= low <= high:
            raise InputError(f"length={one!r} is out of range: at least 1, and the range must not fall.")
        ranges.append((low, high))
    return ranges


def parse_length(length: Length | None, domain: Domain, num: int, stream: torch.Generator) -> list[int]:
    """Lengths (free positions) of ``num`` samples.

    ``120``, ``"80-120"`` (uniform), a list of them used in turn, or the domain's prior for None.
    """
    if length is None:
        return domain.lengths(num, stream)
    ranges = length_ranges(length)
    if len(ranges) == 1:
        low, high = ranges[0]
        return torch.randint(low, high + 1, (num,), generator=stream).tolist()
    turns = [ranges[i % len(ranges)] for i in range(num)]
    return [int(torch.randint(low, high + 1, (), generator=stream)) for low, high in turns]


def generate(
    domain: Domain,
    denoiser: nn.Module,
    scorer: nn.Module | None = None,
    *,
    settings: SamplerSettings,
    num: int,
    length: Length | None = None,
    templates: Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    bias: Float[Tensor, "V"] | None = None,
    entropy_at: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Generated:
    """Write ``num`` samples, sorted into batches of like lengths, each batch with a random stream of its own.

    Args:
        templates: token ids with the mask at free positions (anything else is pinned), used round-robin; excludes
            ``length``.
        bias: added to the logits of every token, -inf excludes one.
        entropy_at: NLL curve for ``grid=optimised`` (see ``nll_curve``).
        progress: called with the number of samples finished.

    Samples do not depend on ``progress``; they do depend on ``batch_size``, which is part of the record.
    """
    if num < 1:
        raise InputError(f"num={num} is out of range: at least one sample.")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} is out of range: it must be at least 1.")
    model: Denoiser = denoiser  # type: ignore[assignment]
    device = _device(denoiser)
    bias = None if bias is None else bias.to(device)
    if templates is not None and length is not None:
        raise InputError("length and template exclude each other: the template says the length.")
    if templates is None:
        lengths = parse_length(length, domain, num, generator(seed, "lengths"))
        order = sorted(range(num), key=lambda i: lengths[i])
        rows = [domain.template([lengths[i] for i in order[j : j + batch_size]]) for j in range(0, num, batch_size)]
    else:
        chosen = [templates[i % len(templates)] for i in range(num)]
        order = sorted(range(num), key=lambda i: (len(chosen[i]), i % len(templates)))
        rows = [
            _stack([chosen[i] for i in order[j : j + batch_size]], domain.vocabulary.pad)
            for j in range(0, num, batch_size)
        ]
    finished: dict[int, tuple[int, ...]] = {}
    nfe, seconds, rates = NFE(), 0.0, []
    for number, template in enumerate(rows):
        started = time.perf_counter()
        stream = generator(seed, "sample", number, device=device)
        made = _sample(model, scorer, template.to(device), settings, stream, bias, entropy_at)
        tokens = made.tokens.cpu()
        elapsed = time.perf_counter() - started  # the copy to the CPU waited for the device
        seconds += elapsed
        rates.append(len(template) / elapsed)
        part = len(template) / num
        nfe += NFE(made.nfe.denoiser * part, made.nfe.scorer * part)
        ends = domain.vocabulary.lengths(tokens).tolist()
        for row, end in enumerate(ends):
            finished[order[number * batch_size + row]] = tuple(tokens[row, :end].tolist())
        if progress:
            progress(len(finished))
    samples = [
        Sample(domain.decode(finished[i]), f"sample_{i + 1}", finished[i], {"length": len(domain.decode(finished[i]))})
        for i in range(num)
    ]
    return Generated(samples, nfe, seconds, tuple(rates))


def _sample(
    model: Denoiser,
    scorer: nn.Module | None,
    template: Int[Tensor, "B L"],
    settings: SamplerSettings,
    stream: torch.Generator,
    bias: Float[Tensor, "V"] | None,
    entropy_at: Callable[[Tensor], Tensor] | None,
) -> Sampled:
    """One batch through the sampler that the settings name."""
    guide: Scorer | None = scorer  # type: ignore[assignment]
    sampler, shares = settings.make(), torch.ones(1, dtype=torch.float64)
    if sampler.stepwise:
        shares = grid(settings.grid, settings.steps, power=settings.power, entropy_at=entropy_at)
    job = Job(
        model,
        template,
        shares=shares,
        law=law(settings.law),
        generator=stream,
        rule=TokenRule(settings.temperature, settings.top_p, bias),
        scorer=guide,
        guidance=settings.guidance,
        precision=settings.precision,
    )
    return sampler.sample(job)


def _device(module: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU for one without any."""
    first = next(module.parameters(), None)
    return first.device if first is not None else torch.device("cpu")


def _stack(rows: Sequence[Sequence[int]], pad: int | None) -> Int[Tensor, "B L"]:
    """Rows under each other, padded on the right."""
    width = max(len(row) for row in rows)
    if pad is None and any(len(row) != width for row in rows):
        raise InputError("templates of different lengths need a domain with a padding token.")
    return torch.tensor([[*row, *([pad] * (width - len(row)))] for row in rows])


@torch.no_grad()
def nll_curve(
    denoiser: Denoiser, batches: Sequence[Int[Tensor, "B L"]], seed: int, points: int = 9
) -> Callable[[Float[Tensor, "n"]], Float[Tensor, "n"]]:
    """Mean NLL per masked token (nats) as a function of the share already visible, measured on validation batches.

    Linear between ``points`` measured shares. It is what ``grid=optimised`` minimises the cost for.
    """
    shares = torch.linspace(0, 0.97, points, dtype=torch.float64)
    device = _device(denoiser)  # type: ignore[arg-type]
    values = []
    for k, share in enumerate(shares.tolist()):
        total, count = 0.0, 0
        for i, batch in enumerate(batches):
            x0 = batch.to(device)
            alpha = torch.full((len(x0),), share, device=device)
            stream = generator(seed, "nll_curve", k, i, device=device)
            xt = forward_mask(x0, alpha, denoiser.vocabulary.maskable(x0), denoiser.vocabulary.mask, stream)
            masked = xt == denoiser.vocabulary.mask
            log_p = token_statistics(denoiser, denoiser.trunk(xt)[masked], x0[masked][:, None]).log_p
            total, count = total - float(log_p.sum()), count + log_p.numel()
        values.append(total / max(count, 1))
    known = torch.tensor(values, dtype=torch.float64)

    def curve(at: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        right = torch.searchsorted(shares, at.contiguous().to(torch.float64)).clamp(1, points - 1)
        left = right - 1
        part = ((at - shares[left]) / (shares[right] - shares[left])).clamp(0, 1)
        return known[left] + part * (known[right] - known[left])

    return curve
