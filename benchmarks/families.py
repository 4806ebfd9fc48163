"""How many families a model of proteins writes at one length, which draws at the lengths of the data do not show.

    python benchmarks/families.py teacher=domains/didi_protein/assets/teacher student=runs/0 --calls 1 2 4 16 \
        --temperatures 1.0 0.7 0.5 --lengths 146 249 266 275 290 299 --data my.fasta --out families.json

For each length, model, temperature and number of calls: perplexity under the judge with a bootstrap interval, clusters
at 50 % identity, the largest one, and the *effective number* of them, 1 over the chance that two samples share one (the
inverse Simpson index). The first row of a length is the data's own sequences of that length, where it has any. The rows
are written as they are made, and the command goes on where it was stopped. A second table takes all lengths together,
each with equal weight: the geometric mean of the perplexities, and the mean chance that two samples share a family.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from Bio import SeqIO

from didi_core import sample
from didi_core.commands.common import make_domain
from didi_core.evaluation.intervals import bootstrap
from didi_core.storage.files import write_json
from didi_core.types import Metric, Sample
from didi_protein.scoring.sequence import cluster_columns


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=RUN", help="a run directory or a model folder")
    parser.add_argument("--calls", nargs="+", type=int, default=[4, 16])
    parser.add_argument("--lengths", nargs="+", type=int, default=[266, 290])
    parser.add_argument("--data", type=Path, help="FASTA of natural sequences")
    parser.add_argument("--num", type=int, default=64)
    parser.add_argument("--law", default="stratified")
    parser.add_argument("--grid", default="power")
    parser.add_argument("--temperatures", nargs="+", type=float, default=[1.0])
    parser.add_argument("--out", type=Path, default=Path("families.json"))
    return parser.parse_args()


def effective_number(labels: Sequence[int]) -> float:
    """1 over the chance that two draws, with replacement, have the same label."""
    counts = Counter(labels).values()
    return len(labels) ** 2 / sum(count**2 for count in counts)


def row(texts: Sequence[str], judge: Metric) -> dict[str, object]:
    """What is said of the sequences of one length."""
    found = bootstrap(judge, [Sample(text) for text in texts])
    labels = cluster_columns(texts)["cluster_50"]
    return {
        "samples": len(texts),
        "perplexity": [found.value, found.low, found.high],
        "clusters": len(set(labels)),
        "largest": max(Counter(labels).values()),
        "effective": effective_number(labels),
    }


def natural(data: Path, length: int, num: int) -> list[str]:
    """At most ``num`` of the data's sequences of that length, drawn without replacement."""
    known = [str(record.seq) for record in SeqIO.parse(data, "fasta") if len(record) == length]
    random.Random(0).shuffle(known)
    return known[:num]


def table(rows: dict[str, dict[str, object]]) -> str:
    """The rows in Markdown."""
    lines = ["| length | model | calls | perplexity | clusters | largest | effective number |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for key, found in rows.items():
        length, name, calls = key.split("|")
        value, low, high = found["perplexity"]  # type: ignore[misc]
        cells = [length, name, calls, f"{value:.3g} [{low:.3g}, {high:.3g}]"]
        cells += [f"{found['clusters']} of {found['samples']}"]
        lines.append(f"| {' | '.join([*cells, str(found['largest']), format(found['effective'], '.1f')])} |")
    return "\n".join(lines)


def together(rows: dict[str, dict[str, object]]) -> str:
    """All lengths of a model as one row, in Markdown."""
    found: dict[tuple[str, str], list[dict[str, object]]] = {}
    for key, one in rows.items():
        _, name, calls = key.split("|")
        found.setdefault((name, calls), []).append(one)
    lines = ["| model | calls | lengths | perplexity | effective number |", "|---|---|---|---|---|"]
    for (name, calls), each in found.items():
        value, low, high = over_lengths([one["perplexity"] for one in each])  # type: ignore[misc]
        effective = len(each) / sum(1 / one["effective"] for one in each)  # type: ignore[operator]
        lines.append(f"| {name} | {calls} | {len(each)} | {value:.3g} [{low:.3g}, {high:.3g}] | {effective:.1f} |")
    return "\n".join(lines)


def over_lengths(intervals: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The geometric mean of independent estimates, and its interval from theirs, which are taken as normal in logs."""
    value, low, high = np.log(np.array(intervals)).T
    half = np.sqrt((((high - low) / 2) ** 2).sum()) / len(value)
    return tuple(np.exp([value.mean(), value.mean() - half, value.mean() + half]).tolist())


def main() -> None:
    given = arguments()
    judge = next(metric for metric in make_domain("protein", {}).metrics() if metric.name == "perplexity")
    rows: dict[str, dict[str, object]] = json.loads(given.out.read_text()) if given.out.is_file() else {}
    for length in given.lengths:
        if given.data and f"{length}|data|" not in rows and (known := natural(given.data, length, given.num)):
            rows[f"{length}|data|"] = row(known, judge)
        models = [model.split("=", 1) for model in given.models]
        for (name, run), temperature in itertools.product(models, given.temperatures):
            named = name if temperature == 1 else f"{name}, temperature {temperature:g}"
            for calls in given.calls:
                if (key := f"{length}|{named}|{calls}") in rows:
                    continue
                how = {"steps": calls, "law": given.law, "grid": given.grid, "temperature": temperature}
                made = sample(run, domain="protein", num=given.num, length=length, **how)
                rows[key] = row([one.text for one in made.samples], judge)
                write_json(given.out, rows)
                print(key, rows[key], flush=True)
    print(table(rows), together(rows), sep="\n\n")


if __name__ == "__main__":
    main()
