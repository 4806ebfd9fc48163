"""Sources of documents: text, JSON lines, tables, Parquet, the hub, or the manual that comes with every Python."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from didi_core.config import user_path
from didi_core.domain.data_report import SHOWN, kind_of
from didi_core.errors import InputError, unknown
from didi_core.storage.parquet import parquet_texts
from didi_core.storage.sample_files import FASTA, JSONL, ON_BAD, SUFFIXES, TABLE, TEXT, format_of, records_of, sniffed
from didi_core.storage.text_file import text_pieces, undecoded_byte

from .tokenizer import as_sentence

PYDOC = "pydoc"
BREAKS = {"three_breaks": re.compile(r"\n\n\n+"), "blank_lines": re.compile(r"\n\s*\n")}
DOCUMENTS = (*BREAKS, "file")
PROSE = (".md", ".rst")  # suffixes of text files beside those of the core
PARQUET = ".parquet"
WITHOUT_NETWORK = f"Or work without a network: data.path=<text, JSONL, CSV or Parquet file>, or data.path={PYDOC}."
READ = ", ".join((*SUFFIXES[TEXT], *PROSE, *SUFFIXES[JSONL], *SUFFIXES[TABLE], PARQUET))


@dataclass
class Tally:
    """Counts of a source's documents by their use, made while they are read."""

    files: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    read: int = 0
    empty: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def leave_out(self, place: str, reason: str) -> None:
        """Count a document that cannot be used."""
        self.read += 1
        self.left_out[kind_of(reason)] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{place}: {reason}")


@dataclass(frozen=True)
class Source:
    """One or several sources of documents, read in order.

    path: ``pydoc``, a file or folder of this machine, or a data set of the hub (``owner/name``).
    column: column of the text in JSON lines, tables and hub data sets. subset: configuration of a hub data set.
    documents: the separator of documents in a text file: three line breaks, blank lines, or none (one document per
        file).
    limit: largest number of documents.
    on_bad: whether a document that cannot be read (bytes that are not UTF-8, a row without text) is left out
        (``skip``) or an ``error``.
    unpacked_limit: largest unpacked size of a packed file in bytes.
    """

    path: tuple[str, ...]
    column: str = "text"
    subset: str | None = None
    documents: str = "three_breaks"
    limit: int | None = None
    on_bad: str = "error"
    unpacked_limit: int | None = None

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError("data.path is empty: give at least one file, folder or data set.")
        if self.documents not in DOCUMENTS:
            raise unknown("way to separate documents", self.documents, DOCUMENTS, "data.documents")
        if self.on_bad not in ON_BAD:
            raise unknown("treatment of bad documents", self.on_bad, ON_BAD, "data.on_bad")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"data.limit={self.limit} is out of range: at least one document.")

    def read(self, tally: Tally | None = None) -> Iterator[str]:
        """Documents that are not empty, in the order of their source.

        Args:
            tally: counts the documents by their use.

        Raises:
            InputError: the source does not exist, has no such column or holds no text; or, unless ``on_bad`` is
                ``skip``, a document cannot be read (with file, line, column and value).
        """
        tally = tally or Tally()
        found = 0
        for path in self.path:
            for text in self._read_one(path, tally):
                tally.read += 1
                if text.strip():
                    found += 1
                    yield text
                else:
                    tally.empty += 1
                if self.limit is not None and found >= self.limit:
                    return
        if not found:
            lost = f" {tally.examples[0]}." if tally.examples else " Every document is empty."
            raise InputError(f"data.path={_listed(self.path)} holds no text that can be used.{lost}")

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides which documents are read: settings, and name, size and time of every local file."""
        files = [file for path in self.path if path != PYDOC for file in _files(user_path(path))]
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return {
            "path": list(self.path),
            "column": self.column,
            "subset": self.subset,
            "documents": self.documents,
            "limit": self.limit,
            "on_bad": self.on_bad,
            "files": stats,
            "pydoc": _pydoc_version() if PYDOC in self.path else None,
        }

    def _read_one(self, path: str, tally: Tally) -> Iterator[str]:
        if path == PYDOC:
            tally.files.append(PYDOC)
            return read_pydoc()
        local = user_path(path)
        if not local.exists():
            tally.files.append(path)
            return self._read_hub(path)
        files = _files(local)
        if not files:
            raise InputError(f"data.path={path} is a folder without a file that can be read ({READ}, plain or .gz).")
        tally.files += map(str, files)
        tally.unread += [str(other) for other in _others(local, files)]
        return (text for file in files for text in self._read_file(file, tally))

    def _read_file(self, file: Path, tally: Tally) -> Iterator[str]:
        suffix = file.suffix.lower()
        if suffix == PARQUET:
            return parquet_texts(file, self.column, self.unpacked_limit)
        kind = TEXT if suffix in PROSE else format_of(file) or sniffed(file, self.unpacked_limit)
        if kind == FASTA:
            raise InputError(f"data.path={file} is FASTA, and a domain of texts reads {READ}.")
        if kind == TEXT:
            return self._read_text(file, tally)
        return self._read_records(file, kind, tally)

    def _read_text(self, file: Path, tally: Tally) -> Iterator[str]:
        errors = "strict" if self.on_bad == "error" else "surrogateescape"
        pieces = text_pieces(file, errors=errors, unpacked=self.unpacked_limit)
        for number, text in enumerate(split_documents(_prose(file, pieces), self.documents), 1):
            if undecoded := undecoded_byte(text):
                tally.leave_out(f"{file}, document {number}", undecoded)
            else:
                yield text

    def _read_records(self, file: Path, kind: str, tally: Tally) -> Iterator[str]:
        for record in records_of(file, kind, column=self.column, unpacked=self.unpacked_limit):
            place = f"{file}, line {record.line}"
            if not record.problem:
                yield record.text
            elif self.on_bad == "error":
                raise InputError(f"{place}: {record.problem}. Mend the row, or set data.on_bad=skip to leave it out.")
            else:
                tally.leave_out(place, record.problem)

    def _read_hub(self, name: str) -> Iterator[str]:
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or format_of(Path(name)) or name.endswith("/"):
            raise InputError(f"data.path={name} does not exist.")
        if name.endswith((*PROSE, PARQUET)):
            raise InputError(f"data.path={name} does not exist.")
        return self._read_table(name)

    def _read_table(self, name: str) -> Iterator[str]:
        """Rows of a data set one by one; nothing is downloaded or converted as a whole."""
        import datasets

        try:
            table = datasets.load_dataset(name, split="train", streaming=True, name=self.subset)
            rows = iter(table)
            first = next(rows, None)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise InputError(
                f"data.path={name}: no such file or folder is here, and the hub has no such data set, or it is gated, "
                f"or was renamed ({as_sentence(error)}) Check the name; for a gated one log in with `hf auth login`. "
                f"{WITHOUT_NETWORK}"
            ) from None
        except Exception as error:  # many libraries raise their own errors for a damaged file or a lost network
            raise InputError(f"data.path={name} cannot be read: {as_sentence(error)} {WITHOUT_NETWORK}") from None
        if first is None:
            return
        self._check_column(name, first)
        yield first[self.column] or ""
        try:
            for row in rows:
                yield row[self.column] or ""
        except Exception as error:
            raise InputError(f"data.path={name} broke off: {as_sentence(error)} {WITHOUT_NETWORK}") from None

    def _check_column(self, shown: str, row: dict[str, Any]) -> None:
        if self.column not in row:
            known = [name for name, value in row.items() if isinstance(value, str)]
            raise unknown("text column", self.column, known, f"data.column, of data.path={shown}")
        if not isinstance(row[self.column], str | None):
            kind = type(row[self.column]).__name__
            raise InputError(f"data.column={self.column} of data.path={shown} holds {kind}, not text.")


def read_pydoc() -> Iterator[str]:
    """The topics of Python's built-in help (``pydoc_data.topics``), in alphabetical order."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def _pydoc_version() -> str:
    import platform

    return platform.python_version()


