"""``sample``: draw sequences from a model; the same seed gives the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from didi_core.checkpoints.card import MODEL, domain_name, load_denoiser, load_scorer, model_folder, read_card
from didi_core.commands.common import (
    CommonSettings,
    about_domain,
    load_teacher,
    make_domain,
    make_run,
    note_data,
    note_machine,
    open_run,
)
from didi_core.commands.comparison import AUTO, measured_curve
from didi_core.commands.compiling import Blocks, CompileSettings, sampling_calls
from didi_core.commands.grammar import written
from didi_core.config import Choice
from didi_core.device import Machine
from didi_core.diffusion.laws import law
from didi_core.domain.abilities import HasBundledStudent
from didi_core.domain.conditioning import Conditioning, index_map, verify
from didi_core.errors import InputError, at_least, counted
from didi_core.evaluation.wording import listed
from didi_core.plugins import registry
from didi_core.processes import current
from didi_core.progress import counting, in_a_line, print_path
from didi_core.run import Run
from didi_core.sampling.catalogue import sampler
from didi_core.sampling.generate import COMPARED, DEFAULT_LAW, Generated, SamplerSettings, generate, trained_with
from didi_core.sampling.laying_out import lay_out
from didi_core.sampling.sharing import Sharing, name_of
from didi_core.storage.files import write_json
from didi_core.storage.fingerprint import model_hash
from didi_core.storage.run_dir import RunDirectory
from didi_core.types import Denoiser, Sample, Scorer

BUNDLED = "bundled"
BEGINNING = 80  # characters of the first sample that are printed
PARTS = "parts"  # folder of finished batches in a run directory, until the file of samples is written


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings, CompileSettings, SamplerSettings):
    """``configs/sample.yaml``: the keys of the sampler, and those of the command.

    run: the model; None, or ``bundled``, for the one that ``domain`` carries.
    law, grid: ``auto`` stands for those with which the model was trained, by its card.
    conditioning: keys of the model's domain (``configs/conditioning``), written without ``conditioning.``.
    """

    law: Choice = field(default=AUTO, hash=False)
    grid: Choice = field(default=AUTO, hash=False)
    run: Path | None = None
    domain: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None
    out: Path | None = None
    num: int = 10
    batch_size: int = 64
    length: str | tuple[str, ...] | None = None
    template: str | None = None
    conditioning: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        CommonSettings.__post_init__(self)
        if self.run is None and self.domain is None:
            raise InputError("run is missing: give run=<run directory>, or domain=<name> for its bundled model.")
        at_least(1, num=self.num, batch_size=self.batch_size)
        if self.length is not None and self.template is not None:
            raise InputError("length and template exclude each other: the template fixes the length. Leave one out.")
        self.sampler_settings()

    def sampler_settings(self, card: Mapping[str, Any] | None = None) -> SamplerSettings:
        """The sampler's settings for a model with that card."""
        given = {f.name: getattr(self, f.name) for f in fields(SamplerSettings)}
        trained = dict(zip(("law", "grid"), trained_with(card or {}), strict=True))
        given |= {key: choice for key, choice in trained.items() if given[key] == AUTO}
        chosen = sampler(self.sampler)
        if self.law == AUTO and (not chosen.uses_law or (chosen.needs_scorer and law(given["law"]).sees_model)):
            given["law"] = DEFAULT_LAW
        return SamplerSettings(**given)


@dataclass(frozen=True)
class Source:
    """A model loaded for sampling: its card, its networks, and the run's context."""

    card: Mapping[str, Any]
    denoiser: Denoiser
    scorer: Scorer | None
    run: Run

    @classmethod
    def open(cls, settings: Settings) -> Source:
        """Load the model of ``run``."""
        current().check_device(Machine.of(settings.device, settings.precision).device)
        if settings.run is None or (str(settings.run) == BUNDLED and not Path(BUNDLED).exists()):
            return cls._bundled(settings)
        return cls._of_folder(model_folder(settings.run), settings)

    @classmethod
    def of_networks(
        cls, card: Mapping[str, Any], denoiser: Denoiser, scorer: Scorer | None, settings: Settings, where: str
    ) -> Source:
        """Loaded networks beside their card, on the device of the settings. where: what holds them, for messages.

        Raises:
            InputError: the model is of another domain than the settings', or its domain is not installed.
        """
        name = domain_name(card, where)
        if settings.domain not in (None, name):
            raise InputError(f"domain={settings.domain}, but {where} holds a model of domain {name}. Leave domain out.")
        machine = Machine.of(settings.device, settings.precision)
        run = make_run(settings, make_domain(name, card.get("data") or {}), machine)
        on_device = scorer.to(machine.device) if scorer is not None else None
        return cls(card, denoiser.to(machine.device), on_device, run)

    @classmethod
    def _of_folder(cls, folder: Path, settings: Settings) -> Source:
        """A model beside its card."""
        return cls.of_networks(read_card(folder), load_denoiser(folder), load_scorer(folder), settings, str(folder))

    @classmethod
    def _bundled(cls, settings: Settings) -> Source:
        """What a domain carries: its student where it has one for these settings, else its teacher."""
        if settings.domain is None:
            raise InputError("run=bundled is the model that a domain carries: give domain=<name> too.")
        domain = make_domain(settings.domain, settings.data)
        folder = domain.bundled_student if isinstance(domain, HasBundledStudent) else None
        if folder is not None:
            card = {**read_card(folder), **about_domain(domain, settings.data)}
            return cls.of_networks(card, load_denoiser(folder), load_scorer(folder), settings, str(folder))
        machine = Machine.of(settings.device, settings.precision)
        denoiser = load_teacher(domain, BUNDLED).to(machine.device).eval()
        card = {"domain": domain.name, "sha256": {MODEL: model_hash(denoiser)}}
        return cls(card, denoiser, None, make_run(settings, domain, machine))


