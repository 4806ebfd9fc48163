"""What ``baseline.py`` runs on both trees: the cases, the words that changed, and what moved on purpose."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Words = tuple[str, ...]

# What moved on purpose: a pattern of "<case> <part>", and why. Empty it when a comparison starts from a later commit.
EXPECTED: dict[str, str] = {}

# Weights whose file has another name in another tree: the last part of the path without its suffix, and one name for
# both. A file that only moved, with the same content, needs no entry.
RENAMED = {"average": "ema"}


OTHER_PARTS: Words = (
    "objective=didi",
    *("objective.rollout.states=3", "objective.rollout.times=beta", "objective.rollout.beta=[2.0,1.5]"),
    *("objective.rollout.branches=2", "objective.rollout.trained=1", "objective.rollout.law=confidence"),
    *("objective.baseline.leave_one_out=true", "objective.baseline.normalise=false"),
    *("objective.anchor.divergence=jeffreys", "objective.anchor.entropy=0.02"),
    *("objective.weighting.divide_by_density=true", "objective.schedule=cosine", "objective.reference=data"),
)


def _reward(kind: str, credit: str, *more: str) -> Words:
    return (f"objective.reward.kind={kind}", f"objective.reward.credit={credit}", "objective.reward.warmup=1", *more)


def _rewards(listed: str, *more: str) -> Words:
    return (f"objective.reward=[{listed}]", "objective.critic.warmup=1", *more)


# Words that changed, by what they mean: the ways of saying it, the newest first. Each tree gets the first way that it
# does not refuse (exit code 2), so that any two commits can be compared.
SPELLINGS: dict[str, tuple[Words, ...]] = {
    "@few": (("objective.reference_samples=8", "objective.reference_steps=2", "objective.baseline.group=4"),),
    "@own reward": (("objective.critic.warmup=1",), ("objective.reward.warmup=1",)),  # that of the objective's file
    "@scorer": (_rewards("scorer"), _reward("scorer", "sample")),
    "@log_ratio sample": (_rewards("{kind: log_ratio, credit: sample}"), _reward("log_ratio", "sample")),
    "@log_ratio token": (_rewards("{kind: log_ratio, credit: token}"), _reward("log_ratio", "token")),
    "@log_ratio expected": (_rewards("{kind: log_ratio, credit: expected}"), _reward("log_ratio", "expected")),
    "@both token": (
        _rewards("scorer,{kind: log_ratio, credit: token, weight: 0.5}"),
        _reward("both", "token", "objective.reward.ratio_weight=0.5"),
    ),
    "@both expected": (
        _rewards("scorer,{kind: log_ratio, credit: expected}"),
        _reward("both", "expected"),
    ),
    "@cosine": (("objective.schedule=cosine",), ("schedule=cosine",)),
    "@other parts": (
        (
            *_rewards(
                "{kind: scorer, smoothing: 0.0, trainable_blocks: 1},{kind: log_ratio, credit: token}",
                "objective.coupled=false",
                "objective.critic.updates=2",
            ),
            *OTHER_PARTS,
        ),
        (
            *_reward("both", "token", "objective.reward.coupled=false", "objective.reward.smoothing=0.0"),
            *("objective.reward.updates=2", "objective.reward.trainable_blocks=1"),
            *OTHER_PARTS,
        ),
    ),
    "@guided": (
        ("sampler={kind: rgas, candidates: 2, scale: [3.0, 9.0]}",),
        ("sampler=rgas", "guidance.candidates=2", "guidance.scale=[3.0,9.0]"),
    ),
    "@joint draw": (("sampler=joint_fp32",), ("precision=legacy_fp32",)),
}

SIZES: dict[str, Words] = {"toy": (), "protein": ("data.max_length=60",), "language": ("data.length=48",)}
TINY = ("device=cpu", "training.batch_size=8", "training.warmup=1", "training.steps=3", "training.checkpoint_every=2")
JUDGE = ("objective=autoregressive", "model=judge", "model.hidden=48", "model.context=96", "model.dropout=0.0")


@dataclass(frozen=True)
class Case:
    """Words of the command line, and how they are run.

    quick: also with ``--quick``. run: the case whose student is sampled, that of the tree before for both trees.
    processes: more than one, by torchrun. killed: the checkpoint after which the process is killed; it is then started
    again, and must end as the case ``like`` does.
    """

    words: Words
    quick: bool = False
    run: str = ""
    processes: int = 1
    killed: str = ""
    like: str = ""


def distill(domain: str, *words: str, **how: Any) -> Case:
    """A step of the reward alone, then three of the student too."""
    return Case(("distill", f"domain={domain}", "evaluate.enabled=false", *TINY, *SIZES[domain], "@few", *words), **how)


def pretrain(domain: str, *words: str, quick: bool = False) -> Case:
    """Three steps; ``{proteins}`` is a FASTA file."""
    validation = ("validate_every=2", "validation_batches=1")
    return Case(("pretrain", f"domain={domain}", *TINY, *validation, *SIZES[domain], *words), quick)


def sample(domain: str, *words: str, num: int = 4, quick: bool = False) -> Case:
    """A few samples of a student, in two batches."""
    given = ("device=cpu", f"num={num}", "batch_size=3", "seed=5", "law=iid", "grid=uniform")
    return Case(("sample", *given, *words), quick, run=f"distill/{domain}/didi/1")


def _distillations() -> Iterator[tuple[str, Case]]:
    for domain, objective, parts in itertools.product(SIZES, ("didi", "didi_paper"), (1, 2)):
        quick = (objective, parts) == ("didi", 1) or (domain, objective, parts) == ("toy", "didi_paper", 2)
        words = (f"objective={objective}", f"training.accumulate={parts}", "@own reward")
        yield f"distill/{domain}/{objective}/{parts}", distill(domain, *words, quick=quick)
    for reward in ("@scorer", "@log_ratio sample", "@log_ratio token", "@log_ratio expected", "@both token"):
        quick = reward in ("@log_ratio token", "@log_ratio expected")
        yield f"distill/toy/didi, {reward[1:]}", distill("toy", "objective=didi", reward, quick=quick)
    for reward in ("@both expected", "@log_ratio token"):
        yield f"distill/toy/didi_paper, {reward[1:]}", distill("toy", "objective=didi_paper", reward)
    yield "distill/toy/other parts", distill("toy", "@other parts", quick=True)
    own = ("objective=didi", "@own reward")
    yield "distill/toy/bf16", distill("toy", *own, "precision=bf16")
    yield "distill/toy/two processes", distill("toy", *own, processes=2, quick=True)
    long = (*own, "training.checkpoint_every=1", "training.steps=8")
    yield "distill/toy/whole", distill("toy", *long, quick=True)
    yield "distill/toy/killed", distill("toy", *long, quick=True, killed="step_0000003", like="distill/toy/whole")


def _pretrainings() -> Iterator[tuple[str, Case]]:
    yield "pretrain/toy/nelbo", pretrain("toy", "model=nano", quick=True)
    yield "pretrain/toy/autoregressive", pretrain("toy", *JUDGE, quick=True)
    parts = ("model=nano", "training.accumulate=2", "@cosine")
    yield "pretrain/toy/nelbo, accumulate 2", pretrain("toy", *parts)
    yield "pretrain/protein/nelbo", pretrain("protein", "model=nano", "data.path={proteins}")
    yield "pretrain/protein/autoregressive", pretrain("protein", *JUDGE, "data.path={proteins}")
    yield "pretrain/language/nelbo", pretrain("language", "data=pydoc", "model=text")
    yield "pretrain/language/autoregressive", pretrain("language", "data=pydoc", *JUDGE)


def _samplings() -> Iterator[tuple[str, Case]]:
    for domain in ("toy", "protein"):
        quick = domain == "toy"
        for law in ("iid", "stratified", "dilated", "confidence"):
            yield f"sample/{domain}/law {law}", sample(domain, "steps=5", f"law={law}", quick=quick)
        for grid in ("power", "cosine", "optimised"):
            words = ("steps=4", "law=stratified", f"grid={grid}")
            yield f"sample/{domain}/grid {grid}", sample(domain, *words, quick=quick)
        for sampler in ("dplm", "first_hitting", "rgas"):
            length = ("length=20",) if sampler == "first_hitting" else ()
            yield f"sample/{domain}/{sampler}", sample(domain, "steps=4", f"sampler={sampler}", *length, quick=quick)
        yield f"sample/{domain}/joint draw", sample(domain, "steps=3", "@joint draw", quick=quick)
        shaped = ("steps=4", "temperature=0.8", "top_p=0.9", "length=20-30")
        yield f"sample/{domain}/temperature, nucleus", sample(domain, *shaped)
        guided = ("steps=4", "law=stratified", "@guided")
        yield f"sample/{domain}/rgas, stratified", sample(domain, *guided)
    yield "sample/toy/template", sample("toy", "steps=3", "template=ab____cd__", quick=True)
    yield "sample/protein/contig", sample("protein", "steps=3", "contig=5-10/MKTAYIAK/8-12", quick=True)
    yield "sample/protein/exclude, bias", sample("protein", "steps=3", "length=30", "exclude=C", "bias.A=0.5")
    yield "sample/language/prompt", sample("language", "steps=3", "prompt='The Zen'", "suffix=.", num=2, quick=True)
    yield "sample/language/law dilated", sample("language", "steps=4", "law=dilated", num=2)


CASES: dict[str, Case] = dict([*_distillations(), *_pretrainings(), *_samplings()])
