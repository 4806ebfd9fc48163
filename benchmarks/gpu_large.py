"""LLaDA-8B with adapters on one GPU: what a distillation holds beside its plan, and what its stages take.

    python benchmarks/gpu_large.py --out FILE [--device cuda] [--seconds 110] [--folder FOLDER] [--quick]

A folder in LLaDA-8B-Instruct's layout is written with random weights, on which neither time nor memory depends. On it
runs ``distill ... adapter=lora`` with the default objective, first as ``dry_run=true``, then for a few updates. What
follows uses the networks of that run: a forward pass, sampling, and, while ``--seconds`` last, another objective and
twice the batch. Every attempt is by itself, and the file is rewritten after every row. ``--folder`` is for teacher and
run, 34 GB in all: ``/dev/shm`` where it has the room. ``--quick``: a tiny network.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_large_files import EIGHT, TINY, Sizes, write_prompts, write_teacher, write_tokenizer
from gpu_large_watch import Span, Watch
from gpu_table import Table

from didi_core.commands import distill
from didi_core.commands.common import make_domain, make_run
from didi_core.commands.compose import compose_jobs
from didi_core.config import build
from didi_core.device import Machine, autocast
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.training.components import GIB, Component
from didi_core.training.planning import forget_peak
from didi_core.training.sizing import Sized

ROOM = 40e9  # bytes of teacher and student in files, and some more
SHARED = Path("/dev/shm")  # noqa: S108  # memory as a file system
OTHER_OBJECTIVE, LARGER_BATCH = 20.0, 20.0  # seconds that must be left for these


@dataclass
class Session:
    """Where the files are, what is asked for, and the clock."""

    table: Table
    folder: Path
    sizes: Sizes
    ends: float
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.table.device, self.show_span)

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def show_span(self, name: str, span: Span) -> None:
        """Time and peaks of a stage of the run."""
        table, spans = self.table, self.watch.spans
        before, beside, peak = expected(self.watch.made.get("plan"))
        if name == "describe":
            table.add("load_teacher, then to the device", span.began - spans["load_teacher"][-1].ended, "s")
        label = f"{name} {len(spans[name])}" if name == "step" else name
        table.add(label, span.seconds, "s")
        if table.cuda and name not in ("load_teacher", "describe", "note_machine"):
            table.add(f"{label}: in use before", span.before / GIB, "GiB", before.get(label, ""))
            table.add(f"{label}: beside these", (span.peak - span.before) / GIB, "GiB", beside.get(label, ""))
            table.add(f"{label}: peak in use", span.peak / GIB, "GiB", peak.get(label, ""))
            table.add(f"{label}: peak reserved", span.reserved / GIB, "GiB")

    @property
    def rows(self) -> int:
        return 2 if self.table.quick else 8

    @property
    def length(self) -> int:
        return 48 if self.table.quick else 512

    def words(self, *more: str) -> list[str]:
        """The command line of ``distill``, without its name."""
        places = [f"teacher={self.folder / 'teacher'}", f"data.tokenizer={self.folder / 'tokenizer'}"]
        data = [f"data.prompts={self.folder / 'prompts.jsonl'}", f"data.length={self.length}"]
        training = [f"training.batch_size={self.rows}", "training.steps=3", "training.warmup=1"]
        machine = [f"device={self.table.device.type}", "precision=bf16", f"run_dir={self.folder / 'run'}"]
        return ["domain=language", *places, *data, "adapter=lora", "evaluate.enabled=false", *training, *machine, *more]

    def settings(self, *more: str) -> tuple[distill.Settings, dict[str, Any]]:
        """The settings of ``words``, and the plain configuration they are made of."""
        (job,) = compose_jobs("distill", self.words(*more))
        return build(distill.Settings, job.config), job.config

    def command(self, *more: str) -> Any:
        """What ``distill`` returns."""
        settings, config = self.settings(*more)
        return distill.run(settings, config, ("distill", *self.words(*more)))


def write(session: Session) -> None:
    """The teacher's folder, its tokenizer, and prompts."""
    started = time.monotonic()
    size = write_teacher(session.folder / "teacher", session.sizes, session.table.device)
    write_tokenizer(session.folder / "tokenizer", session.sizes)
    write_prompts(session.folder / "prompts.jsonl", 64)
    session.table.add("files of the teacher", size / 1e9, "GB")
    session.table.add("writing them", time.monotonic() - started, "s")


