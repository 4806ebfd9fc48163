"""Which way the processes of a training share its networks, by what fits, and the networks placed in that way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from didi_core.run import Run
from didi_core.training.components import GIB, expected, largest_gradients
from didi_core.training.objective import Learner, networks_of
from didi_core.training.parallel import AUTO, REPLICATE, SHARD, Parallel, Replicated, blocks_of

MEMORY_SHARE = 0.7  # share of a process's memory that networks, gradients and AdamW may take; activations need the rest


@dataclass(frozen=True)
class Needs:
    """Bytes of weights, gradients, AdamW and averages that one process holds in a step, either way."""

    replicate: int
    shard: int

    @classmethod
    def of(cls, learners: Sequence[Learner], frozen: Sequence[nn.Module], size: int) -> Needs:
        """Of these networks in so many processes. Gradients are those of the largest learner: one learns at a time."""
        parts = expected({str(number): network for number, network in enumerate(frozen)}, learners)
        together = sum(one.kept for one in parts) + largest_gradients(parts)
        return cls(together, together // size + gathered([*frozen, *networks_of(learners)]))


def gathered(networks: Sequence[nn.Module]) -> int:
    """Bytes that a process gathers of sharded networks at one time: all outside of their blocks for a phase, with the
    gradients of one of them, and a block with its own."""
    networks = list(dict.fromkeys(networks))
    outside = [_bytes(n) - sum(map(_bytes, blocks_of(n))) for n in networks]
    block = max((_bytes(block) for n in networks for block in blocks_of(n)), default=0)
    return sum(outside) + max(outside) + 2 * block


def shared(learners: Sequence[Learner], frozen: Sequence[nn.Module]) -> bool:
    """Whether two networks have a parameter in common, as adapters have."""
    ids = [id(p) for network in [*frozen, *networks_of(learners)] for p in network.parameters()]
    return len({*ids}) < len(ids)


def _bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def chosen(wanted: str, run: Run, learners: Sequence[Learner], frozen: Sequence[nn.Module]) -> tuple[Parallel, str]:
    """What the key ``parallel`` asks for, or what fits where it is ``auto``. All networks are placed.

    Returns:
        it, and the reason.
    """
    processes = run.processes
    if processes.size == 1:
        return _placed(Replicated(processes), learners, frozen), "one process"
    if wanted == AUTO and shared(learners, frozen):
        wanted, reason = REPLICATE, "auto: networks share weights"
    elif wanted == AUTO:
        has = memory(run.device)
        needs = Needs.of(learners, frozen, processes.size)
        wanted = SHARD if needs.replicate > MEMORY_SHARE * has >= needs.shard else REPLICATE
        reason = (
            f"auto: weights, gradients, AdamW and averages take {needs.replicate / GIB:.2f} GiB a process replicated "
            f"and {needs.shard / GIB:.2f} sharded, of {has / GIB:.1f}"
        )
    else:
        reason = "asked for"
    if wanted == REPLICATE:
        return _placed(Replicated(processes), learners, frozen), reason
    from didi_core.training.sharding import Sharded  # torch.distributed takes a second to import

    return _placed(Sharded(processes, run.device), learners, frozen), reason


def _placed(how: Parallel, learners: Sequence[Learner], frozen: Sequence[nn.Module]) -> Parallel:
    """The frozen networks first, so that outlines are filled from parts of them."""
    for network in frozen:
        how.place(network)
    for network in networks_of(learners):
        how.place(network, frozen)
    return how


def outlines(wanted: str, run: Run) -> bool:
    """Whether copies of the teacher are outlines until ``chosen`` has them placed: they may be sharded."""
    return run.processes.size > 1 and wanted != REPLICATE


def memory(device: torch.device) -> int:
    """Bytes that one process may use: of its GPU, or its share of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // here
