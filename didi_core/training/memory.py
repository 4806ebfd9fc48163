"""What to change where a training run does not fit into memory, estimated from what it held."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import torch

from didi_core.device import Machine, out_of_memory
from didi_core.errors import DidiError, InputError, counted, first_line
from didi_core.training.components import GIB, expected, largest_gradients
from didi_core.training.placement import memory
from didi_core.training.planning import Resident, forget_peak
from didi_core.training.settings import TrainingSettings
from didi_core.training.trainee import Trainee

MORE = 1.1  # times what a slice had when it failed: what it is taken to need
ASKED = re.compile(r"tried to allocate ([\d.]+) (bytes|[KMGT]iB)", re.IGNORECASE)
UNITS = {"bytes": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": GIB, "tib": 1 << 40}


class TooLarge(DidiError):
    """A step does not fit into memory."""


@dataclass(frozen=True)
class Need:
    """Bytes at the time when memory ran out.

    networks: what is held whatever the slices are: weights, gradients, AdamW, averages, and the process on a CPU.
    slice: what a slice needs beside them, at least. limit: what there is for both.
    """

    networks: int
    slice: int
    limit: int

    @classmethod
    def of(cls, networks: int, most: int, asked: int, limit: int) -> Need | None:
        """From the ``most`` that was held and what was ``asked`` for in vain; None where that says nothing of a slice.

        What did not fit is a bound of it too, because others may use the device, or the system have its own.
        """
        wanted = most + asked
        return cls(networks, wanted - networks, min(limit, wanted)) if networks and wanted > networks else None

    def of_share(self, share: float) -> int:
        """Bytes in all with this share of the slice."""
        return self.networks + round(share * self.slice)

    def fits(self, share: float) -> bool:
        """Whether the networks and this share of the slice fit."""
        return self.networks + MORE * share * self.slice <= self.limit

    @property
    def share(self) -> float:
        """The share of the slice that fits; 0 or less where the networks leave nothing."""
        return (self.limit - self.networks) / (MORE * self.slice)


@dataclass
class Watch:
    """Knows what the networks of a run hold, once ``begin`` was called."""

    machine: Machine
    networks: int = field(default=0, init=False)

    def begin(self, trainees: Sequence[Trainee], *, forget: bool = False) -> None:
        """Before the first step, when networks and averages are there, but no gradients and nothing of AdamW.

        forget: the peak before does not count.
        """
        held = expected({}, [trainee.learner for trainee in trainees])
        self.networks = self._now() + sum(one.optimiser for one in held) + largest_gradients(held)
        if forget:
            forget_peak(self.machine.device)

    def need(self, error: BaseException) -> Need | None:
        """What was needed when memory ran out; None where it is not known."""
        if not self.networks:
            return None
        device = self.machine.device
        most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else Resident.read().most
        return Need.of(self.networks, most, asked_for(error), memory(device))

    def _now(self) -> int:
        device = self.machine.device
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else Resident.read().now


def asked_for(error: BaseException) -> int:
    """Bytes of the allocation that failed, from torch's message; 0 where it does not say."""
    found = ASKED.search(str(error))
    return round(float(found[1]) * UNITS[found[2].lower()]) if found else 0


@contextmanager
def memory_advice(
    training: TrainingSettings,
    machine: Machine,
    processes: int,
    check: Callable[[TrainingSettings, int], None],
    lighter: str = "",
) -> Iterator[Watch]:
    """Say what to change where memory runs out inside. Call ``begin`` of what it gives when the first step begins.

    Args:
        check: raises InputError for settings of training that the objective cannot be run with.
        lighter: a sentence on what makes the networks themselves smaller.

    Raises:
        TooLarge: in place of the error of torch or Python.
    """
    watch = Watch(machine)
    try:
        yield watch
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        what = f"{advice(training, machine, processes, check, watch.need(error))} {lighter}".rstrip()
        raise TooLarge(
            f"out of memory on {machine.label}: {first_line(error).rstrip('.')}. {what} A checkpoint that was saved is "
            "intact. dry_run=true measures what a run takes."
        ) from error


def advice(
    training: TrainingSettings,
    machine: Machine,
    processes: int,
    check: Callable[[TrainingSettings, int], None],
    need: Need | None = None,
) -> str:
    """The largest slices that the objective can be run with and that fit by the estimate ``need``, and what else helps.

    Without an estimate, the next smaller ones.
    """
    rows = training.slice_size(processes)
    cuts = _cuts(training, processes, check)
    fitting = next(((cut, size) for cut, size in cuts if need is None or need.fits(size / rows)), None)
    said = [f"A slice of {counted(rows, 'sequence')} is too large"]
    if need is not None:
        said[0] += f": it needs at least {_gib(need.slice)} beside the {_gib(need.networks)} of the networks"
        said[0] += f" (weights, gradients, AdamW, averages), of {_gib(need.limit)}"
    if fitting is not None:
        cut, size = fitting
        much = f"about {size / rows:.0%} of what is not weights, gradients and AdamW"
        much += f": some {_gib(need.of_share(size / rows))} in all" if need else ""
        said.append(f"Set training.accumulate={cut}. Slices of {size} add up to the same batch, with {much}")
    else:
        said += _without_cuts(training, rows, cuts, need)
    wide = machine.device.type == "cuda" and machine.precision == "fp32"
    if wide:
        said.append("precision=bf16 halves activations" + (_in_all(need, 0.5) if need else ""))
    return ". ".join(said) + "."


def _cuts(
    training: TrainingSettings, processes: int, check: Callable[[TrainingSettings, int], None]
) -> list[tuple[int, int]]:
    """The values of training.accumulate above the present one that can be run, each with the size of its slices."""
    found = []
    for cut in range(training.accumulate + 1, training.batch_size // processes + 1):
        with suppress(InputError):  # a cut that does not divide the batch, or not into whole groups
            smaller = replace(training, accumulate=cut)
            check(smaller, processes)
            found.append((cut, smaller.slice_size(processes)))
    return found


def _without_cuts(
    training: TrainingSettings, rows: int, cuts: Sequence[tuple[int, int]], need: Need | None
) -> list[str]:
    """What to do where no slices that can be run fit."""
    shorter = "choose shorter sequences (data.max_length or the domain's own key) or a smaller model"
    whole = f"training.batch_size={training.batch_size} cannot be cut further"
    if need is None:
        return [f"{whole}: {shorter}"]
    if need.share <= 0:
        return [
            "The networks alone take all the memory, so no batch fits: choose a smaller model, or more processes with "
            "parallel=shard"
        ]
    cut, size = cuts[-1] if cuts else (training.accumulate, rows)
    share = need.share * rows / size  # of the tokens of the smallest slice
    first = f"Set training.accumulate={cut}, which is not enough alone" if cuts else whole
    said = [f"{first}: {shorter}. By the estimate sequences of {share:.0%} of the present length fit"]
    if not training.activation_checkpointing:
        said.append("training.activation_checkpointing=true keeps only the inputs of blocks")
    return said


def _in_all(need: Need, share: float) -> str:
    """What a share of the slice takes with the networks, and whether that fits."""
    return f": some {_gib(need.of_share(share))} in all, which {'fits' if need.fits(share) else 'does not fit alone'}"


def _gib(size: int) -> str:
    """``1.25 GiB``, and megabytes below a tenth of one."""
    return f"{size / GIB:.2f} GiB" if size >= GIB // 10 else f"{size / (1 << 20):.3g} MiB"
