"""What a run will hold, computed from sizes: for teachers that are too large to try.

Networks are on the meta device, so nothing of them is in memory. How many positions keep their activations at once is
counted on a small network of as many layers, in the objective itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from torch import nn

from didi_core.diffusion.heads import CLOSED_ELEMENTS, DEVICE_SHARE
from didi_core.models.adapter import is_adapted
from didi_core.models.llama import Llama, LlamaConfig, saved_bytes
from didi_core.run import Run
from didi_core.training.components import Component, expected, in_gib, largest_gradients
from didi_core.training.objective import Learner, Objective, Slice, networks_of
from didi_core.training.placement import gathered
from didi_core.training.planning import GRADIENTS, memory_table

SMALL = 8  # width of the network on which positions are counted
LOGITS = 7  # arrays of a chunk's logits that are held at once: three networks, each twice, and one between
GPUS = (24, 40, 48, 80, 96, 141, 180)  # GB of one accelerator
SPARE = 0.9  # of a GPU's memory that a run can count on: the rest is fragments, kernels and the CUDA context


@dataclass(frozen=True)
class Sized:
    """The plan of one process. activations: bytes that the largest backward pass needs. logits: of the head's chunks,
    with gradients, on the smallest accelerator. setting_up: bytes beside the networks while they are made: a copy of
    the teacher, or the part of it that is not kept. positions: of one slice of a step. shards: processes that share the
    networks. gathered: bytes that a process gathers of them.
    """

    components: tuple[Component, ...]
    activations: int
    logits: int
    setting_up: int
    rows: int
    positions: int
    shards: int = 1
    gathered: int = 0

    @property
    def networks(self) -> int:
        return sum(one.kept for one in self.components) + self.gradients

    @property
    def gradients(self) -> int:
        return largest_gradients(self.components)

    @property
    def peak(self) -> int:
        """Bytes at the worst moment."""
        return self.networks + max(self.gathered + self.activations + self.logits, self.setting_up)

    def fits(self, gigabytes: int) -> bool:
        """Whether it fits into one accelerator of so many GB."""
        size = gigabytes * 10**9
        logits = max(self.logits, LOGITS * size // DEVICE_SHARE)  # chunks grow with the accelerator
        return self.peak - self.logits + logits <= SPARE * size


def shrunk(config: LlamaConfig) -> LlamaConfig:
    """A narrow network of as many layers, with the same vocabulary."""
    return replace(config, hidden=SMALL, intermediate=SMALL, heads=1, kv_heads=1, head_width=SMALL, experts=None)


def graph_layers(objective: Objective[Any], run: Run, slice: Slice) -> int:
    """Positions times layers that keep their activations in the largest backward pass of a slice.

    Args:
        objective: of networks that are ``Llama``, small enough to run.
    """
    most, learners = 0, objective.learners()
    for learner in learners:
        slice.stream.manual_seed(run.seed)
        with _counted(networks_of(learners)) as counts, run.autocast():
            with torch.set_grad_enabled(learner is learners[-1]):
                batch = objective.batch(slice)
            with torch.enable_grad():
                objective.loss(learner.name, batch, slice)
        most = max(most, sum(counts))
    return most


@contextmanager
def _counted(networks: Sequence[nn.Module]) -> Iterator[list[int]]:
    """Positions of every call of a layer that autograd follows."""
    counts: list[int] = []

    def note(norm: nn.Module, given: Any, made: torch.Tensor) -> None:
        if made.requires_grad:
            counts.append(made.shape[0])

    parts = [part for network in networks for part in network.modules() if isinstance(part, Llama)]
    norms = [layer.post_attention_layernorm for part in parts for layer in part.model.layers]
    hooks = [norm.register_forward_hook(note) for norm in norms]  # type: ignore[union-attr]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def sized(
    teacher: Llama, learners: Sequence[Learner], layers: int, rows: int, positions: int, shards: int = 1
) -> Sized:
    """The plan of a run.

    Args:
        teacher, learners: on the meta device, in the types in which they will be.
        layers: positions times layers with activations, of a slice. rows, positions: of a slice.
        shards: processes that share the networks; 1 where each holds all of them.
    """
    in_half = all(p.dtype != torch.float32 for p in teacher.parameters())
    adapted = in_half and any(is_adapted(learner.network) for learner in learners)
    halves = 0 if adapted else sum(p.numel() for p in learners[-1].network.parameters()) * 2
    whole = expected({"teacher": teacher}, learners)
    made = tuple(one.shard(shards) for one in whole)
    plan = Sized(
        made,
        layers * saved_bytes(teacher.config, adapted) + halves,
        LOGITS * CLOSED_ELEMENTS * 4,
        whole[0].weights,
        rows,
        positions,
        shards,
    )
    if shards == 1:
        return plan
    together = gathered([teacher, *networks_of(learners)])
    return replace(plan, gathered=together, setting_up=max(whole[0].weights - plan.networks, 0))


def print_sized(plan: Sized, teacher: str, console: Console | None = None) -> None:
    """A table of memory by network, and the smallest accelerator that is large enough. teacher: its name."""
    console = console or Console(markup=False)
    where = f", each of {plan.shards} processes" if plan.shards > 1 else ""
    memory = memory_table(f"memory in GiB, computed ({teacher}, bf16{where})", plan.components)
    memory.add_section()
    for name, size in (
        (GRADIENTS, plan.gradients),
        ("gathered", plan.gathered),
        ("layers", plan.activations),
        ("logits", plan.logits),
        ("at start", plan.setting_up),
    ):
        memory.add_row(name, *[""] * 5, in_gib(size))
    memory.add_row("peak", *[""] * 5, in_gib(plan.peak), style="bold")
    console.print(memory)
    enough = next((size for size in GPUS if plan.fits(size)), None)
    each = "one accelerator" if plan.shards == 1 else f"{plan.shards} accelerators"
    more = f"{each} of {enough} GB" if enough else f"none of {GPUS[-1]} GB or less: cut the batch, or adapt"
    start = "there is a copy of the teacher" if plan.shards == 1 else "the teacher is whole"
    console.print(
        f"Needs {more}. Layers and logits are activations of a slice of {plan.rows} sequences of "
        f"{plan.positions // plan.rows} tokens, which training.accumulate cuts; at the start, while networks are made, "
        f"{start} instead. Computed from config.json: nothing was loaded, timed or written."
    )
