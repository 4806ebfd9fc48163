"""What CUDA graphs and torch.compile gain for calls of a network: the part ``graphs`` of ``gpu_measure.py``.

    python benchmarks/gpu_graphs.py language|protein|mdlm --out FILE --turn FILE [--device cuda] [--quick]

Each network has a process of its own, since a capture that fails may spoil what comes after it in its process. They
import, build and compile at the same time, and time in turns, by a lock on ``--turn``. On a CPU, where there are no
graphs, a captured call is a plain one, and nothing is compiled: that shows that the script runs.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_table import Table, is_ours, wait_for_turn
from torch import Tensor

from didi_core.device import autocast
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import Iid
from didi_core.errors import first_line
from didi_core.models.attention import Layout
from didi_core.models.compiled import Compilation, compiling
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.graphs import Graphs, cuda_graph, replaying
from didi_core.plugins import registry
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.types import Vocabulary

CASES = ("protein", "language", "mdlm")
CALLS = 8
WHOLE = 25.0  # seconds after which a process begins no other compilation of a whole trunk
Trunk = Callable[[Tensor], Tensor]


def graphs(table: Table) -> None:
    """All networks at the same time, their rows in one table."""
    turn = table.out.with_name("graphs.lock")
    parts = {name: table.out.with_name(f"graphs_{name}.json") for name in CASES}
    children, logs = {}, {}
    for name, out in parts.items():
        out.unlink(missing_ok=True)
        logs[name] = out.with_suffix(".log")
        words = [sys.executable, __file__, name, "--out", str(out), "--turn", str(turn), "--device", table.device.type]
        with logs[name].open("wb") as log:
            children[name] = subprocess.Popen([*words, *(["--quick"] if table.quick else [])], stdout=log, stderr=log)
    while any(child.poll() is None for child in children.values()):
        time.sleep(0.5)
        _gather(table, parts)
    _gather(table, parts)
    for name, child in children.items():
        if child.returncode:
            table.add(f"{name}: its process", f"failed: exit code {child.returncode}")
            table.text(f"{name}: end of its log", logs[name].read_text(errors="replace").splitlines()[-30:])
    for row in table.rows:
        print(f"{row['what']}: {row['value']} {row['unit']}", flush=True)


def _gather(table: Table, parts: dict[str, Path]) -> None:
    found = [json.loads(path.read_text()) for path in parts.values() if path.exists()]
    table.rows = [row for record in found for row in record["rows"]]
    table.texts = {name: text for record in found for name, text in record["texts"].items()}
    table.write()


@dataclass(frozen=True)
class Case:
    """A network and the batches that it is called with. mixed: one of mixed lengths, where there is padding."""

    name: str
    model: DiT
    batches: tuple[Tensor, ...]
    table: Table
    turn: Path
    mixed: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, name: str, table: Table, turn: Path) -> Case:
        """A bundled teacher with its full-length batches, or MDLM's size with random weights."""
        mixed: tuple[Tensor, ...] = ()
        if name == "mdlm":
            small = DiTConfig(hidden=16, layers=2, heads=2, conditioning=8)
            vocabulary = Vocabulary(50 if table.quick else 50_257)
            torch.manual_seed(0)
            with table.device:
                model = DiT(small if table.quick else DiTConfig(), vocabulary)
            sizes, width = (1, 16), 8 if table.quick else 1024
            made = [torch.full((size, width), vocabulary.mask, device=table.device) for size in sizes]
        else:
            domain = registry().domain(name, {})
            model = domain.teacher("bundled").to(table.device)
            length = 300 if name == "protein" else domain.lengths(1, generator(0))[0]
            length, sizes = (8, (1, 2)) if table.quick else (length, (16, 64))
            made = [domain.template([length] * size).to(table.device) for size in sizes]
            if domain.vocabulary.pad is not None:
                spread = range(length // 4, length + 1, max(length // 8, 1))
                mixed = (domain.template((list(spread) * sizes[-1])[: sizes[-1]]).to(table.device),)
        return cls(name, model.eval().requires_grad_(False), tuple(made), table, turn, mixed)

    def label(self, batch: Tensor, attention: str) -> str:
        return f"{self.name}, batch {batch.shape[0]} x {batch.shape[1]}, {attention}"

    def within(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """The call as a sampler makes it: without gradients, in the run's precision."""

        def made() -> Any:
            with torch.no_grad(), autocast(self.table.device, "bf16" if self.table.cuda else "fp32"):
                return call()

        return made

    def blocks(self, batch: Tensor) -> Callable[[], Tensor]:
        """A call of the trunk whose layout was found before, so that nothing in it looks at the device."""
        layout = Layout.of(batch, self.model.vocabulary)
        for known in ("real", "full", "index", "positions", "boundaries"):
            getattr(layout, known)  # cached

        def call() -> Tensor:
            *_, last = self.model.run_blocks(layout, self.model.embed(batch), self.model.depth)
            return layout.unpack(last)

        return self.within(call)

    def draws(self, batch: Tensor) -> Callable[[], Tensor]:
        """Eight calls of the ancestral sampler."""

        def draw() -> Tensor:
            stream = generator(0, "benchmark", device=self.table.device)
            request = SampleRequest(self.model, batch, Uniform().shares(CALLS), Iid(), stream)
            return Ancestral().sample(request).tokens

        return self.within(draw)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, no other process of this part times."""
        with self.turn.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def time(self, what: str, call: Callable[[], object], repeats: int = 20) -> float:
        if self.table.quick:
            repeats = 1
        with self.alone():
            took = self.table.milliseconds(call, repeats)
        self.table.add(what, took, "ms")
        return took


def capture(call: Callable[[], Tensor], cuda: bool) -> tuple[Callable[[], object], Tensor]:
    """A graph of the call, as what replays it, and where its result lies. On a CPU it is the call itself."""
    if cuda:
        return cuda_graph(call)
    out = call().clone()
    return lambda: out.copy_(call()), out


def measure(case: Case) -> None:
    """Everything about one network; what may spoil the process comes last."""
    started, table = time.monotonic(), case.table
    compilation = Compilation(backend="inductor" if table.cuda else "eager")
    kinds = ("varlen", "sdpa") if table.cuda else ("eager", "sdpa")
    calls = [(attention, batch) for attention in kinds for batch in case.batches]
    for attention, batch in calls:
        _attend(case, attention)
        table.attempt(case.label(batch, attention), partial(_calls, case, batch, attention, compilation))
    table.add(f"{case.name}: what failed of compile=true", compilation.problem or "nothing")
    for attention, batch in calls:
        _attend(case, attention)
        table.attempt(case.label(batch, attention), partial(_graphs, case, batch, attention, compilation))
    for attention in kinds:
        _attend(case, attention)
        batch = case.batches[-1]
        table.attempt(f"{case.name}, sampler", partial(_sampler, case, batch, attention, compilation))
    batch = case.batches[0]  # the smaller one: there the host is the limit
    wholes = (("default", "sdpa"), ("reduce-overhead", "sdpa"), ("reduce-overhead", kinds[0]))
    for mode, attention in wholes[: 1 if table.quick else None]:
        _attend(case, attention)
        label = f"{case.label(batch, attention)}, torch.compile {mode}"
        if time.monotonic() - started > WHOLE:
            table.add(label, "left out, no time")
            continue
        table.attempt(label, partial(_whole, case, label, batch, mode))
    for attention in kinds[::-1]:
        _attend(case, attention)
        label = f"{case.label(batch, attention)}: capture of the trunk as it is"
        table.add(label, outcome(lambda: capture(case.within(lambda: case.model.trunk(batch)), table.cuda)))


def _attend(case: Case, attention: str) -> None:
    case.model.config = replace(case.model.config, attention=attention)


def _calls(case: Case, batch: Tensor, attention: str, compilation: Compilation) -> None:
    """A call of the trunk, and eight of the sampler, as they are and with ``compile=true``."""
    label, trunk, draw = case.label(batch, attention), case.within(lambda: case.model.trunk(batch)), case.draws(batch)
    case.time(f"{label}: trunk", trunk)
    case.time(f"{label}: sampler, {CALLS} calls", draw, 4)
    with compiling(compilation):
        trunk()  # compiles
        case.time(f"{label}: trunk, blocks compiled", trunk)
        case.time(f"{label}: sampler, {CALLS} calls, blocks compiled", draw, 4)


def _graphs(case: Case, batch: Tensor, attention: str, compilation: Compilation) -> None:
    """A call of the trunk by a graph, as it is and with ``compile=true``."""
    label, call = case.label(batch, attention), case.blocks(batch)
    expected = call()
    replay, out = capture(call, case.table.cuda)
    case.time(f"{label}: trunk by a graph", replay)
    case.table.add(f"{label}: by a graph, relative difference", _difference(out, expected))
    with compiling(compilation):
        call()
        replay, _ = capture(call, case.table.cuda)
        case.time(f"{label}: trunk, blocks compiled, by a graph", replay)


def _sampler(case: Case, batch: Tensor, attention: str, compilation: Compilation) -> None:
    """Eight calls of the sampler as ``compile=graphs`` makes them: what that key is decided by."""
    for batch_of, tokens in (("", batch), *((", mixed lengths", mixed) for mixed in case.mixed)):
        label, draw = f"{case.label(tokens, attention)}: sampler, {CALLS} calls{batch_of}", case.draws(tokens)
        if batch_of:
            case.time(label, draw, 4)
        for how, blocks in (("trunk by a graph", None), ("blocks compiled, trunk by a graph", compilation)):
            if blocks is not None and batch_of:
                continue
            graphs = Graphs(partial(capture, cuda=case.table.cuda), case.table.device.type)
            with compiling(blocks), replaying(graphs):
                before = torch.cuda.memory_allocated() if case.table.cuda else 0
                started = time.monotonic()
                for _ in range(3):  # every shape is recorded at its second call
                    draw()
                case.table.add(f"{label}, {how}: first three", time.monotonic() - started, "s")
                case.time(f"{label}, {how}", draw, 4)
            case.table.add(f"{label}, {how}: what failed", graphs.problem or "nothing")
            counts = ", ".join(f"{name} {count}" for name, count in sorted(graphs.counts.items()))
            case.table.add(f"{label}, {how}: calls", counts or "none")
            if case.table.cuda:
                held = (torch.cuda.memory_allocated() - before) / 1e6
                case.table.add(f"{label}, {how}: memory of the graphs", held, "MB")


def _whole(case: Case, label: str, batch: Tensor, mode: str) -> None:
    """The whole trunk by torch.compile, at this one shape."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    options: dict[str, Any] = {"mode": mode} if case.table.cuda else {"backend": "eager"}
    made = torch.compile(case.model.trunk, dynamic=False, **options)
    call, expected = case.within(lambda: made(batch)), case.within(lambda: case.model.trunk(batch))()
    started = time.monotonic()
    found = call().clone()
    case.table.add(f"{label}: first call", time.monotonic() - started, "s")
    case.table.add(f"{label}: relative difference", _difference(found, expected))
    case.time(label, call)
    case.table.add(f"{label}: breaks of the graph", len(counters["graph_break"]))
    case.table.add(f"{label}: graphs left out", str(dict(counters["inductor"]).get("cudagraph_skips", 0)))
    if counters["graph_break"]:
        case.table.text(f"{label}: breaks", [str(reason)[:400] for reason in list(counters["graph_break"])[:5]])


def outcome(call: Callable[[], object]) -> str:
    """What came of a call: ``works``, or its first exception with the line of the project that raised it."""
    try:
        call()
    except Exception as error:  # noqa: BLE001  # whatever forbids a capture is the finding
        first: BaseException = error
        while first.__context__ is not None:  # the end of a failed capture raises another
            first = first.__context__
        lines = [line for line in traceback.extract_tb(first.__traceback__) if is_ours(line.filename)]
        told = f"no: {type(first).__name__}: {first_line(first, 'no message')[:160]}"
        if lines:
            told += f", {'/'.join(Path(lines[-1].filename).parts[-3:])}:{lines[-1].lineno}: {lines[-1].line}"
        return told
    return "works"


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm())


def main(arguments: Sequence[str] | None = None) -> int:
    """One network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=CASES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turn", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    wait_for_turn()
    table = Table(given.out, torch.device(given.device), given.quick)
    measure(Case.of(given.name, table, given.turn))
    return 0


if __name__ == "__main__":
    sys.exit(main())
