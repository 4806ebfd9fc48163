"""Costs on a GPU, one part a call.

    python benchmarks/gpu_measure.py update|hosts|folding|graphs|protein|language|compile|card --out FILE [--quick]

update      MDLM's size (169M, 50,258 rows, 1,024 tokens, batch 16): one update of ``few_calls`` (the default),
            ``didi``, ``didi_paper`` and ``dmmd``, and of the released recipe written plainly
hosts       where the host's time of such an update goes: operators, lines that wait for the device, lines by samples
folding     an ESMFold of full size at 100, 200 and 400 residues, alone and in batches
graphs      what CUDA graphs and torch.compile gain for a call of the trunk, and for eight calls of the sampler
protein     DPLM's 150M, batch 32 of mixed lengths: update and sampler
language    MDLM's size: forward, sampler at 8 and 64 calls
compile     ``compile=true`` at 169M: trunk forward and with backward, by two attentions, and one update
card        what the card reaches: a bf16 matrix product and a copy

Weights are random: times and memory do not depend on them. Every row holds what was measured and, where
there is one, what had been predicted from the code on a CPU. The file is rewritten after every row.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gpu_language import engine
from gpu_table import PEAK, Table, wait_for_turn
from gpu_updates import objective, setting, update
from torch import Tensor

from didi_core.device import autocast
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import Iid
from didi_core.models.compiled import Compilation, compiling
from didi_core.models.dit import DiT
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.types import Vocabulary


def card(table: Table) -> None:
    """What METHOD asks first: the ceilings."""
    n = 256 if table.quick else 8192
    dtype = torch.bfloat16 if table.cuda else torch.float32
    a, b = (torch.randn(n, n, device=table.device, dtype=dtype) for _ in range(2))
    took = table.milliseconds(lambda: a @ b, 10)
    table.add("matrix product, bf16 8192", 2 * n**3 / took / 1e9, "TFLOP/s", "789-798 seen")
    source = torch.randn(2**16 if table.quick else 2**30, device=table.device)
    target = torch.empty_like(source)
    took = table.milliseconds(lambda: target.copy_(source), 10)
    table.add("copy, bytes read and written", 8 * source.numel() / took / 1e9, "TB/s", "3.0 seen")


def language(table: Table) -> None:
    """Forward and sampler at MDLM's size."""
    how = setting(table)
    vocabulary = Vocabulary(how.tokens)
    torch.manual_seed(0)
    with table.device:
        model = DiT(how.config, vocabulary).eval().requires_grad_(False)
    tokens = torch.randint(how.tokens, (how.batch, how.length), device=table.device)
    template = torch.full_like(tokens, vocabulary.mask)
    label = f"169M, batch {how.batch} x {how.length}"

    def trunk() -> Tensor:
        with torch.no_grad(), autocast(table.device, how.precision):
            return model.trunk(tokens)

    def whole() -> Tensor:
        with torch.no_grad(), autocast(table.device, how.precision):
            return model(tokens)

    bare = table.milliseconds(trunk, 10)
    width, layers = how.config.hidden, how.config.layers
    flops = tokens.numel() * layers * (24 * width**2 + 4 * how.length * width)
    table.add(f"{label}: bare trunk call", bare, "ms")
    table.add(f"{label}: trunk, share of 989 TFLOP/s", flops / bare * 1e3 / PEAK, "")
    forward = table.milliseconds(whole, 5)
    table.add(f"{label}: forward with logits of all positions", forward, "ms")
    everything = flops + 2 * tokens.numel() * width * (how.tokens + 1)
    table.add(f"{label}: forward, share of 989 TFLOP/s (MFU)", everything / forward * 1e3 / PEAK, "")
    seen = table.counts(trunk)
    table.add("kernels of a block", seen["kernels"] / layers, "", "33")
    for steps in how.steps:

        def draw(steps: int = steps) -> Tensor:
            with torch.no_grad(), autocast(table.device, how.precision):
                stream = generator(0, "benchmark", device=table.device)
                request = SampleRequest(model, template, Uniform().shares(steps), Iid(), stream)
                return Ancestral().sample(request).tokens

        took = table.milliseconds(draw, 3 if steps < 32 else 2, warm=1)
        table.add(f"sampler, {steps} calls", 1e3 * how.batch / took, "samples/s")
        table.add(f"sampler, {steps} calls: over bare trunk calls", took / (steps * bare), "x", "7.8 on a CPU")
        if steps == how.steps[0]:
            seen = table.counts(draw)
            table.add(f"sampler, {steps} calls: host syncs a call", seen["syncs"] / steps, "", "5.3")
            table.add(f"sampler, {steps} calls: kernels a call", seen["kernels"] / steps, "")
            table.add(f"sampler, {steps} calls: kernel time", seen["kernel ms"] / steps, "ms a call")
            table.add(f"sampler, {steps} calls: peak", table.peak_gigabytes(draw), "GB")


