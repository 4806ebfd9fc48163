"""What one update costs at MDLM's size, by objective: the part ``update`` of ``gpu_measure.py``."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpu_language import PlainStep, Setting, engine
from gpu_table import Table

from didi_core.commands.compose import compose_jobs
from didi_core.models.dit import DiTConfig
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.registry import read_objective

# What the command line of each objective says. That of the language domain without any is the default, few_calls.
WORDS = {
    "few_calls": ("domain=language",),
    "didi": ("experiment=owt_small",),
    "didi_paper": ("experiment=owt_small_paper",),
    "dmmd": ("domain=language", "objective=dmmd"),
}
REPEATS = {"few_calls": 5}  # its updates differ: each draws how many calls it makes


def setting(table: Table) -> Setting:
    """MDLM's size, or a tiny one."""
    if table.quick:
        return Setting(DiTConfig(hidden=16, layers=2, heads=2, conditioning=8), 50, 8, 16, (2,), 1, table.device)
    return Setting(DiTConfig(), 50_257, 16, 1024, (8, 64), 5, table.device)


def objective(*words: str) -> ObjectiveSettings:
    """That of a command line of ``distill``, past its warm-up."""
    made: Any = read_objective(compose_jobs("distill", list(words))[0].config["objective"], "distill")
    return replace(made, critic=replace(made.critic, warmup=0))


def update(table: Table) -> None:
    """One update of each objective, and of the released recipe written plainly; what is most wanted comes first."""
    table.attempt("update at 169M, few_calls", lambda: _ours(table, "few_calls"))
    table.attempt("update at 169M, didi", lambda: _ours(table, "didi", "1836 of an earlier commit"))
    table.attempt("update at 169M, plain", lambda: _plain(table))
    table.attempt("update at 169M, didi_paper", lambda: _ours(table, "didi_paper", "2175 of an earlier commit"))
    table.attempt("update at 169M, dmmd", lambda: _ours(table, "dmmd"))


def _ours(table: Table, name: str, before: str = "") -> None:
    run, numbers = engine(setting(table), objective(*WORDS[name])), itertools.count()
    _cost(table, name, lambda: run.step(next(numbers)), before)


def _plain(table: Table) -> None:
    plain = PlainStep(setting(table))
    _cost(table, "the released recipe, plain", lambda: plain(0), "616 of an earlier commit")


def _cost(table: Table, name: str, one: Callable[[], object], before: str) -> None:
    """Time and peak of the same updates, then the counts of one more."""
    label, times = f"update at 169M, {name}", list[float]()
    repeats = 1 if table.quick else REPEATS.get(name, 2)
    peak = table.peak_gigabytes(lambda: times.append(table.milliseconds(one, repeats, warm=1)))
    table.add(label, times[0], "ms", before)
    table.add(f"{label}: peak", peak, "GB")
    seen = table.counts(one)
    table.add(f"{label}: host syncs", seen["syncs"])
    table.add(f"{label}: kernels", seen["kernels"])
    table.add(f"{label}: kernel time", seen["kernel ms"], "ms")
