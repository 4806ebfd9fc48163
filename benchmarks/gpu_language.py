"""A distillation step and sampling at the size of the published language models, beside the released recipe.

    python benchmarks/gpu_language.py [--batch 16] [--length 1024] [--repeats 5] [--out gpu_language.json]

Weights are random: times and memory do not depend on them. Part one: one whole update (rollout of two calls, scorer,
student) with peak memory. Part two: tokens per second of the student in 8, 16 and 32 calls. "Plain" is a
straightforward implementation of DiDi-Instruct's released recipe: two full student passes with the logits of all
positions, the joint draw of token or mask, real and fake through the scorer one after the other, the scorer again for
the reward, and one call more than the steps when sampling. It is written here from the paper; both run in one process.
``--quick`` runs tiny sizes on any machine and shows that the script works. Exit code 2: no CUDA device.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from didi_core.device import Machine, autocast
from didi_core.diffusion.grids import Uniform
from didi_core.diffusion.laws import Iid
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.scorer import scorer_from_trunk
from didi_core.objectives.advantage import BaselineSettings
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.base import Materials, ObjectiveSettings
from didi_core.objectives.didi import Didi
from didi_core.objectives.rewards.base import CriticSettings
from didi_core.run import Run
from didi_core.sampling.ancestral import Ancestral
from didi_core.sampling.base import SampleRequest
from didi_core.streams import generator
from didi_core.training.engine import Engine
from didi_core.training.optimiser import EMA, adamw, apply_gradients
from didi_core.training.planning import Stopwatch
from didi_core.training.settings import TrainingSettings
from didi_core.types import Scorer, Vocabulary

GROUP = 4


@dataclass(frozen=True)
class Setting:
    """What is measured, on what."""

    config: DiTConfig
    tokens: int  # of the vocabulary, without the mask
    batch: int
    length: int
    steps: tuple[int, ...]
    repeats: int
    device: torch.device

    @property
    def precision(self) -> str:
        return "bf16" if self.device.type == "cuda" else "fp32"


@dataclass(frozen=True)
class Row:
    """Medians of one way; ``problem`` where it did not run (memory)."""

    part: str
    way: str
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_gigabytes: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Blocks:
    """As much of a domain as a distillation step asks for: masked blocks of one length."""

    vocabulary: Vocabulary
    length: int

    def lengths(self, n: int, stream: torch.Generator) -> list[int]:
        return [self.length] * n

    def template(self, lengths: Sequence[int]) -> Tensor:
        return torch.full((len(lengths), self.length), self.vocabulary.mask)

    def batches(self, split: str, batch_size: int, seed: int, start: int = 0) -> Iterator[Tensor]:
        for index in itertools.count(start):
            stream = generator(seed, split, index)
            yield torch.randint(self.vocabulary.size, (batch_size, self.length), generator=stream)

    def scorer(self, teacher: DiT, trainable_blocks: int) -> Scorer:
        return scorer_from_trunk(teacher, trainable_blocks)

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))


class Networks:
    """Teacher, student and scorer with random weights, and batches of random tokens as the scorer's reference."""

    def __init__(self, setting: Setting) -> None:
        torch.manual_seed(0)
        self.vocabulary = Vocabulary(setting.tokens)
        with setting.device:  # made there: drawing 169 million numbers on a CPU takes seconds
            self.teacher = DiT(setting.config, self.vocabulary).eval().requires_grad_(False)
        self.student = copy.deepcopy(self.teacher).requires_grad_(True)
        self.scorer = scorer_from_trunk(self.teacher, 4).to(setting.device)  # of the plain step
        self.real = torch.randint(setting.tokens, (4 * setting.batch, setting.length))


def our_step(setting: Setting) -> Callable[[int], object]:
    """``Engine.step`` with the published objective."""
    rules = Didi(
        reward="scorer",
        critic=CriticSettings(warmup=0, lr=1e-5),
        baseline=BaselineSettings(group=GROUP),
        anchor=AnchorSettings(kl=0.01, entropy=0.02),
    )
    return engine(setting, rules).step


def engine(setting: Setting, rules: ObjectiveSettings) -> Engine:
    """A distillation at that size by any objective."""
    nets, training = Networks(setting), TrainingSettings(batch_size=setting.batch, lr=1e-6, warmup=1)
    run = Run(Blocks(nets.vocabulary, setting.length), Machine(setting.device, setting.precision))  # type: ignore[arg-type]
    real = nets.real  # alone: the scorer of the plain step is not held
    objective = rules.prepare(Materials(run, training, nets.student, nets.teacher, lambda num, steps: real))
    return Engine(objective, run, training, Stopwatch(setting.device), "step", partial(run.stream, "distill"))


