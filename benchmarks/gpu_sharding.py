"""Sharded training on a GPU in a group of one process: the check ``shard`` of ``gpu_checks.py``.

One process cannot show that processes agree. It shows what a CPU cannot: that NCCL, FSDP's streams and the files of
torch.distributed.checkpoint work with networks on this card.
"""

from __future__ import annotations

import copy
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from didi_core.commands.compose import compose_jobs
from didi_core.device import Machine
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import read_objective
from didi_core.processes import Processes
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.parallel import Parallel, Replicated
from didi_core.training.settings import TrainingSettings
from didi_core.training.sharding import Sharded, all_gather, reduce_scatter
from didi_core.training.state import FolderKeeper
from didi_protein.domain import ProteinDomain

STEPS, TOLERANCE = 2, 1e-4
Outcome = tuple[list[dict[str, float]], Tensor]


def check(device: str, quick: bool, work: Path) -> dict[str, Any]:
    """Two updates of the bundled protein teacher's default recipe, replicated, sharded, and read again from shards."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):  # a lent machine may not know its own name
        os.environ.setdefault(name, "lo")
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(place)
        torch.use_deterministic_algorithms(True, warn_only=True)  # AdamW's first updates make signs of rounding errors
        torch.utils.deterministic.fill_uninitialized_memory = False
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"  # as didi_core.processes has it
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # the kind that torchrun has
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        here = Processes(0, 1, dist.new_group(backend="gloo"))
        batch = 4 if quick else 16
        shutil.rmtree(work, ignore_errors=True)
        plain = _trained(place, batch, here, False, work / "plain")
        shards = _trained(place, batch, here, True, work / "sharded")
        again = _trained(place, batch, here, True, work / "sharded")  # finds the checkpoint after the last step
        files = sorted(path.name for path in (work / "sharded").rglob("*.distcp"))
        collectives = _collectives(place)
    finally:
        dist.destroy_process_group()
    apart = {name: max(abs(one[name] - other[name]) for one, other in zip(plain[0], shards[0], strict=True))
             for name in plain[0][0]}  # fmt: skip
    weights = _largest(plain[1], shards[1])
    kept = torch.equal(shards[1], again[1])
    size = max(abs(value) for line in plain[0] for value in line.values())
    close = max(apart.values()) <= TOLERANCE * max(1.0, size) and weights <= TOLERANCE
    return {
        "ok": bool(close and kept and files and not again[0] and all(collectives.values())),
        "backend": backend,
        "scalars, replicated": plain[0],
        "largest difference of each scalar, sharded": apart,
        "largest difference of a weight": weights,
        "weights read from shards are the same": kept,
        "files of shards": files,
        "collectives": collectives,
    }


def _trained(place: torch.device, batch: int, here: Processes, sharded: bool, folder: Path) -> Outcome:
    """Scalars of the steps that were made, and the weights at the end; goes on after a checkpoint in the folder."""
    domain = ProteinDomain()
    teacher = domain.teacher().to(place).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    rules = read_objective(compose_jobs("distill", ["domain=protein"])[0].config["objective"], "distill")
    run = Run(domain, Machine(place, "fp32"), processes=here)
    training = TrainingSettings(steps=STEPS, batch_size=batch, lr=1e-5, warmup=0, log_every=1)
    template = domain.template(domain.lengths(batch, generator(0, "lengths")))
    drawn = torch.randint(4, 24, template.shape, generator=generator(0, "residues"))
    samples = torch.where(template == domain.vocabulary.mask, drawn, template)
    objective = rules.prepare(Materials(run, training, student, teacher, lambda num, steps: samples))
    how: Parallel = Replicated(here)
    if sharded:
        how = Sharded(here, torch.device(place.type))
        how.place(teacher)
    lines: list[dict[str, float]] = []
    folder.mkdir(parents=True, exist_ok=True)
    keeper = FolderKeeper(folder, processes=here, listener=lambda step, scalars: lines.append(dict(scalars)))
    Engine(objective, run, training, keeper, "check", partial(run.stream, "check"), how).train()
    for line in lines:
        line.pop("seconds", None)
    whole = how.whole(student)
    return lines, torch.cat([p.detach().flatten().cpu() for p in whole.parameters()])


def _collectives(place: torch.device) -> dict[str, bool]:
    """The operations that a group of one process may skip, called by name."""
    values = torch.arange(8.0, device=place)
    gathered, summed, reduced = torch.zeros(8, device=place), torch.zeros(8, device=place), values.clone()
    all_gather(gathered, values)
    reduce_scatter(summed, values)
    dist.all_reduce(reduced)
    found = {"all_gather": gathered, "reduce_scatter": summed, "all_reduce": reduced}
    return {name: bool(torch.equal(value, values)) for name, value in found.items()}


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
