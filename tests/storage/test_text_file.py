"""Text in pieces is the text, wherever it is cut; a file that changes under the reader is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
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
