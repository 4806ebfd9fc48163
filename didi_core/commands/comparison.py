"""Student against teacher: keys and steps that ``evaluate`` and the end of ``distill`` share."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from didi_core.config import Choice
from didi_core.diffusion.grids import Curve
from didi_core.errors import InputError, at_least
from didi_core.evaluation.cache import carried_samples
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.evaluate import evaluate_models
from didi_core.evaluation.rows import Evaluation
from didi_core.plugins import registry
from didi_core.progress import in_a_line, print_path
from didi_core.report.record import build_report, read_training
from didi_core.report.to_terminal import print_report
from didi_core.report.write import write_report
from didi_core.run import Run
from didi_core.sampling import autoregressive
from didi_core.sampling.autoregressive import CausalGenerator
from didi_core.sampling.batching import stacked
from didi_core.sampling.catalogue import sampler
from didi_core.sampling.generate import DEFAULT_GRID, DEFAULT_LAW, SamplerSettings
from didi_core.sampling.nll_curve import nll_curve
from didi_core.types import Denoiser, Domain, Sample, Scorer

AUTO = "auto"  # law and grid with which the model was trained
STUDENT, MODEL = "student", "model"
CURVE_SAMPLES = 128  # held-out sequences on which the NLL curve of grid=optimised is measured


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Which samples are compared: every combination of steps, temperatures, samplers, laws and grids.

    num: samples of each row and seed. num_at: other numbers of samples at some numbers of steps.
    steps, teacher_steps: calls of the student and of the teacher.
    legacy_steps: the teacher also with the sampler of published code (``joint_fp32``), beside the exact draw under the
        same law.
    samplers, laws, grids: names, or groups {kind: name, ...} with their own keys.
    """

    num: int = 1000
    num_at: dict[Any, Any] = field(default_factory=dict)
    batch_size: int = 64
    seeds: tuple[int, ...] = (0,)
    steps: tuple[int, ...] = (4, 8, 16, 32)
    teacher_steps: tuple[int, ...] = (4, 8, 16, 32, 128)
    legacy_steps: tuple[int, ...] = ()
    temperatures: tuple[float, ...] = (1.0,)
    samplers: tuple[Choice, ...] = ("ancestral",)
    laws: tuple[Choice, ...] = ("iid",)
    grids: tuple[Choice, ...] = ("uniform",)
    power: float = 3.0

    def __post_init__(self) -> None:
        at_least(1, num=self.num, batch_size=self.batch_size)
        for name in ("seeds", "steps", "temperatures", "samplers", "laws", "grids"):
            if not getattr(self, name):
                raise InputError(f"{name}=[] is empty: give at least one value.")
        self.plan(self.steps)
        self.plan(self.teacher_steps, guided=False)
        self.legacy_plan()
        self.counts()

    def counts(self) -> dict[int, int]:
        """``num_at`` as a mapping from number of steps to number of samples.

        Raises:
            InputError: it is no such mapping.
        """
        try:
            made = {int(steps): int(count) for steps, count in self.num_at.items()}
        except (TypeError, ValueError):
            made = {0: 0}
        if any(steps < 1 or count < 1 for steps, count in made.items()):
            raise InputError(f"num_at={self.num_at} does not map steps to samples: write num_at={{128: 200}}.")
        return made

    def legacy_plan(self) -> list[SamplerSettings]:
        """The sampler of published code at ``legacy_steps``, each beside the exact draw of the same law and grid."""
        return [
            SamplerSettings(chosen, k, "iid", DEFAULT_GRID if grid == AUTO else grid, self.power, temperature)
            for grid, k, chosen, temperature in itertools.product(
                self.grids, self.legacy_steps, ("ancestral", "joint_fp32"), self.temperatures
            )
        ]

    def calls(self) -> int:
        """Denoiser calls times samples of the whole comparison; a sampler without steps counts as one row."""
        rows = [*self.plan(self.steps), *self.plan(self.teacher_steps, guided=False)]
        return self.num * len(self.seeds) * sum(row.steps for row in rows)

    def plan(self, steps: Sequence[int], guided: bool = True) -> list[SamplerSettings]:
        """Sampler settings for a model; ``guided=False`` leaves out the samplers that need a scorer."""
        made = [
            self._row(chosen, law, grid, k, temperature)
            for chosen, law, grid, k, temperature in itertools.product(
                self.samplers, self.laws, self.grids, steps, self.temperatures
            )
            if guided or not sampler(chosen).needs_scorer
        ]
        return list(dict.fromkeys(made))

    def _row(self, chosen: Choice, law: Choice, grid: Choice, steps: int, temperature: float) -> SamplerSettings:
        """The settings of one combination, with defaults for keys that have no effect.

        Such a combination then makes one row, instead of one for every law, grid or number of steps.
        """
        law = law if sampler(chosen).uses_law and law != AUTO else DEFAULT_LAW
        made = SamplerSettings(chosen, steps, law, DEFAULT_GRID if grid == AUTO else grid, self.power, temperature)
        return made if made.calls is not None else SamplerSettings(chosen, law=law, temperature=temperature)


