"""Run by several processes: trainings of the toy domain, sharded and replicated, and what goes wrong in one of them.

python tests/sharded_run.py MODE PARALLEL, or kept FAULT FOLDER; a process prints what it found as its last line on
stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from memory_keeper import Memory
from torch import nn

from didi_core import processes as runtime
from didi_core.cli import guarded
from didi_core.commands.common import make_domain
from didi_core.device import Machine
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.experts import ExpertsConfig
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.models.masters import with_master_weights
from didi_core.models.noise import learning, with_noise
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import read_objective
from didi_core.processes import Processes
from didi_core.run import Run
from didi_core.streams import seeded
from didi_core.training import sharded_state, state
from didi_core.training.components import components, expected
from didi_core.training.engine import Engine
from didi_core.training.objective import Learner, Objective, Slice, Terms
from didi_core.training.optimiser import OptimiserSettings, local
from didi_core.training.outlines import is_outline, outlined
from didi_core.training.parallel import blocks_of
from didi_core.training.placement import chosen
from didi_core.training.settings import TrainingSettings
from didi_core.training.sharding import Sharded
from didi_core.training.state import FolderKeeper

KINDS: dict[str, dict[str, Any]] = {
    "didi": {"reference": "data", "baseline": {"group": 4}, "reward": [{"kind": "scorer", "warmup": 1}]},
    "idlm": {
        "anchor": {"kl": 0.1}, "rollout": {"calls": [1, 2, 4]}, "coupling": {"updates": 1, "states": {"samples": 16}}
    },
    "sdtt": {"round_updates": 2},
    "large": {},
}
EXPERTS = ExpertsConfig(count=8, chosen=2, width=8, shared=1, groups=2, chosen_groups=1, dense=1, scale=2.0)


def small_model(noise: int = 0) -> DiT:
    with seeded(0, "small"):
        made = DiT(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8, noise=noise), DOMAIN.vocabulary)
    return made.eval()


def large_model() -> Llama:
    """A network like LLaDA2's, whose first layer is as LLaDA's; in bf16, as the files are."""
    rows = DOMAIN.vocabulary.size + 2
    sizes = LlamaConfig(32, 2, 4, 2, 8, 48, rows, rows - 1, qk_norm=True, block=4, experts=EXPERTS)
    with seeded(0, "large"):
        return Llama(sizes, DOMAIN.vocabulary).to(torch.bfloat16).eval()


def trained(kind: str, parallel: str, here: Processes) -> tuple[list[dict[str, float]], list[float]]:
    """Scalars of four steps, and the weights at their end. What is sharded begins as outlines, as in ``distill``."""
    large = kind == "large"
    teacher = (large_model() if large else small_model()).requires_grad_(False)
    plain, names = type(teacher), [*teacher.state_dict()]
    run = Run(DOMAIN, Machine(torch.device("cpu"), "bf16" if large else "fp32"), processes=here)
    outline = outlined(teacher) if parallel == "shard" else None
    training = TrainingSettings(steps=4, batch_size=16, lr=1e-3, warmup=0, clip=0.5, ema=0.9, log_every=1, accumulate=2)
    first = kind == "idlm"
    noisy = with_noise(outline or teacher, 2 if first else 0, 0, teacher, first, first)
    student = with_master_weights(learning(noisy))

    def samples(num: int, steps: int) -> torch.Tensor:
        return torch.as_tensor(next(DOMAIN.batches("train", num, 0)))

    objective = read_objective({"kind": "idlm" if large else kind, **KINDS[kind]}, "distill").prepare(
        Materials(run, training, student, teacher, samples, outline=outline)
    )
    learners = [learner.network for learner in objective.learners()]
    assert all(map(is_outline, learners)) == (parallel == "shard")
    planned = [one.shard(here.size) for one in expected({"teacher": teacher}, objective.learners())]
    how, _ = chosen(parallel, run, objective.learners(), [teacher])
    assert not any(map(is_outline, learners))
    if parallel == "shard":
        whole, held = (sum(size(p).nbytes for n in learners for p in n.parameters()) for size in (nn.Identity(), local))
        assert held < 0.6 * whole  # the head of a scorer does not divide evenly
    keeper = Memory()
    engine = Engine(objective, run, training, keeper, "test", partial(run.stream, "test"), how)
    engine.train()
    if parallel == "shard":  # as planned, but for rows that do not divide evenly and AdamW's counts of its steps
        for one, other in zip(components({"teacher": teacher}, engine.trainees), planned, strict=True):
            assert abs(one.kept - other.kept) < 0.02 * other.kept + 4000, (one, other)
    engine.release()
    lines = [{k: v for k, v in scalars.items() if k != "seconds"} for _, scalars in keeper.lines]
    whole = how.whole(student)
    if isinstance(how, Sharded):
        assert type(whole) is plain and [*how.whole(teacher).state_dict()] == names
        how.close()
        assert not any(local(s).untyped_storage().nbytes() for unit in how.agreement.units for s in unit.shards)
    return lines, torch.cat([p.detach().flatten() for p in whole.parameters()]).tolist()


@dataclass
class Uneven(Objective[Any]):
    """Process ``rank`` makes rank + 1 calls with gradients and rank without, and process 0 no call of the head.

    fault: what happens to process 1 in the second step.
    """

    rank: int
    fault: str = ""
    network: DiT = field(default_factory=small_model)
    other: DiT = field(default_factory=small_model)

    def learners(self) -> list[Learner]:
        return [Learner("student", self.network.requires_grad_(True), OptimiserSettings(lr=1e-3), 0.9)]

    def batch(self, slice: Slice) -> torch.Tensor:
        with torch.no_grad():
            for _ in range(self.rank):
                self.other.trunk(torch.zeros(1, 3, dtype=torch.long))
                self.network.trunk(torch.zeros(1, 3, dtype=torch.long))
        return torch.randint(DOMAIN.vocabulary.size - 2, (2, 5), generator=slice.stream)

    def loss(self, learner: str, batch: torch.Tensor, slice: Slice) -> Terms:
        if self.rank == 1 and slice.step == 1:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.fault == "asked":
                os.kill(os.getpid(), signal.SIGTERM)
            if self.fault == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
        hidden = [self.network.trunk(batch) for _ in range(self.rank + 1)]
        loss = sum(one.square().mean() for one in hidden)
        if self.rank:
            loss = loss + self.network.head(hidden[0]).logsumexp(-1).mean()
        if self.rank == 1 and slice.step == 1 and self.fault == "nan":
            loss = loss * float("nan")
        return Terms(loss, {"loss": float(loss.detach())})


def uneven(parallel: str, here: Processes, fault: str = "") -> list[float]:
    """The weights after two steps of ``Uneven``."""
    run = Run(DOMAIN, processes=here)
    objective = Uneven(here.rank, fault)
    how, _ = chosen(parallel, run, objective.learners(), [objective.other.requires_grad_(False)])
    training = TrainingSettings(steps=3, batch_size=2 * here.size, warmup=0)
    Engine(objective, run, training, Memory(), "test", partial(run.stream, "test"), how).train()
    whole: nn.Module = how.whole(objective.network)
    assert len(blocks_of(whole)) == 2
    return torch.cat([p.detach().flatten() for p in whole.parameters()]).tolist()


def kept(folder: Path, fault: str, here: Processes) -> float:
    """How far the weights of a run with checkpoints are from those of one without; it goes on where it was killed.

    fault: ``shards``, process 1 is killed in its third checkpoint before its shards are written; ``manifest``, process
    0 in its second one after all shards are.
    """
    writes = list[str]()

    def killed(name: str, act: Callable[..., Any], *given: Any) -> Any:
        writes.append(name)
        if writes.count(name) == (3 if name == "shards" else 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*given)

    if fault == "manifest" and here.first:
        state.write_json = partial(killed, fault, state.write_json)
    if fault == "shards" and not here.first:
        write = sharded_state.FileSystemWriter.write_data
        sharded_state.FileSystemWriter.write_data = lambda *given: killed(fault, write, *given)
    run, ended = Run(DOMAIN, processes=here), list[torch.Tensor]()
    for keeper in (FolderKeeper(folder, run="r", processes=here), Memory()):
        objective = Uneven(here.rank)
        how, _ = chosen("shard", run, objective.learners(), [objective.other.requires_grad_(False)])
        training = TrainingSettings(steps=4, batch_size=2 * here.size, warmup=0, checkpoint_every=1)
        Engine(objective, run, training, keeper, "test", partial(run.stream, "test"), how).train()
        ended.append(torch.cat([p.detach().flatten() for p in how.whole(objective.network).parameters()]))
    return float((ended[0] - ended[1]).abs().max())


def apart(one: tuple[Any, list[float]], other: tuple[Any, list[float]]) -> dict[str, float]:
    """The largest differences of scalars and of weights."""
    pairs = [(a[name], b[name]) for a, b in zip(one[0], other[0], strict=True) for name in a]
    return {
        "scalars": max((abs(a - b) for a, b in pairs), default=0.0),
        "weights": max(abs(a - b) for a, b in zip(one[1], other[1], strict=True)),
        "compared": len(pairs) + len(one[1]),
    }


def act() -> None:
    mode, parallel, *more = sys.argv[1:]
    with runtime.joined() as here:
        if mode == "stopped":
            here.allow_silence(1.0)
        if mode == "kept":
            print(kept(Path(more[0]), parallel, here), file=sys.stderr)
        elif mode in KINDS:
            print(json.dumps(apart(*(trained(mode, how, here) for how in ("replicate", "shard")))), file=sys.stderr)
        else:
            first, second = (uneven(how, here, mode) for how in (parallel, "shard"))
            print(json.dumps(apart(({}, first), ({}, second))), file=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(1)
    DOMAIN = make_domain("toy", {})
    runtime.leave(guarded(act, ["distill"]))
