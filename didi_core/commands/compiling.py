"""The key ``compile``: whether blocks run compiled, by which rule, and what the record says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch import nn

from didi_core.checkpoints.card import architecture_of
from didi_core.errors import InputError
from didi_core.models.compiled import Compilation, compiling, try_on
from didi_core.models.dit import DiT
from didi_core.models.graphs import Graphs, replaying
from didi_core.run import Run
from didi_core.storage.run_dir import RunDirectory
from didi_core.training.parallel import REPLICATE, SHARD
from didi_core.training.settings import TrainingSettings

PAYS = 200_000  # calls of a block: compiling takes a minute, and then saves 0.3 ms or more of each on a GPU
SHORT = 600.0  # seconds of training for which it is not worth a minute
GRAPHS = "graphs"
DISTILLED, PRETRAINED = 20, 3  # calls of a network in an update of each command; a backward pass counts as two


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """The key of commands that run networks.

    compile: whether transformer blocks run compiled by torch.compile. ``auto``: on CUDA, for runs long enough to pay.
        ``graphs``: they do not, and calls of small networks without gradients are replayed as CUDA graphs.
    """

    compile: bool | Literal["auto", "graphs"] = "auto"


def check_compile(wanted: bool | str, parallel: str, training: TrainingSettings) -> None:
    """Raise InputError where blocks are to be compiled that run in another way."""
    for key, given in (
        (f"parallel={SHARD}", parallel == SHARD),
        ("training.activation_checkpointing=true", training.activation_checkpointing),
    ):
        if wanted is True and given:
            raise InputError(f"compile=true and {key} cannot be used together: leave one of them out.")
    if wanted == GRAPHS and parallel == SHARD:
        raise InputError(f"compile={GRAPHS} and parallel={SHARD} cannot be used together: leave one of them out.")


@dataclass(frozen=True)
class Blocks:
    """How the blocks of a command's networks run.

    compilation: None where they run as they are. reason: why. graphs: the recorded calls; None without CUDA graphs.
    """

    run: Run
    network: nn.Module
    compilation: Compilation | None
    reason: str
    graphs: Graphs | None = None

    @classmethod
    def of(
        cls,
        wanted: bool | str,
        run: Run,
        network: nn.Module,
        calls: int,
        seconds: float = 0.0,
        parallel: str = REPLICATE,
    ) -> Blocks:
        """Decide by the rule of ``compile=auto``, or as asked.

        Args:
            network: the one that runs most, which compilation is tried on.
            calls: of the network, expected in the whole command.
            seconds: limit of the time in training; 0 for none.
            parallel: what is asked of several processes. Sharded blocks run as they are.

        Raises:
            InputError: asked for, and the network has no blocks that can be compiled or replayed, or not here.
        """
        if wanted == GRAPHS:
            return cls(run, network, None, "asked for", _graphs_for(run, network))
        name = architecture_of(network)
        if name is None:
            if wanted is True:
                raise InputError(
                    f"compile=true: a {type(network).__name__} has no blocks that can be compiled. Leave compile out."
                )
            return cls(run, network, None, f"a {type(network).__name__} has no blocks that can be compiled")
        if wanted is not True:
            why_not = "asked for" if wanted is False else _too_little(run, calls * len(network.blocks), seconds)  # type: ignore[arg-type]
            if not why_not and parallel == SHARD and run.processes.size > 1:
                why_not = "auto: networks are sharded"
            if why_not:
                return cls(run, network, None, why_not)
        return cls(run, network, Compilation(), "asked for" if wanted is True else "auto: long enough to pay")

    @property
    def label(self) -> str:
        """What ran so far, for a record."""
        if self.graphs is not None:
            return _told(self.graphs)
        if self.compilation is None:
            return f"off ({self.reason})"
        return f"off (failed: {self.compilation.problem})" if self.compilation.problem else f"on ({self.reason})"

    @property
    def compiled(self) -> bool:
        """Whether blocks run compiled."""
        return self.compilation is not None and not self.compilation.problem

    @property
    def recorded(self) -> dict[str, bool]:
        """How the network ran, for a sample's record: empty where it ran as it is."""
        replayed = self.graphs is not None and bool(self.graphs.counts["replayed"])
        return ({"compiled": True} if self.compiled else {}) | ({"graphs": True} if replayed else {})

    @contextmanager
    def running(self, opened: RunDirectory | None = None) -> Iterator[None]:
        """Within, blocks run so, and the run's record says it. Compilation is tried first, in the run's precision."""
        if self.compilation is not None:
            self.run.reporter.message("compiling the blocks (compile=false leaves it out)")
            with self.run.autocast():
                try_on(self.compilation, self.network, self.run.machine.dtype)
        try:
            self.note(opened)
            with compiling(self.compilation), replaying(self.graphs):
                yield
        finally:
            self.note(opened)

    def stop(self, parallel: str, training: TrainingSettings) -> None:
        """Go on without, where ``compile=auto`` has chosen it and blocks are gathered or computed twice.

        CUDA graphs end where weights are gathered, whose addresses they would read.
        """
        if self.graphs is not None and parallel == SHARD:
            self.graphs.give_up("networks are sharded")
        if self.compiled and self.compilation is not None and (parallel == SHARD or training.activation_checkpointing):
            self.compilation.give_up("networks are sharded, or activations are recomputed")

    def note(self, opened: RunDirectory | None) -> None:
        """Put into the run's record what ran so far."""
        if opened is not None:
            opened.note(compile=self.label)


def _graphs_for(run: Run, network: nn.Module) -> Graphs:
    """Graphs of a network's calls. Raises InputError where there can be none."""
    graphs = Graphs()
    if run.device.type != graphs.kind:
        raise InputError(f"compile={GRAPHS} needs a CUDA device, and this is {run.device.type}. Leave compile out.")
    if not isinstance(network, DiT):
        raise InputError(f"compile={GRAPHS}: a {type(network).__name__} cannot be replayed. Leave compile out.")
    return graphs


def _told(graphs: Graphs) -> str:
    if graphs.problem:
        return f"off (CUDA graphs failed: {graphs.problem})"
    made, replayed, plain = (f"{graphs.counts[name]:,}" for name in ("made", "replayed", "plain"))
    return f"CUDA graphs (asked for): {made} made, {replayed} calls replayed, {plain} as they are"


def _too_little(run: Run, calls: int, seconds: float) -> str:
    """Why ``auto`` does not compile; '' if it does."""
    if run.device.type != "cuda":
        return f"auto: on {run.device.type}"
    if 0 < seconds < SHORT:
        return f"auto: training.seconds={seconds:g} is below {SHORT:g}"
    return f"auto: some {calls:,} calls of a block, fewer than {PAYS:,}" if calls < PAYS else ""


def training_calls(training: TrainingSettings, each: int) -> int:
    """Calls of a network in a whole training, with so many in an update of a slice."""
    return training.steps * training.accumulate * each


def sampling_calls(num: int, batch_size: int, steps: int) -> int:
    """Calls for so many samples."""
    return -(-num // batch_size) * steps
