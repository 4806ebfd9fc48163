"""Settings registered by name in ``OBJECTIVES``: the keys of ``objective:``, and how they become an objective."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from jaxtyping import Int
from torch import Tensor, nn

from didi_core.errors import InputError
from didi_core.models.adapter import Network
from didi_core.models.masters import with_master_weights
from didi_core.objectives.reference import Batches, SampleReference
from didi_core.run import Run
from didi_core.streams import seeded
from didi_core.training.objective import Collapse, Learner, Objective, Scalars
from didi_core.training.outlines import on_device
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser, NoisyDenoiser, Scorer


class Adapting(Protocol):
    """What makes an adapter of a network that begins as a copy of the teacher."""

    def __call__(self, network: Network, name: str) -> Network: ...


def no_teacher(num: int, steps: int) -> Int[Tensor, "S L"]:
    """Stands in for the teacher's samples in a run without a teacher. Raises InputError."""
    raise InputError("this run has no teacher to draw samples from.")


@dataclass(frozen=True)
class Materials:
    """The inputs of an objective. Costly ones are functions, so that only the objectives that need them pay.

    network: becomes the result, on the device of the run: a copy of the teacher in ``distill``, fresh weights in
        ``pretrain``.
    teacher: frozen and in eval mode; None in ``pretrain``.
    teacher_samples: (number, calls of each) -> the teacher's sequences on the CPU, drawn once and kept with the run.
    adapter: makes an adapter of a copy of the teacher, (network, name) -> network; None where copies learn in full.
    outline: the teacher without values, of which copies are made where several processes may share the networks; they
        get their values after ``prepare`` (``didi_core.training.outlines``). None where copies have them at once.
    collapse: the run stops when the student's entropy falls below this fraction of the teacher's.
    validate_every, validation_batches: steps between validations, and their number of batches.
    """

    run: Run
    training: TrainingSettings
    network: nn.Module
    teacher: Denoiser | None = None
    teacher_samples: Callable[[int, int], Int[Tensor, "S L"]] = no_teacher
    collapse: float = 0.0
    adapter: Adapting | None = None
    validate_every: int = 1
    validation_batches: int = 1
    outline: Denoiser | None = None

    @property
    def frozen(self) -> Denoiser:
        """The teacher, for an objective that needs one. Raises InputError without."""
        if self.teacher is None:
            raise InputError("this objective needs a teacher: use the command distill.")
        return self.teacher

    @property
    def student(self) -> Denoiser:
        """The network, for an objective that trains a denoiser. Raises InputError for another kind of network."""
        if not isinstance(self.network, Denoiser):
            raise InputError(f"this objective trains a denoiser, and the network is a {type(self.network).__name__}.")
        return self.network

    @property
    def slice_size(self) -> int:
        """Sequences that a process holds at one time."""
        return self.training.slice_size(self.run.processes.size)

    def copy_of_teacher(self, name: str) -> Denoiser:
        """A copy of the teacher that learns, in full or as an adapter on the teacher's weights.

        name: of the learner it becomes.
        """
        return self._learning(copy.deepcopy(self.outline or self.frozen).requires_grad_(True), name)

    def scorer(self, trainable_blocks: int) -> Scorer:
        """A fresh scorer on a copy of the teacher's trunk, or on an adapter of it, on the device of the run."""
        noisy = isinstance(self.frozen, NoisyDenoiser) and self.frozen.noise_size > 0  # a trunk has it in its weights
        origin = self.frozen if self.outline is None or noisy else self.outline
        with seeded(self.run.seed, "scorer"):
            made = on_device(self.run.domain.scorer(origin, trainable_blocks), self.run.device)
        return self._learning(made, "scorer")

    def _learning(self, network: Network, name: str) -> Network:
        return with_master_weights(network) if self.adapter is None else self.adapter(network, name)

    def student_learner(self, warmup: int = 0) -> Learner:
        """The student as the run's result: it waits for ``warmup`` updates of the others and has an EMA."""
        return Learner("student", self.student, self.training.optimiser, self.training.ema, warmup=warmup)

    def data(self) -> Batches:
        """The domain's training data, by batch number."""
        run = self.run
        return Batches(lambda n, first: run.domain.batches("train", n, run.seed, start=first))

    def kept_samples(self, num: int, steps: int) -> SampleReference:
        """The teacher's samples, by batch number."""
        return SampleReference(self.teacher_samples(num, steps), self.run.seed, self.run.domain.vocabulary.pad)


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(ABC):
    """The keys of ``objective:``. A subclass adds its own fields; plugins offer it by ``didi_register_objectives``.

    kind: the registered name.
    name: the name of this composition in cards and reports; the kind by default.

    commands: commands that can train it. ``distill`` starts from a copy of the teacher, ``pretrain`` from fresh
    weights.
    architecture: the network that ``pretrain`` makes for it.
    """

    kind: str = ""
    name: str = ""

    commands: ClassVar[tuple[str, ...]] = ("distill",)
    architecture: ClassVar[str] = "dit"

    @abstractmethod
    def prepare(self, materials: Materials) -> Objective[Any]:
        """The objective of one run, made before its first step."""

    def resolved(self) -> dict[str, Any]:
        """The keys as they were read, in plain values. A run's record holds them, and runs are compared by them."""
        return asdict(self)

    def for_card(self) -> dict[str, Any]:
        """The keys as the card of a trained network has them: all but the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}

    def check(self, training: TrainingSettings, processes: int) -> None:
        """Raise InputError where the batch cannot be cut into the slices of that many processes."""
        training.slice_size(processes)


def check_entropy(step: int, scalars: Scalars, collapse: float) -> None:
    """Raise ``Collapse`` where the student's entropy is below ``collapse`` times the teacher's at the same states."""
    entropy, teacher = scalars.get("entropy"), scalars.get("teacher_entropy")
    if entropy is not None and teacher is not None and entropy < collapse * teacher:
        raise Collapse(
            f"step {step}: the student's entropy is {entropy:.4f} nats, below {collapse:g} of the teacher's "
            f"{teacher:.4f} at the same states: it has collapsed. The last checkpoint is intact. "
            "Raise objective.anchor.kl or objective.anchor.entropy, or lower training.lr; "
            "then repeat with another run_dir."
        )
