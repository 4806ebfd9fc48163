"""States from data: real sequences, corrupted at times that are stratified over the whole batch.

A rollout visits the student's own states. Objectives such as MMD, IDLM and D-MMD start from x_t ~ q(. | x0) with a real
x0 instead, which costs no rollout. Without a corpus, a kept set of the teacher's samples takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from didi_core.diffusion.masking import forward_mask
from didi_core.diffusion.schedules import Schedule, antithetic_times
from didi_core.errors import InputError, at_least, unknown
from didi_core.objectives.base import Materials
from didi_core.objectives.reference import Batches, Reference, SampleReference, pad_together, trim
from didi_core.streams import generator
from didi_core.training.objective import Learner, Objective, Slice

SOURCES = ("data", "teacher")


@dataclass(frozen=True)
class KeptSettings:
    """Where sequences are taken from.

    source: the domain's ``data``, or the ``teacher``, from which ``samples`` sequences are drawn in ``steps`` calls
        each and kept with the run.
    """

    source: str = "data"
    samples: int = 512
    steps: int = 64

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise unknown("source of states", self.source, SOURCES, "objective.states.source")
        at_least(1, "objective.states.", samples=self.samples, steps=self.steps)


@dataclass(frozen=True)
class StateSettings(KeptSettings):
    """The keys of ``objective.states``: the origin of x0, and the range of t.

    low, high: of t.
    """

    low: float = 0.02
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low < self.high <= 1:
            raise InputError(f"objective.states.low={self.low}, high={self.high}: need 0 <= low < high <= 1.")


@dataclass(frozen=True)
class State:
    """Sequences x0 and their corruptions x_t, row by row. Where t is small a row may have no masked position."""

    x0: Int[Tensor, "B L"]
    xt: Int[Tensor, "B L"]
    masked: Bool[Tensor, "B L"]
    time: Float[Tensor, "B"]
    alpha: Float[Tensor, "B"]


@dataclass(frozen=True)
class States:
    """Draws the states of a slice; the same slice and stream give the same states."""

    source: Reference
    materials: Materials
    schedule: Schedule
    low: float
    high: float

    @classmethod
    def of(cls, settings: StateSettings, materials: Materials, schedule: Schedule) -> States:
        """The source of states for these settings. Raises InputError where there is no data."""
        source: Reference
        if settings.source == "teacher":
            source = materials.kept_samples(settings.samples, settings.steps)
        else:
            source = _data(materials)
        return cls(source, materials, schedule, settings.low, settings.high)

    def draw(self, slice: Slice) -> State:
        """The states of one slice.

        x0 and t are drawn for the whole batch and then cut; masks come from the stream of the slice. Pinned positions
        (BOS, EOS, padding) are never masked.
        """
        run, batch = self.materials.run, self.materials.training.batch_size
        vocabulary = run.domain.vocabulary
        times = antithetic_times(batch, generator(run.seed, "states", slice.step), self.low, self.high)
        time = slice.of(times).to(run.device)
        alpha = self.schedule.alpha(time)
        x0 = trim(slice.of(self.source.batch(slice.step, batch)), vocabulary.pad).to(run.device)
        xt = forward_mask(x0, alpha, vocabulary.maskable(x0), vocabulary.mask, slice.stream)
        return State(x0, xt, xt == vocabulary.mask, time, alpha)


def fixed_set(settings: StateSettings, materials: Materials) -> SampleReference:
    """``settings.samples`` sequences that stay the same: the teacher's own, or the first of the domain's data.

    Raises InputError where there is no data.
    """
    if settings.source == "teacher":
        return materials.kept_samples(settings.samples, settings.steps)
    source, size, pad = _data(materials), materials.training.batch_size, materials.run.domain.vocabulary.pad
    whole = source.batch(0, size)
    for index in range(1, -(-settings.samples // size)):
        whole = pad_together(whole, source.batch(index, size), pad)
    return SampleReference(whole[: settings.samples], materials.run.seed, pad)


def _data(materials: Materials) -> Batches:
    """The domain's data. Raises InputError where there is none."""
    source = materials.data()
    try:
        source.batch(0, materials.training.batch_size)
    except InputError as error:
        raise InputError(
            f"objective.states.source=data, and there is no data: {error} Without a corpus, set "
            "objective.states.source=teacher: the teacher's own samples."
        ) from None
    return source


@dataclass
class FromStates(Objective[State]):
    """An objective from which the student alone learns, in states from data."""

    materials: Materials
    states: States

    def learners(self) -> list[Learner]:
        return [self.materials.student_learner()]

    def batch(self, slice: Slice) -> State:
        return self.states.draw(slice)