class PlainStep:
    """The released recipe, written straightforwardly: every tensor over the vocabulary is [B, L, V + 1]."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.nets = setting, Networks(setting)
        self.training = TrainingSettings(batch_size=setting.batch, lr=1e-6, warmup=1)
        self.scoring = CriticSettings(lr=1e-5).optimiser
        self.student, self.scorer = self.nets.student.train(), self.nets.scorer.train()
        self.average = EMA(self.student, self.training.ema)
        self.moves = adamw(self.student.parameters(), self.training.optimiser)
        self.judges = adamw(self.scorer.parameters(), self.scoring)

    def __call__(self, step: int) -> None:
        setting, mask = self.setting, self.nets.vocabulary.mask
        tau = torch.rand(setting.batch // GROUP, device=setting.device).repeat_interleave(GROUP).clamp(0.02, 0.98)
        alpha = (1 - tau)[:, None]
        start = torch.full((setting.batch, setting.length), mask, device=setting.device)
        with autocast(setting.device, setting.precision):
            first = subs(self.student(start), start, mask)
            middle, log_first = joint_step(first, start, torch.zeros_like(alpha), alpha, mask)
            second = subs(self.student(middle), middle, mask)
            final, log_second = joint_step(second, middle, alpha, torch.ones_like(alpha), mask)
            self._judge(final, alpha)
            with torch.no_grad():
                noisy = torch.where(torch.rand(final.shape, device=setting.device) < alpha, final, mask)
                hidden = noisy == mask
                reward = (self.scorer(noisy) * hidden).sum(1) / hidden.sum(1).clamp(min=1)
                grouped = reward.clamp(-8, 8).view(-1, GROUP)
                advantage = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-6)
            divergence = self._divergence(first, start) + self._divergence(second, middle)
            entropy = -(second.exp() * second.clamp(min=-50)).sum(-1).mean()
            loss = -(advantage.flatten().clamp(-3, 3) * (log_first + log_second)).mean() / setting.length
            (loss + 0.01 * divergence - 0.02 * entropy).backward()
        apply_gradients(self.moves, self.training.optimiser, 1e-6)
        self.average.update(self.student)

    def _judge(self, fake: Tensor, alpha: Tensor) -> None:
        """Binary cross-entropy at masked positions, real and fake in two passes."""
        picked = torch.randint(len(self.nets.real), (len(fake),))
        real = self.nets.real[picked].to(fake.device)
        mask = self.nets.vocabulary.mask
        for tokens, target in ((real, 0.95), (fake.detach(), 0.05)):
            noisy = torch.where(torch.rand(tokens.shape, device=tokens.device) < alpha, tokens, mask)
            masked = (noisy == mask).float()
            logits = self.scorer(noisy)
            each = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target), reduction="none")
            ((each * masked).sum() / masked.sum().clamp(min=1)).backward()
        apply_gradients(self.judges, self.scoring, 1e-5)

    def _divergence(self, log_p: Tensor, state: Tensor) -> Tensor:
        """KL(student || teacher) at masked positions."""
        mask = self.nets.vocabulary.mask
        with torch.no_grad():
            log_q = subs(self.nets.teacher(state), state, mask)
        masked = (state == mask).float()
        each = (log_p.exp() * (log_p - log_q)).sum(-1)
        return (each * masked).sum() / masked.sum().clamp(min=1)


def subs(logits: Tensor, state: Tensor, mask: int) -> Tensor:
    """log p(x0 | xt) of every position: no mass on the mask, visible tokens copied."""
    logits = logits.float()
    logits[..., mask] = -1e6
    log_p = logits.log_softmax(-1)
    copied = torch.full_like(log_p, -1e6).scatter(-1, state[..., None], 0.0)
    return torch.where((state == mask)[..., None], log_p, copied)


def joint_step(log_p: Tensor, state: Tensor, alpha_t: Tensor, alpha_s: Tensor, mask: int) -> tuple[Tensor, Tensor]:
    """One reverse step by a draw of token or mask from [B, L, V + 1], and the log-probability of what was drawn."""
    probabilities = log_p.exp() * (alpha_s - alpha_t)[..., None]
    probabilities[..., mask] = 1 - alpha_s
    with torch.no_grad():
        noise = 1e-10 - (torch.rand_like(probabilities) + 1e-10).log()
        drawn = torch.where(state == mask, (probabilities / noise).argmax(-1), state)
    taken = probabilities.gather(-1, drawn[..., None]).squeeze(-1).clamp(min=1e-30).log()
    return drawn, (taken * (state == mask)).sum(1)


@torch.no_grad()
def plain_samples(student: nn.Module, setting: Setting, steps: int) -> Tensor:
    """``steps`` joint draws and the call more that takes the last masks away."""
    mask = setting.tokens
    state = torch.full((setting.batch, setting.length), mask, device=setting.device)
    shares = torch.linspace(1e-5, 1, steps + 1, device=setting.device)
    with autocast(setting.device, setting.precision):
        for now, then in zip(shares[:-1], shares[1:] - 1e-5, strict=True):
            ones = torch.ones(setting.batch, 1, device=setting.device)
            state, _ = joint_step(subs(student(state), state, mask), state, now * ones, then * ones, mask)
        return subs(student(state), state, mask).argmax(-1)


@torch.no_grad()
def our_samples(student: nn.Module, setting: Setting, steps: int) -> Tensor:
    """The factorised draw in exactly ``steps`` calls."""
    template = torch.full((setting.batch, setting.length), setting.tokens, device=setting.device)
    stream = generator(0, "benchmark", device=setting.device)
    with autocast(setting.device, setting.precision):
        request = SampleRequest(student, template, Uniform().shares(steps), Iid(), stream)  # type: ignore[arg-type]
        return Ancestral().sample(request).tokens


def steps_of_training(setting: Setting) -> list[Row]:
    """Part one; each way with networks of its own, one after the other, so that peaks do not mix."""
    rows = []
    for way, make in (("plain", PlainStep), ("ours", our_step)):
        rows.append(measured(setting, "distillation step", way, lambda make=make: make(setting)))
    return rows


def sampling(setting: Setting) -> list[Row]:
    """Part two."""
    student = Networks(setting).student.eval()
    rows = []
    for steps in setting.steps:
        for way, draw in (("plain", plain_samples), ("ours", our_samples)):
            action = partial(draw, student, setting, steps)
            rows.append(measured(setting, f"{steps} calls", way, lambda action=action: lambda _: action()))
    return rows


def measured(setting: Setting, part: str, way: str, make: Callable[[], Callable[[int], object]]) -> Row:
    """Median seconds after a first run, and the peak of all; running out of memory is a result."""
    cuda = setting.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)
    try:
        action, times = make(), []
        for i in range(setting.repeats + 1):
            started = time.perf_counter()
            action(i)
            if cuda:
                torch.cuda.synchronize(setting.device)
            times.append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return Row(part, way, problem="out of memory")
    seconds = statistics.median(times[1:])
    peak = torch.cuda.max_memory_allocated(setting.device) / 1e9 if cuda else None
    return Row(part, way, seconds, setting.batch * setting.length / seconds, peak)


def show(rows: Sequence[Row], caption: str) -> None:
    """One line a part and way."""
    table = Table(title="the released recipe, plain, and ours", caption=caption, box=SIMPLE, pad_edge=False)
    for header in ("", "way", "ms", "tokens / s", "peak GB"):
        table.add_column(header, justify="left" if header in ("", "way") else "right")
    for row in rows:
        figures = (row.seconds and 1e3 * row.seconds, row.tokens_per_second, row.peak_gigabytes)
        table.add_row(row.part, row.way, *(f"{f:,.1f}" if f else row.problem or "–" for f in figures))
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes on the CPU: shows that it runs")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args(arguments)
    if min(given.batch, given.length, given.repeats) < 1 or given.batch % GROUP:
        parser.error(f"--batch must be a multiple of {GROUP}, --length and --repeats at least 1.")
    if given.quick:
        tiny = DiTConfig(hidden=16, layers=1, heads=2, conditioning=8)
        setting = Setting(tiny, 50, 4, 8, (2,), 1, torch.device("cpu"))
    elif torch.cuda.is_available():
        setting = Setting(
            DiTConfig(), 50_257, given.batch, given.length, (8, 16, 32), given.repeats, torch.device("cuda")
        )
    else:
        print("no CUDA device here: run this on a machine with one, or show that it runs with --quick.")
        return 2
    rows = [*steps_of_training(setting), *sampling(setting)]
    cuda = setting.device.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    show(rows, f"batch {setting.batch} x {setting.length}, {setting.precision}, {name}, torch {torch.__version__}")
    if given.out:
        record = {"device": name, "torch": torch.__version__, "batch": setting.batch, "length": setting.length}
        given.out.write_text(json.dumps({**record, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
