"""Text in pieces is the text, wherever it is cut; a file that changes under the reader is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_core.storage import text_file
from didi_core.storage.text_file import numbered_lines, read_whole, text_pieces


@settings(deadline=None, max_examples=60)
@given(text=st.text(alphabet="aé€😀\r\n\ufeff", max_size=30), size=st.integers(3, 9))
def test_pieces_are_the_text_wherever_it_is_cut(text: str, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("pieces") / "x.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert "".join(text_pieces(path, size=size)) == read_whole(path) == text


@pytest.mark.parametrize("size", [3, 4, 5, 100])
@pytest.mark.parametrize(
    ("data", "place"), [(b"a\n\xc3\xa9\n\xff", "line 3: byte 0xff"), (b"a\n\n\xe2\x82", "line 3: byte 0xe2")]
)
def test_a_byte_that_is_no_text_is_named_with_its_line(data: bytes, place: str, size: int, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(InputError, match=place):
        list(text_pieces(tmp_path / "x.txt", size=size))
    kept = "".join(text_pieces(tmp_path / "x.txt", size=size, errors="surrogateescape"))
    assert kept.encode(errors="surrogateescape") == data


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changes_while_it_is_read_is_refused(replaced: bool, tmp_path: Path) -> None:
    path, other = tmp_path / "x.txt", tmp_path / "y.txt"
    for read in (lambda: text_pieces(path, size=4), lambda: numbered_lines(path)):
        path.write_text("one\ntwo\nthree\n")
        pieces = read()
        next(pieces)
        if replaced:
            other.write_text("one\ntwo\nthree\n")
            other.replace(path)
        else:
            with path.open("a") as file:
                file.write("four\n")
        with pytest.raises(InputError, match=r"x\.txt changed while it was read\. Wait until it is complete"):
            list(pieces)


def plain_lines(data: bytes) -> list[str]:
    """Lines by the rule alone: a line ends at a line feed, a carriage return or both."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode()
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="aé\r\n\ufeff", max_size=30), size=st.integers(1, 9), packed=st.booleans())
def test_lines_are_the_same_whatever_is_read_at_once(
    text: str, size: int, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, data = tmp_path_factory.mktemp("lines") / "x.txt", text.encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "BLOCK", max(size, 3))
        assert list(numbered_lines(path)) == list(enumerate(plain_lines(data), start=1))


@pytest.mark.parametrize("block", [3, 4, 7, 1 << 18])
@pytest.mark.parametrize(
    ("data", "good", "said"),
    [
        (b"one\r\ntwo\nth\xffree\nfour\n", ["one", "two"], "line 3: byte 0xff is not UTF-8"),
        (b"\xffone\n", [], "line 1: byte 0xff is not UTF-8"),
        (b"one\n\ntwo\nth\0ree\nfour\n", ["one", "", "two"], "line 4: binary data"),
        (b"\0", [], "line 1: binary data"),
        (b"one\nlong line", ["one"], "line 2: longer than 8 bytes"),
    ],
)
def test_lines_before_a_bad_one_are_read(
    data: bytes, good: list[str], said: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    monkeypatch.setattr(text_file, "BLOCK", block)
    monkeypatch.setattr(text_file, "LONGEST_LINE", 8)
    found: list[str] = []
    with pytest.raises(InputError, match=said):
        for _, line in numbered_lines(tmp_path / "x.txt"):
            found.append(line)
    assert found == good


def test_of_a_packed_file_that_is_cut_the_lines_before_are_counted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = "".join(f"{number}\n" for number in random.integers(0, 2**60, 20_000).tolist())
    whole = gzip.compress(lines.encode())
    (tmp_path / "x.txt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"after line [1-9]\d{3,}: the gzip data is truncated"):
        list(numbered_lines(tmp_path / "x.txt"))
