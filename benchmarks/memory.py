"""Peak memory of training by component, for each process: full and LoRA, in one process or several, and as planned.

    python benchmarks/memory.py --out memory.json
    python benchmarks/memory.py --out memory.json --processes 1 2 4 -- parallel=shard
    python benchmarks/memory.py --out memory.json --ways full --objectives didi -- precision=bf16

Every row is two fresh runs of ``distill`` on a random teacher of ``--hidden`` and ``--layers``: its plan
(``dry_run=true``), and the run itself, in which the tensors that torch makes and frees are counted one by one. The peak
is that of the whole process, from the moment when the teacher is there to the end of training; *set-up* and *after* are
its peaks until training begins, and from its end to that of the command. Several processes are started by torchrun and
talk by gloo; the row is that of the largest. The file is rewritten after every row.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from didi_core import cli
from didi_core.checkpoints.card import save_model
from didi_core.commands import distill
from didi_core.commands.common import about_domain
from didi_core.evaluation.wording import percent
from didi_core.models.dit import DiT, DiTConfig
from didi_core.plugins import registry
from didi_core.processes import leave
from didi_core.training import engine as engine_module
from didi_core.training.engine import Engine
from didi_core.training.planning import Plan, Resident, forget_peak

MIB = 1 << 20
WAYS = {"full": [], "lora": ["adapter=lora"]}
FEW_STATES = ["objective.states.samples=8", "objective.states.steps=2"]
OBJECTIVES = {  # a reference of few samples, and a warm-up of one step
    "didi": ["objective.reference_samples=8", "objective.reference_steps=2", "objective.critic.warmup=1"],
    "few_calls": ["objective.rollout.calls=[2]", "objective.rollout.complete=true"],  # the most that it learns from
    "dmmd": FEW_STATES,
    "cross_entropy": FEW_STATES,
}
PARTS = ("weights", "gradients", "moments", "averages", "activations", "rest", "peak", "set-up", "after")


@dataclass(frozen=True)
class Row:
    """One measurement: MiB of each part, of the process with the largest peak. networks: weights of each, measured."""

    objective: str
    way: str
    processes: int
    settings: Sequence[str]
    measured: dict[str, float] = field(default_factory=dict)
    planned: dict[str, float] = field(default_factory=dict)
    networks: dict[str, float] = field(default_factory=dict)


class Live(TorchDispatchMode):
    """Bytes of the tensors that torch made inside: alive now, and at most.

    There is a state of the allocator on a GPU for this, and none on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = set[int]()
        for storage in map(storage_of, tensors_alive()):
            self.known.add(storage._cdata)
            weakref.finalize(storage, self.known.discard, storage._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.count(storage_of(leaf))
        return made

    def count(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed; not one that was there, which a view or an operation in place gives."""
        key, size = storage._cdata, storage.nbytes()
        if size and key not in self.known:
            self.known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def storage_of(tensor: Tensor) -> torch.UntypedStorage:
    """Where the numbers of a tensor lie; of a sharded one, this process's."""
    return getattr(tensor, "_local_tensor", tensor).untyped_storage()


def tensors_alive() -> list[Tensor]:
    return [found for found in gc.get_objects() if issubclass(type(found), Tensor)]  # it asks no deprecated object


def bytes_of(tensors: Iterable[Tensor | None], seen: set[int]) -> int:
    """Bytes of tensors whose storage was not seen before."""
    total = 0
    for tensor in tensors:
        if tensor is not None and storage_of(tensor)._cdata not in seen:
            seen.add(storage_of(tensor)._cdata)
            total += storage_of(tensor).nbytes()
    return total


def parts(engine: Engine, teacher: Module, live: Live, before: int, gradients: int) -> dict[str, dict[str, float]]:
    """What a process held at its peak.

    Args:
        before: bytes of networks and averages when counting began. gradients: the most at the end of an update.
    """
    seen, trainees = set[int](), engine.trainees
    states = (state for one in trainees for state in one.optimiser.state.values())
    networks = {"teacher": bytes_of(teacher.parameters(), seen)}
    networks |= {one.learner.name: bytes_of(one.learner.network.parameters(), seen) for one in trainees}
    found = {
        "weights": sum(networks.values()),
        "gradients": gradients,
        "moments": bytes_of((v for state in states for v in state.values() if isinstance(v, Tensor)), seen),
        "averages": bytes_of((v for one in trainees if one.ema for v in one.ema.shadow.values()), seen),
    }
    tensors, peak = before + live.most, Resident.read().most
    found |= {"activations": tensors - sum(found.values()), "rest": peak - tensors, "peak": peak}
    return {"measured": in_mib(found), "networks": in_mib(networks)}


def in_plan(plan: Plan) -> dict[str, float]:
    names = {"weights": "weights", "moments": "optimiser", "averages": "ema"}
    found = {name: sum(getattr(one, key) for one in plan.components) for name, key in names.items()}
    found |= {"gradients": plan.gradients, "activations": plan.activations}
    return in_mib({**found, "rest": plan.process, "peak": plan.peak})


def in_mib(sizes: dict[str, int]) -> dict[str, float]:
    return {name: round(size / MIB, 1) for name, size in sizes.items()}


def measure(words: Sequence[str], out: Path) -> int:
    """Run a command line in this process, and write what it held; returns its exit code."""
    held, found, gradients = list[Module](), dict[str, Any](), [0]
    make, train, apply = distill.make_student, Engine.train, engine_module.apply_gradients
    prepare = distill.materials

    def begun(settings: distill.Settings, *given: Any) -> Any:
        forget_peak(torch.device("cpu"))
        return make(settings, *given)

    def noted(settings: distill.Settings, about: Any, teacher: Any, student: Any) -> Any:
        held.append(teacher)
        return prepare(settings, about, teacher, student)

    def counted(engine: Engine) -> Any:
        (teacher,), seen = held, set[int]()
        learners = [tensor for one in engine.trainees for tensor in one.learner.network.parameters()]
        averages = [tensor for one in engine.trainees if one.ema for tensor in one.ema.shadow.values()]
        before, set_up = bytes_of([*teacher.parameters(), *learners, *averages], seen), Resident.read().most

        def applied(*given: Any) -> float:
            gradients.append(bytes_of((p.grad for one in engine.trainees for p in one.parameters), set()))
            return apply(*given)

        engine_module.apply_gradients = applied
        with Live() as live:
            made = train(engine)
        found.update(parts(engine, teacher, live, before, max(gradients)))
        found["measured"] |= in_mib({"set-up": set_up})
        forget_peak(torch.device("cpu"))
        return made

    if "dry_run=true" in words:
        distill.print_plan = lambda plan: found.update(planned=in_plan(plan))  # type: ignore[assignment]
    else:
        distill.make_student, distill.materials, Engine.train = begun, noted, counted  # type: ignore[method-assign]
    code = cli.main(["distill", *words])
    if "measured" in found:
        found["measured"] |= in_mib({"after": Resident.read().most})
    out.with_suffix(f".{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))
    return code


def fresh(words: Sequence[str], processes: int, folder: Path) -> dict[str, Any]:
    """What the largest process of a fresh run held."""
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    out = folder / f"found_{len(list(folder.iterdir()))}"
    done = subprocess.run(
        [sys.executable, *start, __file__, "--measure", "--out", str(out), "--", *words],
        env={"OMP_NUM_THREADS": "1", **os.environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    found = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{out.name}.*.json"))]
    return max(found, key=lambda one: (one.get("measured") or one["planned"])["peak"])


def make_teacher(folder: Path, hidden: int, layers: int) -> Path:
    """A network of random weights: memory does not depend on them."""
    domain = registry().domain("toy", {})
    torch.manual_seed(0)
    network = DiT(DiTConfig(hidden, layers, max(hidden // 64, 1), 128), domain.vocabulary)
    save_model(folder / "model", network, about_domain(domain, {}))
    return folder


def words_of(row: Row, teacher: Path, batch: int) -> list[str]:
    small = ["training.steps=3", f"training.batch_size={batch}", "evaluate.enabled=false", "device=cpu"]
    group = [f"objective.baseline.group={batch // row.processes}"] if row.objective == "didi" else []
    made = [f"objective={row.objective}", *OBJECTIVES[row.objective], *group, *WAYS[row.way]]
    return ["domain=toy", f"teacher={teacher}", *made, *small, *row.settings]


def filled(row: Row, words: Sequence[str], folder: Path) -> Row:
    """The row with both measurements."""
    run = partial(fresh, processes=row.processes, folder=folder)
    place = folder / f"run_{row.objective}_{row.way}_{row.processes}"
    made = {**run([*words, f"run_dir={place}"]), **run([*words, "dry_run=true"])}
    return Row(row.objective, row.way, row.processes, row.settings, **made)


def table(rows: Sequence[Row]) -> str:
    """In Markdown, MiB; of the plan the peak, and how far it is from the measured one."""
    lines = [f"| objective | | processes | {' | '.join(PARTS)} | planned | off |", f"|{'---|' * (len(PARTS) + 5)}"]
    for row in rows:
        cells = [row.objective, row.way, str(row.processes), *(f"{row.measured[part]:,.0f}" for part in PARTS)]
        planned = row.planned["peak"]
        cells += [f"{planned:,.0f}", percent(planned / row.measured["peak"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4, help="sequences of an update, over all processes")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=[*OBJECTIVES])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--processes", nargs="+", type=int, default=[1])
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)  # in the process to be measured
    parser.add_argument("settings", nargs="*", help="further settings of distill, key=value")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    asked = arguments(argv)
    if asked.measure:
        return measure(asked.settings, asked.out)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        teacher = make_teacher(Path(place, "teacher"), asked.hidden, asked.layers)
        for objective in asked.objectives:
            for way in asked.ways:
                for processes in asked.processes:
                    row = Row(objective, way, processes, asked.settings)
                    rows.append(filled(row, words_of(row, teacher, asked.batch), Path(place)))
                    record = {"hidden": asked.hidden, "layers": asked.layers, "batch": asked.batch}
                    asked.out.write_text(json.dumps({**record, "rows": [asdict(one) for one in rows]}, indent=1) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    leave(main())