def protein(table: Table) -> None:
    """Update and sampler at DPLM's 150M."""
    import gpu_protein as part

    how = part.Setting.quick(table.device) if table.quick else part.Setting.of("150m", table.device, 32, 3)
    template = how.template("mixed")
    model = part.network(how, "auto").requires_grad_(False)
    label = f"150M, batch {how.batch}, mixed lengths"

    def trunk() -> Tensor:
        with torch.no_grad(), autocast(table.device, how.precision):
            return model.trunk(template)

    bare = table.milliseconds(trunk, 10)
    table.add(f"{label}: bare trunk call", bare, "ms")
    for steps in (2,) if table.quick else (8, 64):

        def draw(steps: int = steps) -> None:
            with torch.no_grad(), autocast(table.device, how.precision):
                stream = generator(0, "benchmark", device=table.device)
                Ancestral().sample(SampleRequest(model, template, Uniform().shares(steps), Iid(), stream))

        took = table.milliseconds(draw, 2, warm=1)
        table.add(f"{label}: sampler, {steps} calls", 1e3 * how.batch / took, "samples/s")
        table.add(f"{label}: sampler, {steps} calls: over bare trunk calls", took / (steps * bare), "x", "1.0 on a CPU")
        if steps <= 8:
            seen = table.counts(draw)
            table.add(f"{label}: host syncs a call", seen["syncs"] / steps, "", "5.3")
    table.attempt(f"{label}: update", lambda: _protein_update(table, how, label))


def _protein_update(table: Table, how: Any, label: str) -> None:
    import gpu_protein as part

    run, numbers = part.distillation(how, "mixed", "auto"), iter(range(1000))
    took = table.milliseconds(lambda: run.step(next(numbers)), 1 if table.quick else 3, warm=1)
    table.add(f"{label}: update, didi", took, "ms")
    table.add(f"{label}: update, didi: peak", table.peak_gigabytes(lambda: run.step(next(numbers))), "GB")
    seen = table.counts(lambda: run.step(next(numbers)))
    table.add(f"{label}: update, didi: host syncs", seen["syncs"], "", "41-62")
    table.add(f"{label}: update, didi: kernels", seen["kernels"], "")
    table.add(f"{label}: update, didi: kernel time", seen["kernel ms"], "ms")


def compile_blocks(table: Table) -> None:
    """``compile=true``: the trunk forward, and forward with backward, and an update, as they are and compiled."""
    for attention in ("sdpa", "auto"):
        table.attempt(f"169M trunk with {attention}, compiled", lambda name=attention: _compiled_trunk(table, name))
    table.attempt("update at 169M, compiled", lambda: _compiled_update(table))


def _compiled_trunk(table: Table, attention: str) -> None:
    how, label = setting(table), f"169M trunk with {attention}"
    torch.manual_seed(0)
    with table.device:
        model = DiT(replace(how.config, attention=attention), Vocabulary(how.tokens)).eval()
    tokens = torch.randint(how.tokens, (how.batch, how.length), device=table.device)

    def trunk() -> Tensor:
        with torch.no_grad(), autocast(table.device, how.precision):
            return model.trunk(tokens)

    def learned() -> None:
        model.zero_grad()
        with autocast(table.device, how.precision):
            loss = model.trunk(tokens).float().square().mean()
        loss.backward()

    before, plain, slow = trunk(), table.milliseconds(trunk, 10), table.milliseconds(learned, 5)
    table.add(label, plain, "ms")
    table.add(f"{label}: forward and backward", slow, "ms")
    compilation = Compilation()
    with compiling(compilation):
        started = time.monotonic()
        after = trunk()
        learned()
        if table.cuda:
            torch.cuda.synchronize()
        table.add(f"{label}, compiled: first calls", time.monotonic() - started, "s")
        table.add(f"{label}, compiled: what failed", compilation.problem or "nothing")
        error = float((after.float() - before.float()).norm() / before.float().norm())
        table.add(f"{label}, compiled: relative difference", error, "", "1e-6 in fp32 on a CPU")
        faster = plain / table.milliseconds(trunk, 10)
        table.add(f"{label}, compiled: times faster", faster, "x", "1.5 (1.36 on a CPU)")
        table.add(f"{label}, compiled: forward and backward", slow / table.milliseconds(learned, 5), "x")
        table.add(f"{label}, compiled: kernels of a block", table.counts(trunk)["kernels"] / how.config.layers, "")


def _compiled_update(table: Table) -> None:
    label, numbers, repeats = "update at 169M, didi", iter(range(1000)), 1 if table.quick else 3
    run = engine(setting(table), objective("experiment=owt_small"))

    def one() -> None:
        run.step(next(numbers))

    plain = table.milliseconds(one, repeats, warm=1)
    with compiling(Compilation()):
        started = time.monotonic()
        one()
        table.add(f"{label}, compiled: first update", time.monotonic() - started, "s")
        table.add(f"{label}, compiled: times faster", plain / table.milliseconds(one, repeats, warm=1), "x")


def hosts(table: Table) -> None:
    """Where the host's time goes."""
    import gpu_hosts

    gpu_hosts.hosts(table)


def graphs(table: Table) -> None:
    """What CUDA graphs would gain."""
    import gpu_graphs

    gpu_graphs.graphs(table)


def folding(table: Table) -> None:
    """The short form of ``gpu_folding.py``."""
    import gpu_folding

    gpu_folding.short(table)


PARTS = {
    "update": update,
    "hosts": hosts,
    "folding": folding,
    "graphs": graphs,
    "protein": protein,
    "language": language,
    "compile": compile_blocks,
    "card": card,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """One part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args(arguments)
    if given.name in ("hosts", "folding", "protein"):  # their imports take seconds, which a part that waits has
        importlib.import_module(f"gpu_{given.name}")
    wait_for_turn()
    PARTS[given.name](Table(given.out, torch.device(given.device), given.quick))
    return 0


if __name__ == "__main__":
    sys.exit(main())