PLAN_KEYS = tuple(one.name for one in fields(PlanSettings))


def plan_of(settings: Any) -> dict[str, Any]:
    """The keys of a plan, and none that a command adds to them, as the settings have them."""
    return {name: getattr(settings, name) for name in PLAN_KEYS}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The networks of a comparison. Without a teacher, only the student is measured.

    autoregressive: a causal model for comparison. name: of the student in the tables; a model that is not known to have
        a teacher is called ``MODEL``.
    """

    student: Denoiser
    scorer: Scorer | None
    teacher: Denoiser | None
    autoregressive: CausalGenerator | None = None
    name: str = STUDENT


def compare_models(
    run: Run,
    networks: Compared,
    settings: PlanSettings,
    *,
    cache_dir: Path,
    length: str | None = None,
    reference: Sequence[Sample] = (),
) -> Evaluation | None:
    """Sample and measure everything in the plan, in the run's precision; None in all processes but the first."""
    how = Measuring(
        settings.num, settings.counts(), settings.seeds, length, settings.batch_size, reference, cache_dir=cache_dir
    )
    with run.autocast():
        return evaluate_models(run, contenders(run, networks, settings), how)


def contenders(run: Run, networks: Compared, settings: PlanSettings) -> dict[str, Contender]:
    """The networks on the run's device, each with its plan; the autoregressive one has its own sampler."""
    found: dict[str, Contender] = {}
    if networks.teacher is not None:
        own = settings.plan(settings.teacher_steps, guided=False)
        found["teacher"] = Contender(networks.teacher, list(dict.fromkeys([*own, *settings.legacy_plan()])))
    if networks.autoregressive is not None:
        plan = [SamplerSettings(autoregressive.NAME, temperature=temperature) for temperature in settings.temperatures]
        found[autoregressive.NAME] = Contender(networks.autoregressive, plan)
    plan = settings.plan(settings.steps, networks.scorer is not None)
    found[networks.name] = Contender(networks.student, plan, networks.scorer)
    for model in found.values():
        for network in (model.denoiser, model.scorer):
            if network is not None:
                network.to(run.device).eval()
    if not any(row.needs_curve for model in found.values() for row in model.plan):
        return found
    return {
        name: replace(model, entropy_at=measured_curve(run.domain, model.denoiser, settings.seeds[0]))
        if isinstance(model.denoiser, Denoiser)
        else model
        for name, model in found.items()
    }


def measured_curve(domain: Domain, model: Denoiser, seed: int) -> Curve:
    """The NLL curve that some grids need, measured on held-out sequences or else on samples that the domain ships."""
    carried = carried_samples(domain)[:CURVE_SAMPLES]
    try:
        known = domain.held_out(CURVE_SAMPLES, seed)
    except InputError as error:
        if not carried:
            raise
        print(f"the NLL curve is measured on {len(carried)} samples of the bundled teacher: {error}")
        known = carried
    rows = sorted((domain.encode(sample.text) for sample in known), key=len)
    batches = [stacked(rows[i : i + 32], domain.vocabulary.pad) for i in range(0, len(rows), 32)]
    return nll_curve(model, batches, seed)


def publish(folder: Path, evaluation: Evaluation, record: Mapping[str, Any], training_of: Path | None = None) -> None:
    """Write the report into ``folder``, and print its tables, its sentence and where it is."""
    training = read_training(training_of) if training_of is not None else []
    report = build_report(evaluation, provenance=record, training=training)
    write_report(folder, report)
    print_report(report)
    print_path("report", folder / "report.html")


def write_examples(domain: Domain, examples: Mapping[str, Sequence[Sample]], folder: Path) -> None:
    """Write a few of the student's sequences as samples of the run in ``folder``, and print those of one number of
    steps."""
    own = [label for label in examples if label.startswith(STUDENT)]
    if not own:
        return
    chosen: list[Sample] = []
    for label in own:
        chosen += [
            Sample(s.text, f"{s.id}_{len(chosen) + i}", s.tokens, {**s.info, "made_by": label.replace(" ", "_")})
            for i, s in enumerate(examples[label], start=1)
        ]
    path = folder / f"samples{domain.suffix}"
    domain.write(path, chosen)
    registry().notify("samples", run_dir=folder, samples=chosen, record={"file": path.name})
    shown = own[len(own) // 2]
    print(f"{shown}:", *(f"  {in_a_line(sample.text)}" for sample in examples[shown]), sep="\n")
    print_path("samples", path)