def _prose(file: Path, pieces: Iterable[str]) -> Iterator[str]:
    """The pieces of a text with line ends of one kind. Binary data raises InputError with file and line."""
    lines, held = 1, ""
    for piece in pieces:
        if "\0" in piece:
            line = lines + piece.count("\n", 0, piece.index("\0"))
            raise InputError(f"{file}, line {line}: binary data, not text.")
        lines += piece.count("\n")
        piece = held + piece
        held = "\r" if piece.endswith("\r") else ""  # its line feed may be in the next piece
        yield piece.removesuffix(held).replace("\r\n", "\n") if "\r" in piece else piece
    yield held


def split_documents(pieces: Iterable[str], documents: str) -> Iterator[str]:
    """The documents of a text file that is read in pieces, cut anywhere; only one document is held in memory."""
    if documents == "file":
        yield "".join(pieces).strip("\n")
        return
    breaks = BREAKS[documents]
    begun: list[str] = []  # of the document that is being read, without the white space that it ends with so far
    space = ""
    for piece in pieces:
        solid = (space + piece).rstrip()
        space = (space + piece)[len(solid) :]  # it may be the beginning of a break
        first, *rest = breaks.split(solid)
        begun.append(first)
        for text in rest:
            yield "".join(begun).strip("\n")
            begun = [text]
    first, *rest = breaks.split(space)
    for text in ("".join([*begun, first]), *rest):
        yield text.strip("\n")


def _files(path: Path) -> list[Path]:
    """The file itself, or the readable files of a folder and its sub-folders, sorted."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and _readable(p))


def _readable(path: Path) -> bool:
    plain = Path(path.name.lower().removesuffix(".gz"))
    return format_of(path) in (TEXT, JSONL, TABLE) or plain.suffix in PROSE or path.suffix.lower() == PARQUET


def _others(path: Path, files: list[Path]) -> list[Path]:
    """Files of a folder that are not read, without hidden ones."""
    if path.is_file():
        return []
    known = {*files}
    return sorted(p for p in path.rglob("*") if p.is_file() and p not in known and not p.name.startswith("."))


def _listed(paths: tuple[str, ...]) -> str:
    return paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
