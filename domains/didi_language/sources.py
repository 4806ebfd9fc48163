"""Where documents come from: the hub, local text, JSON lines, Parquet, or the manual that every Python carries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didi_core.errors import InputError, unknown

from .tokenizer import first_line

PYDOC = "pydoc"
BREAKS = {"three_breaks": re.compile(r"\n\n\n+"), "blank_lines": re.compile(r"\n\s*\n")}
DOCUMENTS = (*BREAKS, "file")
ON_BAD = ("error", "skip")
_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that were no UTF-8, as ``surrogateescape`` keeps them
TEXT_FILES = (".txt", ".text", ".md", ".rst")
TABLE_FILES = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
WITHOUT_NETWORK = f"Or work without a network: data.path=<text, JSONL or Parquet file>, or data.path={PYDOC}."


@dataclass(frozen=True)
class Source:
    """One or several places to read documents from, in order.

    path: ``pydoc``, a file or folder of this machine, or a data set of the hub (``owner/name``).
    column: of the text, in JSON lines, Parquet and hub data sets. subset: configuration of a hub data set.
    documents: what separates documents in a text file: three line breaks, blank lines, or nothing (one file each).
    limit: at most so many documents. on_bad: whether a text file's document with bytes that are no UTF-8 is left out
    (``skip``) or an error.
    """

    path: tuple[str, ...]
    column: str = "text"
    subset: str | None = None
    documents: str = "three_breaks"
    limit: int | None = None
    on_bad: str = "error"

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError("data.path is empty: give at least one file, folder or data set.")
        if self.documents not in DOCUMENTS:
            raise unknown("way to separate documents", self.documents, DOCUMENTS, "data.documents")
        if self.on_bad not in ON_BAD:
            raise unknown("treatment of bad documents", self.on_bad, ON_BAD, "data.on_bad")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"data.limit={self.limit} is out of range: at least one document.")

    def read(self) -> Iterator[str]:
        """Documents that are not empty, in the order of their source.

        Raises:
            InputError: the source is not there, is no UTF-8 (file and line), has no such column, or holds no text.
        """
        found = 0
        for path in self.path:
            for text in self._read_one(path):
                if text.strip():
                    found += 1
                    yield text
                if self.limit is not None and found >= self.limit:
                    return
        if not found:
            raise InputError(f"data.path={_listed(self.path)} holds no text: every document is empty.")

    def fingerprint(self) -> dict[str, Any]:
        """What decides which documents are read: settings, and name, size and time of change of every local file."""
        files = [file for path in self.path if path != PYDOC for file in _files(Path(path).expanduser())]
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

    def _read_one(self, path: str) -> Iterator[str]:
        if path == PYDOC:
            return read_pydoc()
        local = Path(path).expanduser()
        if not local.exists():
            return self._read_hub(path)
        files = _files(local)
        if not files:
            kinds = ", ".join((*TEXT_FILES, *TABLE_FILES))
            raise InputError(f"data.path={path} is a folder without a file that can be read ({kinds}).")
        return (text for file in files for text in self._read_file(file))

    def _read_file(self, file: Path) -> Iterator[str]:
        kind = TABLE_FILES.get(file.suffix.lower())
        if kind is None:
            found = split_documents(read_text(file, strict=self.on_bad == "error"), self.documents)
            return (text for text in found if not _UNDECODED.search(text))
        if kind == "json":
            read_text(file)  # an invalid byte is told with its line, which the reader below does not do
        return self._read_table(str(file), kind, data_files=str(file))

    def _read_hub(self, name: str) -> Iterator[str]:
        if name.startswith((".", "/", "~")) or name.endswith((*TEXT_FILES, *TABLE_FILES, "/")) or name.count("/") > 1:
            raise InputError(f"data.path={name} does not exist.")
        return self._read_table(name, name, name=self.subset)

    def _read_table(self, shown: str, kind: str, **how: Any) -> Iterator[str]:
        """Rows of a table as they come, nothing downloaded or converted as a whole."""
        import datasets

        try:
            table = datasets.load_dataset(kind, split="train", streaming=True, **how)
            rows = iter(table)
            first = next(rows, None)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise InputError(
                f"data.path={shown}: no such file or folder is here, and the hub has no such data set, or it is gated, "
                f"or was renamed ({first_line(error)}) Check the name; for a gated one log in with `hf auth login`. "
                f"{WITHOUT_NETWORK}"
            ) from None
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"data.path={shown} cannot be read: {first_line(error)} {WITHOUT_NETWORK}") from None
        if first is None:
            return
        self._check_column(shown, first)
        yield from self._texts(shown, first, rows)

    def _check_column(self, shown: str, row: dict[str, Any]) -> None:
        if self.column not in row:
            known = [name for name, value in row.items() if isinstance(value, str)]
            raise unknown("text column", self.column, known, f"data.column, of data.path={shown}")
        if not isinstance(row[self.column], str | None):
            kind = type(row[self.column]).__name__
            raise InputError(f"data.column={self.column} of data.path={shown} holds {kind}, not text.")

    def _texts(self, shown: str, first: dict[str, Any], rows: Iterator[dict[str, Any]]) -> Iterator[str]:
        import datasets

        yield first[self.column] or ""
        try:
            for row in rows:
                yield row[self.column] or ""
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            raise InputError(f"data.path={shown} broke off: {first_line(error)} {WITHOUT_NETWORK}") from None


def read_pydoc() -> Iterator[str]:
    """The topics of Python's built-in help (``pydoc_data.topics``), in alphabetical order."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def _pydoc_version() -> str:
    import platform

    return platform.python_version()


def read_text(file: Path, strict: bool = True) -> str:
    """A UTF-8 file. Where a byte is none, InputError names file and line; not ``strict``, it becomes a lone
    surrogate."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from None
    try:
        return raw.decode("utf-8-sig", "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{file}, line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text. Convert the file to UTF-8."
        ) from None


def split_documents(text: str, documents: str) -> Iterator[str]:
    """The documents of a text file."""
    normal = text.replace("\r\n", "\n")
    if documents == "file":
        yield normal.strip("\n")
        return
    for part in BREAKS[documents].split(normal):
        yield part.strip("\n")


def _files(path: Path) -> list[Path]:
    """The file itself, or the readable files of a folder and its sub-folders, sorted."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in (*TEXT_FILES, *TABLE_FILES))


def _listed(paths: tuple[str, ...]) -> str:
    return paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