def draw(
    settings: Settings, source: Source, asked: Conditioning | None = None, opened: RunDirectory | None = None
) -> Generated:
    """Draw the samples of these settings, each with its record; pinned positions are verified.

    Args:
        asked: the result of ``lay_out``, if the caller has it.
        opened: where results go, whose record says how the network ran.
    """
    how, run = settings.sampler_settings(source.card), source.run
    asked = asked or lay_out(settings, run.domain, source.card)
    calls = sampling_calls(settings.num, settings.batch_size, how.steps)
    blocks = Blocks.of(settings.compile, run, source.denoiser, calls)
    sharing = _sharing(settings, source, asked, opened)
    with blocks.running(opened), run.autocast():
        run.reporter.start("sample", settings.num)
        curve = measured_curve(run.domain, source.denoiser, settings.seed) if how.needs_curve else None
        made = generate(
            run.domain,
            source.denoiser,
            source.scorer,
            settings=how,
            num=settings.num,
            length=settings.length if asked.templates is None else None,
            templates=asked.templates,
            bias=asked.bias,
            seed=settings.seed,
            batch_size=settings.batch_size,
            entropy_at=curve,
            progress=counting(run.reporter),
            sharing=sharing,
        )
    run.reporter.stop()
    record = {
        **how.record(),
        "precision": run.machine.precision,
        "seed": settings.seed,
        **blocks.recorded,
        "nfe": round(made.nfe.denoiser, 2),
        **({"scorer_nfe": round(made.nfe.scorer, 2)} if made.nfe.scorer else {}),
        "model": source.card["sha256"][MODEL][:12],
    }
    verify(made.samples, asked, run.domain.vocabulary)
    own = [asked.info[i % len(asked.info)] if asked.info else {} for i in range(settings.num)]
    samples = [
        Sample(s.text, s.id, s.tokens, {**s.info, **said, **record}) for s, said in zip(made.samples, own, strict=True)
    ]
    return Generated(samples, made.nfe, made.seconds)


def _sharing(
    settings: Settings, source: Source, asked: Conditioning, opened: RunDirectory | None
) -> Sharing:
    """The processes, and the folder of finished batches in a run directory, named by all that decides them."""
    if opened is None:
        return Sharing(source.run.processes)
    how = settings.sampler_settings(source.card).record()
    drawn = [how, settings.num, settings.length, settings.batch_size, settings.seed, source.run.machine.precision]
    bias = None if asked.bias is None else asked.bias.tolist()
    name = name_of(drawn, source.card.get("sha256"), asked.templates, bias)
    return Sharing(source.run.processes, opened.path / PARTS / name)


def run(settings: Settings, config: Mapping[str, Any], command_line: tuple[str, ...]) -> Generated:
    """Write ``num`` samples to ``out``, or into a new run directory."""
    source = Source.open(settings)
    domain = source.run.domain
    asked = lay_out(settings, domain, source.card)
    with ExitStack() as stack:
        place, opened = settings.out, None
        if settings.out is None or settings.run_dir is not None:
            opened = stack.enter_context(open_run("sample", domain.name, settings.run_dir, config, command_line))
            note_machine(opened, source.run.machine, source.denoiser)
            note_data(opened, domain)
            opened.note(hashes={"model": source.card["sha256"]})
            place = place or opened.path / f"samples{domain.suffix}"
        _print_choices(settings, source.card)
        made, out = draw(settings, source, asked, opened), place or Path()
        if not source.run.processes.first:
            return made
        domain.write(out, made.samples)
        where = index_map(made.samples, asked, domain.vocabulary)
        beside = out.with_name(f"{out.name}.map.json")
        if where is not None:
            write_json(beside, where)
        else:
            beside.unlink(missing_ok=True)  # of other samples, which had the name before
        if opened is not None:
            shutil.rmtree(opened.path / PARTS, ignore_errors=True)
        registry().notify("samples", run_dir=out.parent, samples=made.samples, record={"file": out.name})
        speed = settings.num / made.seconds if made.seconds else float("inf")
        drawn, calls = counted(len(made.samples), "sample"), f"{made.nfe.calls} each"
        print(f"the first begins: {in_a_line(made.samples[0].text[:BEGINNING])}")
        print_path(f"{drawn}, {calls}, {speed:.1f} per second", out)
    return made


def _print_choices(settings: Settings, card: Mapping[str, Any]) -> None:
    """Print the law and grid that the card decided, and whether so few calls are what the model was trained for."""
    how, trained = settings.sampler_settings(card), card.get("training") or {}
    chosen = [
        f"{key}={written(getattr(how, key))}"
        for key in ("law", "grid")
        if getattr(settings, key) == AUTO and (trained.get(f"rollout_{key}") or card.get(COMPARED)) and how.calls
    ]
    if chosen:
        known = "trained" if trained.get("rollout_law") else "compared with its teacher"
        print(f"{' '.join(chosen)}: as the model was {known}, by its card", flush=True)
    learnt = (trained.get("rollout") or {}).get("calls") or [0]
    if how.calls is not None and how.calls < min(learnt):
        print(
            f"steps={how.calls}: the model learnt from rollouts of {listed(learnt)} calls, and fewer are outside its "
            "training; objective=one_call trains for one",
            flush=True,
        )
