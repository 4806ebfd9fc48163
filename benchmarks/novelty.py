"""How often a search finds the true relative of a protein, by identity, on real families; and how long it takes.

    python benchmarks/novelty.py FOLDER [--queries 300] [--timed 100] [--clustered 0] [--out FILE]

FOLDER holds FASTA files; headers of proteins whose family is known say ``gene=blaTEM-132``, as those of NCBI's
reference proteins of antimicrobial resistance do. For a query and a member of its gene family, the reference is 20,000
proteins without all other relatives (E-value below 0.001 in the exact search); the search must name that member.
``--clustered 1500`` compares our clusters of so many proteins with those of ``mmseqs easy-cluster``.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from didi_protein.alignment import align, score
from didi_protein.fasta import read_fasta
from didi_protein.kmers import KmerIndex, kmer_codes
from didi_protein.nearest.choice import make_search
from didi_protein.nearest.exact import ExactSearch
from didi_protein.nearest.mmseqs import PROGRAM, call_mmseqs, hits, installed
from didi_protein.nearest.neighbour import expected
from didi_protein.scoring.sequence import cluster_columns

EDGES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)
REFERENCE, MEMBERS, RELATED = 20_000, 60, 1e-3


def families(folder: Path) -> tuple[list[str], list[str]]:
    """Distinct sequences of all files, and the gene family of each, '' where it is not known."""
    known: dict[str, str] = {}
    for path in sorted(folder.glob("*.fasta")):
        for sample in read_fasta(path, on_bad="skip").samples:
            gene = re.match(r"[A-Za-z]+", str(sample.info.get("gene", "")))
            known.setdefault(sample.text, gene[0] if gene else "")
    return list(known), list(known.values())


def pairs(
    queries: list[int], reference: list[int], sequences: list[str], kin: list[str], draw: random.Random
) -> Iterator[tuple[int, int, int]]:
    """(query, place of a relative in the reference, bin of their identity), at most one of each bin for a query."""
    members = defaultdict(list)
    for place, number in enumerate(reference):
        members[kin[number]].append(place)
    for query in queries:
        some = draw.sample(members[kin[query]], min(MEMBERS, len(members[kin[query]])))
        bins: dict[int, int] = {}
        for place in some:
            found = align(sequences[reference[place]], sequences[query])
            length = len(sequences[query])
            level = int(np.searchsorted(EDGES, found.identical / length, side="right")) - 1
            if 0 <= level < len(EDGES) - 1 and found.covered >= 0.6 * length:
                bins.setdefault(level, place)
        yield from ((query, place, level) for level, place in bins.items())


def recall(folder: Path, count: int) -> dict[str, list[float]]:
    """Share of relatives found by method and bin, and how many pairs a bin has."""
    sequences, kin = families(folder)
    draw = random.Random(0)
    order = draw.sample(range(len(sequences)), len(sequences))
    sizes = defaultdict(int)
    for name in kin:
        sizes[name] += 1
    queries = [i for i in order if kin[i] and sizes[kin[i]] >= 3][:count]
    reference = [i for i in order if i not in set(queries)][:REFERENCE]
    texts = [sequences[i] for i in reference]
    exact, residues = ExactSearch(texts), sum(map(len, texts))
    words = KmerIndex(texts, 5)
    listed = hits(texts, [sequences[i] for i in queries], 1, most=20_000) if installed() else {}
    found: dict[str, list[list[bool]]] = defaultdict(lambda: [[] for _ in EDGES[1:]])
    scores: dict[int, np.ndarray] = {}
    for query, place, level in pairs(queries, reference, sequences, kin, draw):
        text = sequences[query]
        if query not in scores:
            scores = {query: exact.scores(text)}
        related = np.array([expected(s, len(text), residues) < RELATED for s in scores[query]])
        there = ~related
        there[place] = True
        shared = np.where(there, words.shared(np.unique(kmer_codes(text, 5))), 0)
        top = [i for i in np.argsort(-shared, kind="stable")[:5].tolist() if shared[i]]
        found["kmers"][level].append(best(text, texts, top) == place)
        found["exact"][level].append(int(np.where(there, scores[query], -1).argmax()) == place)
        if listed:
            found[PROGRAM][level].append(best(text, texts, [j for j in listed[text] if there[j]][:5]) == place)
    table = {name: [round(float(np.mean(b)), 3) if b else float("nan") for b in bins] for name, bins in found.items()}
    return {"pairs": [len(b) for b in found["exact"]], **table}


def adjusted_rand(one: np.ndarray, other: np.ndarray) -> float:
    """Agreement of two clusterings over pairs (Hubert and Arabie 1985): 1 for the same, 0 as by chance."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)

    def pairs_in(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    rows, columns, every = pairs_in(table.sum(1)), pairs_in(table.sum(0)), pairs_in(np.array([float(len(one))]))
    chance = rows * columns / every
    return (pairs_in(table) - chance) / ((rows + columns) / 2 - chance)


def clusters(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Numbers of clusters, ours and those of MMseqs2 (identity over the shorter, 80 % of it covered), and agreement."""
    sequences, _ = families(folder)
    some = random.Random(2).sample(sequences, count)
    made = {}
    for name, numbers in cluster_columns(some).items():
        level = int(name.removeprefix("cluster_")) / 100
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "x.fasta").write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(some)))
            call_mmseqs(
                Path(place), "easy-cluster", "x.fasta", "out", "work", "--min-seq-id", str(level), "-c", "0.8",
                "--cov-mode", "5", "--seq-id-mode", "1", "-s", "7.5", "--threads", "1", "--cluster-mode", "2",
            )  # fmt: skip
            rows = [line.split("\t") for line in (Path(place) / "out_cluster.tsv").read_text().splitlines()]
        leads = {int(member): int(lead) for lead, member in rows}
        theirs = np.unique([leads[i] for i in range(count)], return_inverse=True)[1]
        ours = np.unique(numbers, return_inverse=True)[1]
        agreement = round(adjusted_rand(ours, theirs), 3)
        made[name] = {"ours": int(ours.max()) + 1, "mmseqs": int(theirs.max()) + 1, "adjusted Rand": agreement}
    return made


def best(query: str, reference: list[str], candidates: list[int]) -> int | None:
    """The candidate that aligns best."""
    return max(candidates, key=lambda i: score(reference[i], query), default=None)


def seconds(folder: Path, count: int) -> dict[str, float]:
    """Of a design, by method, one thread, against 20,000 proteins; mmseqs with all designs in one call."""
    sequences, _ = families(folder)
    order = random.Random(1).sample(sequences, REFERENCE + count)
    designs, reference = order[:count], order[count:]
    taken = {}
    for name in ("kmers", "exact", *([PROGRAM] if installed() else [])):
        started = time.perf_counter()
        search = make_search(name, designs, designs, reference, lambda _: None)
        for design in designs:
            search.nearest(design)
        taken[name] = round((time.perf_counter() - started) / count, 4)
    cells = float(sum(map(len, designs))) * sum(map(len, reference))
    return {**taken, "exact: cells a second": round(cells / (taken["exact"] * count), -7)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--timed", type=int, default=100)
    parser.add_argument("--clustered", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, object] = {"bins": list(EDGES)}
    if given.queries:
        found["recall"] = recall(given.folder, given.queries)
    if given.timed:
        found["seconds of a design"] = seconds(given.folder, given.timed)
    if given.clustered:
        found["clusters"] = clusters(given.folder, given.clustered)
    text = json.dumps(found, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