def planned(session: Session) -> None:
    """``dry_run=true``: no GPU is used, and of the teacher only config.json is read."""
    started = time.monotonic()
    found = session.command("dry_run=true")
    if not isinstance(found, Sized):
        raise TypeError(f"dry_run=true gave {type(found).__name__} and no computed plan")
    session.table.add("dry_run=true", time.monotonic() - started, "s")
    show_components(session.table, "planned", found.components)
    parts = {"gradients": found.gradients, "activations": found.activations, "logits": found.logits}
    for name, size in {**parts, "copy at the start": found.setting_up, "peak": found.peak}.items():
        session.table.add(f"planned: {name}", size / GIB, "GiB")
    session.watch.made["plan"] = found


def show_components(table: Table, label: str, parts: Sequence[Component]) -> None:
    """Networks with all that is kept of each."""
    for one in parts:
        table.add(f"{label}: {one.name}", one.kept / GIB, "GiB")


def distilled(session: Session) -> None:
    """The run itself; its stages are shown as they end."""
    started = time.monotonic()
    with session.watch.watching():
        session.command()
    session.table.add("distill, 3 updates, from words to files", time.monotonic() - started, "s")


def expected(plan: Sized | None) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What the plan has for a stage: in use before, beside these, and the peak. The first step makes AdamW's state."""
    if plan is None:
        return {}, {}, {}
    teacher, late = plan.components[0].weights, ("step 2", "step 3")
    kept = plan.networks - plan.gradients
    before = {"make_student": teacher, **dict.fromkeys(late, kept)}
    beside = {"make_student": plan.setting_up, **dict.fromkeys(late, plan.peak - kept)}
    peak = {"make_student": teacher + plan.setting_up, **dict.fromkeys(("step 1", *late), plan.peak)}
    shown = ({label: f"{size / GIB:.2f}" for label, size in each.items()} for each in (before, beside, peak))
    return next(shown), next(shown), next(shown)


def learnt(session: Session) -> None:
    """Whether the updates left a trace, in the adapter and in the network that was saved."""
    student, teacher, made = (session.watch.network(name) for name in ("make_student", "load_teacher", "merged"))
    downs = [p for name, p in student.named_parameters() if "lora_B" in name]
    moved = sum(bool(p.abs().max() > 0) for p in downs)
    session.table.add("adapters whose B is not zero", f"{moved} of {len(downs)}")
    theirs = teacher.state_dict()
    differ = sum(not torch.equal(value, theirs[name]) for name, value in made.state_dict().items())
    session.table.add("tensors of the student that differ from the teacher's", f"{differ} of {len(theirs)}")
    journal = (session.folder / "run" / "metrics.jsonl").read_text().splitlines()
    for name, value in json.loads(journal[-1]).items():
        if name in ("loss", "fake_loss", "student_entropy", "gradient_norm"):
            session.table.add(f"last update: {name}", f"{value:.3g}")
    size = (session.folder / "run" / "student" / "model.safetensors").stat().st_size
    session.table.add("student/model.safetensors", size / 1e9, "GB")
    if not moved or not differ:
        raise RuntimeError("nothing was learnt")


def forward(session: Session) -> None:
    """The teacher on a slice, and the share of the card's peak that it reaches."""
    table, teacher, rows, length = session.table, session.watch.network("load_teacher"), session.rows, session.length
    tokens = torch.randint(0, 100, (rows, length), device=table.device)

    def trunk() -> torch.Tensor:
        with torch.no_grad(), autocast(table.device, "bf16"):
            return teacher.trunk(tokens)  # type: ignore[operator,no-any-return]

    took = table.milliseconds(trunk, 1 if table.quick else 5)
    label = f"forward without head, {rows} x {length}"
    table.add(label, took, "ms")
    sizes = session.sizes
    done = rows * length * (2 * sizes.of_layers + 4 * sizes.layers * length * sizes.hidden)
    table.add(f"{label}: share of {table.peak / 1e12:.0f} TFLOP/s", 100 * done / (took / 1e3) / table.peak, "%")


