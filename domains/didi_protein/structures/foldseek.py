"""Foldseek (van Kempen et al. 2023), where the user has it: never bundled. Its calls, and the tables that it writes.

``easy-search`` with TM-align (``--alignment-type 1``) gives ``qtmscore``, the TM-score over the residues of the query,
and ``alntmscore``, over those of the alignment, which favours short alignments and may exceed 1. ``easy-cluster``
and, for complexes, ``easy-multimercluster`` write the representative and the member of a cluster in each line.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from didi_core.config import user_path
from didi_core.errors import InputError

from ..programs import output_of
from .predictors import stem

PROGRAM = "foldseek"
INSTALL = "conda install -c conda-forge -c bioconda foldseek"
FIELDS = ("query", "target", "qtmscore", "alntmscore")
# Every structure of the set is compared, and none left out for its TM-score: the options of published evaluations.
SEARCH = ("--alignment-type", "1", "--exhaustive-search", "1", "--tmscore-threshold", "0.0")
CLUSTER = ("--alignment-type", "1", "--tmscore-threshold", "0.5", "--cov-mode", "0", "--min-seq-id", "0")
# Whole complexes: TM-score of all chains laid on each other at once, and of every chain, over both; the interfaces'
# lDDT is the program's default. Complexes of different numbers of chains are never alike with --cov-mode 0.
MULTIMERS = (
    "--multimer-tm-threshold", "0.5", "--chain-tm-threshold", "0.5", "--interface-lddt-threshold", "0.3",
    "--cov-mode", "0",
)  # fmt: skip
TABLES = ("_cluster.tsv", "_clu.tsv")  # of easy-cluster: what it writes, and what its manual says
LINES = 4  # of what a failing call wrote
# Releases differ in whether a query keeps the suffix of its file; the chain is named where there are several.
QUERY = re.compile(r"q(\d+)(?:\.pdb)?(?:_.*)?")


@dataclass(frozen=True)
class Nearest:
    """The structure with the highest TM-score over the query's residues (``tm``); ``aligned``: its ``alntmscore``."""

    target: str
    tm: float
    aligned: float


