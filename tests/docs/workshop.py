"""A folder with the files that the how-tos name, and their commands made small, so that a page can be followed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from command_lines import ROOT, Line, of_markdown
from predictor_files import chain, confidence, text_of

NATIVE = "GSHMKKIAEELLRKAGNMKTAYIAKQRQISFVKSHFSRQLEE"
SMALL = {  # keys of each command with the values that a test can afford; they replace what a page has
    "pretrain": {"model": "micro", "training.steps": "2", "training.batch_size": "8", "validation_batches": "1"},
    "distill": {
        "training.steps": "2", "training.batch_size": "8", "evaluate.num": "8", "evaluate.num_at": "{}",
        "evaluate.steps": "[2]", "evaluate.teacher_steps": "[2]", "evaluate.temperatures": "[0.7,1.0]",
    },
    "sample": {"num": "4", "steps": "2"},
    "evaluate": {
        "num": "8", "num_at": "{}", "steps": "[2]", "teacher_steps": "[2]", "temperatures": "[0.7,1.0]", "seeds": "[0]",
    },
}  # fmt: skip
DIDI = {"objective.reference_samples": "16", "objective.reference_steps": "2", "objective.critic.warmup": "1"}


def proteins(num: int, seed: int) -> list[str]:
    """Random proteins of one family: a parent with a third of its residues drawn anew."""
    random, letters = np.random.default_rng(seed), list("ACDEFGHIKLMNPQRSTVWY")
    parent = random.choice(letters, 60)
    return ["".join(np.where(random.random(60) < 0.33, random.choice(letters, 60), parent)) for _ in range(num)]


def fasta(sequences: list[str], name: str = "p") -> str:
    return "".join(f">{name}{i}\n{sequence}\n" for i, sequence in enumerate(sequences))


def furnish(folder: Path) -> None:
    """Write the files that pages name as the reader's own."""
    (folder / "my.fasta").write_text(fasta(proteins(120, 0)))
    (folder / "known.fasta").write_text(fasta([NATIVE, *proteins(4, 1)], "known"))
    (folder / "wt.fasta").write_text(f">wt\n{NATIVE}\n")
    (folder / "motif.pdb").write_text(text_of([chain(NATIVE)], [confidence(NATIVE)]))
    (folder / "designs.fasta").write_text(fasta(proteins(4, 2), "design_"))
    for name in ("ours", "s4", "s8", "t8"):
        (folder / f"{name}.fasta").write_text(fasta(proteins(8, 3), f"{name}_"))
    (folder / "theirs.jsonl").write_text("".join(f'{{"text": "{one}"}}\n' for one in proteins(8, 4)))
    (folder / "my_texts").mkdir()
    random, words = np.random.default_rng(5), ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    texts = [" ".join(random.choice(words, 600)) + "." for _ in range(40)]
    for i, text in enumerate(texts):  # one in twenty is held out, and has a block of its own
        (folder / "my_texts" / f"{i}.txt").write_text(text)
    (folder / "peps_train.txt").write_text("\n\n\n".join(texts))


def commands(page: str) -> list[Line]:
    """The command lines of a page that a reader is to give, in order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [line for line in of_markdown(text, page) if not line.inline and re.match(r"didi |torchrun ", line.text)]


def one_sweep(words: list[str]) -> list[str]:
    """The words of a command; of a sweep two jobs: the first key that has several values keeps two, others one."""
    if not {"-m", "--multirun"} & set(words):
        return words
    kept, left = [], 2
    for word in words:
        key, found, value = word.partition("=")
        if found and "," in value and not value.startswith("["):
            word = f"{key}={','.join(value.split(',')[:left])}"
            left = 1
        kept.append(word)
    return kept


def small(words: list[str]) -> list[str]:
    """The words of a command with the values of ``SMALL``."""
    command, *settings = words
    wanted = dict(SMALL.get(command, {}))
    if "model=judge" in settings:  # another architecture, of which there is no smaller one by name
        wanted |= {"model": "judge", "model.hidden": "32", "model.layers": "1", "model.heads": "2"}
    if any(word.startswith("training.accumulate=") for word in settings):  # each slice holds a whole group
        wanted |= {"objective.baseline.group": "2", "evaluate.enabled": "false"}
    kept = []
    for word in settings:
        key, found, value = word.partition("=")
        kept.append(f"{key}={wanted.pop(key)}" if found and key in wanted else word)
        if key == "objective" and value == "didi":
            wanted |= DIDI
    return [command, *kept, *(f"{key}={value}" for key, value in wanted.items())]