def sampled(session: Session) -> None:
    """Four sequences in 16 calls, by the student that was saved."""
    table, student = session.table, session.watch.network("merged")
    free, steps = (16, 2) if table.quick else (256, 16)
    settings, _ = session.settings()
    domain = make_domain(settings.domain, {**settings.data, "prompts": None, "length": free + 2})
    for label in ("first time", "again"):
        with autocast(table.device, "bf16"):
            made = generate(domain, student, settings=SamplerSettings(steps=steps), num=4, batch_size=4)
        what = f"sample, 4 x {free} tokens in {steps} calls, {label}"
        table.add(what, made.seconds, "s")
    table.add(f"{what}: tokens", 4 * free / made.seconds, "1/s")


def other_objective(session: Session) -> None:
    """A few updates of D-MMD, which reads samples of the teacher."""
    few = ("objective.states.samples=8", "objective.states.steps=2")
    tried(session, "objective=dmmd", None, "objective=dmmd", *few)


def larger_batch(session: Session) -> None:
    """A few updates with twice the batch, and so twice the activations of the plan."""
    plan, rows = session.watch.made.get("plan"), 2 * session.rows
    peak = None if plan is None else plan.networks + 2 * plan.activations + plan.logits
    tried(session, f"batch of {rows} x {session.length}", peak, f"training.batch_size={rows}")


def tried(session: Session, label: str, planned: int | None, *more: str) -> None:
    """Some updates in other settings, from the same teacher: what ``dry_run=true`` measures of smaller networks.

    planned: bytes at the peak; None for those of a plan that is computed here.
    """
    settings, _ = session.settings(*more)
    domain = make_domain(settings.domain, settings.data)
    about = make_run(settings, domain, Machine.of(settings.device, settings.precision))
    if planned is None and (computed := distill.computed_plan(settings, about)) is not None:
        planned = computed.peak
    hint = "" if planned is None else f"{planned / GIB:.1f}"
    forget_peak(session.table.device)
    found = distill.plan(settings, about, session.watch.network("load_teacher"))  # type: ignore[arg-type]
    seconds = next(stage.seconds_each for stage in found.stages if stage.name == "training steps")
    session.table.add(f"{label}: seconds of an update", seconds, "s")
    session.table.add(f"{label}: peak in use", found.peak / GIB, "GiB", hint)


def free(watch: Watch, *names: str) -> None:
    """Forget networks."""
    for name in names:
        watch.made.pop(name, None)
    gc.collect()


def run(session: Session) -> None:
    """All attempts in order."""
    table = session.table
    for label, action in (
        ("writing the teacher", write), ("plan", planned), ("distill", distilled), ("what was learnt", learnt),
        ("forward", forward), ("sample", sampled),
    ):  # fmt: skip
        table.attempt(label, lambda action=action: action(session))  # type: ignore[misc]
    free(session.watch, "make_student", "merged", "save_student")
    for needed, label, action in (
        (OTHER_OBJECTIVE, "objective=dmmd", other_objective), (LARGER_BATCH, "twice the batch", larger_batch),
    ):  # fmt: skip
        if session.left < needed:
            table.add(label, f"left out: {session.left:.0f} s are left")
        else:
            table.attempt(label, lambda action=action: action(session))  # type: ignore[misc]


def place() -> Path:
    """Where the files go: memory, or the disk where there is too little of it."""
    roomy = SHARED.is_dir() and shutil.disk_usage(SHARED).free > ROOM
    return SHARED if roomy else Path(tempfile.gettempdir())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, run, show, remove."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    table = Table(given.out, torch.device(given.device), given.quick)
    with tempfile.TemporaryDirectory(prefix="gpu_large_", dir=given.folder or place()) as folder:
        session = Session(table, Path(folder), TINY if given.quick else EIGHT, started + given.seconds)
        table.add("place of the files", folder)
        run(session)
    table.add("everything", time.monotonic() - started, "s")
    return 1 if any("failed" in str(row["value"]) for row in table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