def program() -> str:
    """Path of the program. Raises InputError where it is not on the PATH."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise InputError(f"there is no program foldseek on the PATH, and none is bundled. Install it: {INSTALL}.")
    return os.path.abspath(found)


def version() -> str:
    """What ``foldseek version`` says. Raises InputError where it is not on the PATH, fails or says nothing."""
    said = _call(Path.cwd(), "version").split()
    if not said:
        raise InputError("foldseek version says nothing: the program foldseek on the PATH is another one.")
    return said[0]


def check_target(path: Path, key: str) -> None:
    """Raise InputError unless this is a Foldseek database, a structure file, or a folder that holds some."""
    if not _files(path):
        what = "there is no PDB or mmCIF file in this folder" if path.is_dir() else "no such database, file or folder"
        raise InputError(
            f"{key}={path}: {what}. Give a folder of structures, or a database of foldseek createdb or foldseek "
            "databases by the name that it was made with."
        )


def fingerprint(path: Path) -> str:
    """Changes with the files of a target: their names, sizes and times."""
    stats = [(str(file), file.stat()) for file in _files(path)]
    text = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _files(path: Path) -> list[Path]:
    """The files of a target, in order; none where it is no target."""
    path = user_path(path)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and stem(file))
    if Path(f"{path}.dbtype").is_file():
        beside = (f"{path.name}.", f"{path.name}_")
        return sorted(f for f in path.parent.iterdir() if f.name == path.name or f.name.startswith(beside))
    return [path] if path.is_file() and stem(path) else []


def search(queries: Sequence[Path], target: Path, evalue: float, threads: int) -> list[Nearest | None]:
    """The nearest structure of a set to each query; None where Foldseek reports none.

    Args:
        queries: PDB files. Of one with several chains, each is searched, and the highest TM-score counts.
        evalue: structures whose 3Di alignment has a higher one are not compared by TM-align.

    Raises:
        InputError: the program is not there, fails, or writes what is not its table.
    """
    with _workplace(queries) as folder:
        options = (*SEARCH, "-e", f"{evalue:g}", "--threads", str(threads), "--format-output", ",".join(FIELDS))
        _call(folder, "easy-search", "queries", str(target.resolve()), "hits.tsv", "work", *options)
        with _table(folder, "easy-search", ("hits.tsv",)).open(encoding="utf-8", errors="replace") as lines:
            return read_hits(lines, len(queries))


def read_hits(lines: Iterable[str], count: int) -> list[Nearest | None]:
    """The nearest structure of each of ``count`` queries in a table with the columns ``FIELDS``.

    Raises:
        InputError: a line has other columns, names no query, or holds no TM-score.
    """
    best: list[Nearest | None] = [None] * count
    for number, line in enumerate(lines, start=1):
        words = line.rstrip("\r\n").split("\t")
        if len(words) != len(FIELDS):
            raise InputError(
                f"foldseek easy-search, line {number}: {len(words)} columns, expected {', '.join(FIELDS)}."
            )
        query, target, *scores = words
        at = _query(query, count, "easy-search", number)
        tm, aligned = (_score(word, number) for word in scores)
        known = best[at]
        if known is None or tm > known.tm:
            best[at] = Nearest(target, tm, aligned)
    return best


def clustering(complexes: bool) -> tuple[str, ...]:
    """The call that clusters single chains, or complexes: its module and options."""
    return ("easy-multimercluster", *MULTIMERS) if complexes else ("easy-cluster", *CLUSTER)


def cluster(queries: Sequence[Path], complexes: bool, threads: int) -> list[int | None]:
    """The cluster of each structure, numbered from 1 by first member; None where Foldseek left it out.

    Args:
        complexes: whether all are of several chains, and compared whole; else all are of one.

    Raises:
        InputError: the program is not there, fails, or writes what is not its table.
    """
    with _workplace(queries) as folder:
        module, *options = clustering(complexes)
        _call(folder, module, "queries", "clusters", "work", *options, "--threads", str(threads))
        names = [f"clusters{end}" for end in TABLES]
        with _table(folder, module, names).open(encoding="utf-8", errors="replace") as lines:
            return read_clusters(lines, len(queries), module)


def read_clusters(lines: Iterable[str], count: int, module: str = "easy-cluster") -> list[int | None]:
    """Numbers of clusters from lines of representative and member. Raises InputError for other lines."""
    leads: list[int | None] = [None] * count
    for number, line in enumerate(lines, start=1):
        words = line.rstrip("\r\n").split("\t")
        if len(words) != 2:
            raise InputError(f"foldseek {module}, line {number}: {len(words)} columns, expected two.")
        lead, member = (_query(word, count, module, number) for word in words)
        leads[member] = lead
    numbers: dict[int, int] = {}
    return [None if lead is None else numbers.setdefault(lead, len(numbers) + 1) for lead in leads]


def _query(name: str, count: int, module: str, line: int) -> int:
    """The number of a query from the name that Foldseek gives it."""
    match = QUERY.fullmatch(name)
    if match is None or int(match[1]) >= count:
        raise InputError(f"foldseek {module}, line {line}: {name!r} is not among the {count} structures it was given.")
    return int(match[1])


def _score(word: str, line: int) -> float:
    """A TM-score of the table."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"foldseek easy-search, line {line}: {word!r} is not a TM-score.")
    return value


@contextmanager
def _workplace(queries: Sequence[Path]) -> Iterator[Path]:
    """A temporary folder with the queries under names of ours, ``queries/q0.pdb`` ..., whatever their own are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "queries").mkdir()
        for number, path in enumerate(queries):
            shutil.copy(path, folder / "queries" / f"q{number}.pdb")
        yield folder


def _table(folder: Path, module: str, names: Iterable[str]) -> Path:
    """The first of some files that is there."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"foldseek {module} ended well, and wrote no table.")
    return found


def _call(folder: Path, *words: str) -> str:
    """Run Foldseek in a folder; returns its output. Raises InputError with its last lines where it fails."""
    return output_of([program(), *words], shlex.join([PROGRAM, *words]), folder, LINES)
