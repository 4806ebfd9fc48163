"""The nearest known protein by MMseqs2 (Steinegger and Soeding 2017), where the user has it: never bundled.

MMseqs2 names candidates; the alignment that decides, and its identity, are ours, so methods differ in recall only.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from didi_core.errors import InputError

from ..programs import output_of
from .neighbour import Neighbour, best_of

PROGRAM = "mmseqs"
# The highest sensitivity of its manual; hits that chance explains are kept, as every search here names the nearest.
SENSITIVITY, EVALUE, HITS, CANDIDATES = "7.5", "1000", 300, 5


def installed() -> bool:
    """Whether mmseqs is on the PATH."""
    return shutil.which(PROGRAM) is not None


class MmseqsSearch:
    """Candidates for all ``queries`` from one call of ``mmseqs easy-search``, when it is made.

    Raises InputError where mmseqs is not on the PATH, or fails.
    """

    name = PROGRAM

    def __init__(self, reference: Sequence[str], queries: Sequence[str], threads: int = 1) -> None:
        if not installed():
            raise InputError(
                "novelty=mmseqs needs the program mmseqs on the PATH (soedinglab/MMseqs2). "
                "novelty=exact needs the package pyopal only."
            )
        self.reference = tuple(reference)
        self._residues = sum(map(len, reference))
        self._candidates = hits(self.reference, tuple(dict.fromkeys(queries)), threads)

    def nearest(self, sequence: str) -> Neighbour:
        """The candidate with the best local alignment score. Raises KeyError for what was no query."""
        return best_of(self._candidates[sequence], self.reference, self._residues, sequence)


def hits(
    reference: Sequence[str], queries: Sequence[str], threads: int, most: int = CANDIDATES
) -> dict[str, list[int]]:
    """Numbers of the ``most`` best hits of each query, the best first."""
    found: dict[int, list[tuple[float, int]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, sequences in (("queries.fasta", queries), ("known.fasta", reference)):
            (folder / file).write_text("".join(f">{i}\n{sequence}\n" for i, sequence in enumerate(sequences)))
        call_mmseqs(
            folder, "easy-search", "queries.fasta", "known.fasta", "hits.tsv", "work", "-s", SENSITIVITY, "-e", EVALUE,
            "--max-seqs", str(max(HITS, most)), "--threads", str(threads), "--format-output", "query,target,bits",
        )  # fmt: skip
        for line in (folder / "hits.tsv").read_text().splitlines():
            query, target, bits = line.split("\t")
            found[int(query)].append((-float(bits), int(target)))
    return {query: [target for _, target in sorted(found[i])[:most]] for i, query in enumerate(queries)}


def call_mmseqs(folder: Path, *words: str) -> None:
    """Run mmseqs in a folder. Raises InputError with the last line that it wrote where it fails."""
    output_of([PROGRAM, *words], f"{PROGRAM} {words[0]}", folder)
