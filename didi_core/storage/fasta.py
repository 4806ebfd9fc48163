"""Reading and writing FASTA, plain or gzip. ``key=value`` words of a header become the sample's info.

ProteinMPNN and LigandMPNN write headers such as ``>T=0.1, sample=1, score=0.79`` after a first record with the name of
the backbone. Their values are read without the commas, and their samples are named after the first record, the
temperature and the number.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from didi_core.errors import InputError
from didi_core.storage.files import write_atomic
from didi_core.storage.records import Record
from didi_core.storage.text_file import numbered_lines
from didi_core.types import Sample

UNIPROT = ("sp|", "tr|")  # beginnings of its ids: reviewed entries and the rest
_KEY = re.compile(r"[A-Za-z_][\w.\-]*")
# A number has no leading zeros: 007 is a name.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TRUTH, _NUMBER = 1, 2
NUMBERS = ("sample", "id")  # keys of a sample's number in ProteinMPNN and LigandMPNN


def fasta_records(path: Path, unpacked: int | None = None) -> Iterator[Record]:
    """Records of a FASTA file: id (first word of the header), the words of its header, and its sequence.

    Words are text; ``Kinds`` turns them into numbers. Raises InputError for text before the first ``>`` and for
    anything that ``numbered_lines`` refuses.
    """
    titled: tuple[int, str] | None = None
    parts: list[str] = []
    backbone = ""
    for number, line in numbered_lines(path, unpacked=unpacked):
        if line.startswith(">"):
            if titled is not None:
                made = _record(*titled, parts, backbone)
                backbone = backbone if "sample" in made.info else made.id
                yield made
            titled, parts = (number, line[1:]), []
        elif text := line.strip():
            if titled is None:
                raise InputError(
                    f"{path}, line {number}: {text[:40]!r} stands before the first '>'. "
                    "A FASTA file has a line '>name' before each sequence."
                )
            parts.append(text)
    if titled is not None:
        yield _record(*titled, parts, backbone)


def _record(line: int, title: str, parts: Sequence[str], backbone: str) -> Record:
    text = parts[0] if len(parts) == 1 else "".join(parts)
    text = text.replace(" ", "") if " " in text else text
    name, info = parse_header(title)
    if "T" not in info or name not in ("", backbone):
        return Record(line, text, name, info)
    number = next((info[key] for key in NUMBERS if key in info), None)
    if number is not None:
        info = {"sample": number, **{key: value for key, value in info.items() if key not in NUMBERS}}
        name = f"{backbone or 'design'}_T{info['T']}_sample_{number}"
    return Record(line, text, name, info)


def parse_header(title: str) -> tuple[str, dict[str, str]]:
    """The id and the ``key=value`` words of a header line without its ``>``; other words are dropped.

    The id is the first word; a header that begins with ``key=value,`` has none. A value in a header of UniProt goes
    on to the next key: ``OS=Homo sapiens OX=9606``.
    """
    name, rest = [*title.split(maxsplit=1), "", ""][:2]
    if "=" not in rest and "=" not in name:
        return name, {}
    if name.startswith(UNIPROT):
        found = re.split(rf" ({_KEY.pattern})=", f" {rest}")[1:]
        pairs = zip(found[::2], found[1::2], strict=True)
        return name, {key: unquote(value.strip()) for key, value in pairs if value.strip()}
    words = _with_commas(title)
    if words is None:
        words = re.split(r"[ \t]+", rest)  # no other space ends a word: a value may hold U+2028
    elif "=" in words[0]:
        name = ""
    else:
        name, words = words[0], words[1:]
    info = {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and value and _KEY.fullmatch(key):
            info[key] = unquote(value)
    return name, info


def _with_commas(title: str) -> list[str] | None:
    """The words of a header with ``key=value`` words separated by commas; None for any other header.

    Commas inside brackets (``designed_chains=['A', 'B']``) do not separate.
    """
    if ", " not in title:
        return None
    words, depth = [""], 0
    for piece in title.strip().split(", "):
        words[-1] += f", {piece}" if depth else piece
        depth += piece.count("[") - piece.count("]")
        if depth <= 0:
            words.append("")
            depth = 0
    words = [word.strip() for word in words if word]
    fits = all("=" in word for word in words[1:]) and len(words) > 1 and " " not in words[0]
    return words if fits else None


class Kinds:
    """What the words of each key are, learnt from one header after the other.

    The values of a key become numbers if all headers with that key have numbers. A gene named ``nan`` therefore stays
    text, and so do all genes of a file in which one is named ``1433``.
    """

    def __init__(self) -> None:
        self._may_be: dict[str, int] = {}  # bits of _TRUTH and _NUMBER

    def see(self, info: Mapping[str, str]) -> None:
        """Take the words of a header into account."""
        for key, word in info.items():
            if known := self._may_be.get(key, _TRUTH | _NUMBER):
                self._may_be[key] = known & _kind(word)

    def typed(self, key: str, word: str) -> Any:
        """The word of a key, by what all words of that key are."""
        known = self._may_be.get(key, 0)
        if known & _TRUTH:
            return word == "True"
        if known & _NUMBER:
            return int(word) if _INTEGER.fullmatch(word) else float(word)
        return word


def _kind(word: str) -> int:
    if word in ("True", "False"):
        return _TRUTH
    return _NUMBER if _INTEGER.fullmatch(word) or _is_float(word) else 0


def _is_float(word: str) -> bool:
    return _FLOAT.fullmatch(word) is not None and math.isfinite(float(word))


def format_header(info: Iterable[tuple[str, Any]]) -> str:
    """``key=value key=value``, without None; spaces and ``%`` are percent-encoded, floats keep every digit.

    Raises:
        InputError: a key is no word, or a value is empty.
    """
    words = []
    for key, value in info:
        if value is None:
            continue
        written = _format_value(value)
        if not _KEY.fullmatch(key) or not written:
            raise InputError(
                f"cannot write {key!r}={value!r} into a FASTA header: a key is one word and a value is not empty. "
                "Rename or drop it."
            )
        words.append(f"{key}={written}")
    return " ".join(words)


def _format_value(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) or hasattr(value, "item"):  # numpy scalars too
        return repr(value.item() if hasattr(value, "item") else value)
    return quote(str(value), safe="/:,;+-_.|()[]{}<>@#$&!*'~^?\"\\`=")


def write_fasta(path: str | Path, samples: Sequence[Sample]) -> None:
    """Write ``>id key=value ...`` and the sequence on one line; gzip if the name ends in ``.gz``.

    The file is complete or absent. An empty id becomes ``seq_1``, ``seq_2``, ... The same samples give the same bytes.
    Raises InputError if the file cannot be written, or a header cannot hold a value.
    """
    path = Path(path)
    data = "".join(_written(sample, number) for number, sample in enumerate(samples, start=1)).encode("utf-8")
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        write_atomic(path, data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Name another place.") from error


def _written(sample: Sample, number: int) -> str:
    name = sample.id or f"seq_{number}"
    if name.split() != [name]:
        raise InputError(f"the id {name!r} of sample {number} has spaces in it: a FASTA id is one word. Rename it.")
    if not sample.text:
        raise InputError(f"sample {number} ({name!r}) has no letters: nothing to write. Leave it out.")
    return f">{' '.join(filter(None, (name, format_header(sample.info.items()))))}\n{sample.text}\n"
