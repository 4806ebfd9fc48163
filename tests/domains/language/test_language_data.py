"""Documents, tokenizers and packed blocks of the language domain."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_language import TextTokenizer, load_tokenizer, train_tokenizer
from didi_language.packing import Blocks, Held, Packed
from didi_language.sources import BREAKS, Source, Tally, _prose, split_documents
from didi_language.tokenizer import END

TEXT = "the cat sat on the mat\nand the dog on the log"


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    backend = train_tokenizer([TEXT] * 3, 270)
    return TextTokenizer("tiny", backend, 0, 0, (0,))


def read(path: Path | str, **settings: object) -> list[str]:
    return list(Source((str(path),), **settings).read())  # type: ignore[arg-type]


# --- tokenizers


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60).filter(lambda text: END not in text))
def test_any_text_survives_the_bundled_tokenizer(text: str) -> None:
    tokenizer = load_tokenizer()
    assert tokenizer.text(tokenizer.ids(text)) == text
    assert tokenizer.many([text])[0].tolist() == tokenizer.ids(text)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([END, END[:-1], "é", "<|", " a\n"]), max_size=8))
def test_the_table_of_bytes_gives_the_ids_of_the_tokenizer(parts: list[str]) -> None:
    tokenizer, text = load_tokenizer(), "".join(parts)
    assert tokenizer._bytes is not None
    assert tokenizer.many([text])[0].tolist() == tokenizer.ids(text)


def test_a_tokenizer_with_merges_has_no_table_of_bytes(tokenizer: TextTokenizer) -> None:
    assert tokenizer._bytes is None
    assert tokenizer.many([TEXT])[0].tolist() == tokenizer.ids(TEXT)


def test_the_end_token_is_one_token_that_may_be_generated(tokenizer: TextTokenizer) -> None:
    assert tokenizer.ids(f"the{END}cat").count(tokenizer.end) == 1
    vocabulary = tokenizer.vocabulary
    assert vocabulary.mask == tokenizer.size == 270 and tokenizer.end in vocabulary.generated
    assert vocabulary.pinned == () and vocabulary.pad is None


def test_special_tokens_beside_the_frame_are_never_generated(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    backend = train_tokenizer([TEXT], 262)
    whole = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, cls_token="[CLS]", additional_special_tokens=["<tool>"]
    )
    whole.save_pretrained(tmp_path)
    found = load_tokenizer(str(tmp_path))
    assert (found.begin, found.end) == (whole.cls_token_id, whole.eos_token_id)
    assert whole.convert_tokens_to_ids("<tool>") in found.vocabulary.forbidden
    assert found.begin in found.vocabulary.generated and found.size == len(whole)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=train_tokenizer([TEXT], 260)).save_pretrained(tmp_path / "folder")
    with pytest.raises(InputError, match="neither eos_token nor sep_token"):
        load_tokenizer(str(tmp_path / "folder"))
    bare = tmp_path / "tokenizer.json"
    bare.write_text(train_tokenizer([TEXT], 260).to_str().replace(END, "<other>"))
    with pytest.raises(InputError, match="does not say which token ends"):
        load_tokenizer(str(bare))


def test_a_tokenizer_out_of_reach_names_the_key_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"data.tokenizer=nobody/nothing cannot be loaded.*data.tokenizer=bundled"):
        load_tokenizer("nobody/nothing")
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer("nowhere/tokenizer.json")


def test_a_damaged_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="is not a tokenizer"):
        load_tokenizer(str(tmp_path / "tokenizer.json"))


def test_an_id_that_is_no_token(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match="token 270 is outside the 270 tokens"):
        tokenizer.text([5, 270])


# --- sources


def test_text_files_are_split_as_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\ntwo\r\n\r\n\r\nthree\n \nfour\n")
    assert read(file) == ["one\n\ntwo", "three\n \nfour"]
    assert read(file, documents="blank_lines") == ["one", "two", "three", "four"]
    assert read(file, documents="file") == ["one\n\ntwo\n\n\nthree\n \nfour"]
    assert read(file, documents="blank_lines", limit=3) == ["one", "two", "three"]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.md", "ignored.png", "c/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert read(tmp_path, documents="file") == ["a.md", "b.txt", "c/d.txt"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tables_are_read_by_their_column(tmp_path: Path, kind: str) -> None:
    rows = [{"content": text, "n": i} for i, text in enumerate(["one", "", "two"])]
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import datasets

        datasets.Dataset.from_list(rows).to_parquet(str(file))
    assert read(file, column="content") == ["one", "two"]
    with pytest.raises(InputError, match=r"unknown text column 'contents' \(data.column.*Did you mean 'content'"):
        read(file, column="contents")
    with pytest.raises(InputError, match="holds int64, not text|column 'n' holds a number, not text: 0"):
        read(file, column="n")


def test_the_manual_of_python_is_on_every_machine() -> None:
    topics = read("pydoc")
    assert len(topics) > 50 and any("assert" in topic for topic in topics)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"fine\nbad \xe9 byte\n", r"a.txt, line 2: byte 0xe9 is not UTF-8"),
        (b"\n\n\n\n \n\n\n", "holds no text that can be used. Every document is empty"),
        (b"", "holds no text"),
    ],
)
def test_bad_text_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.txt")


def test_a_document_with_bad_bytes_is_left_out_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\n\n\nbad \xe9\n\n\ntwo")
    assert read(tmp_path / "a.txt", on_bad="skip") == ["one", "two"]


def test_a_bad_byte_in_json_lines_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(InputError, match=r"a.jsonl, line 2: byte 0xff"):
        read(tmp_path / "a.jsonl")


def counted(path: Path, **settings: object) -> tuple[list[str], Tally]:
    tally = Tally()
    return list(Source((str(path),), **settings).read(tally)), tally  # type: ignore[arg-type]


def test_rows_that_cannot_be_read_are_an_error_or_left_out_and_counted(tmp_path: Path) -> None:
    rows = ['{"text": "one", "n": 1}', '{"text": 7, "n": "x"}', '{"text": "two"', '{"n": 2}', '{"text": null}', "5"]
    lines = [*(row.encode() for row in rows), b'{"text": "\xff"}', b'{"text": "half \\ud800"}', b'{"text": "three"}']
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=r"a.jsonl, line 2: column 'text' holds a number, not text: 7. .*on_bad=skip"):
        read(file)
    found, tally = counted(file, on_bad="skip")
    assert found == ["one", "three"] and (tally.read, tally.empty) == (9, 1)
    assert [*tally.left_out] == [
        "column 'text' holds a number, not text", "not JSON (Expecting ',' delimiter)",
        "unknown text column 'text' (data.column). Known", "expected an object, got", "byte 0xff is not UTF-8 text",
        "column 'text' holds half of a character (a lone surrogate)",
    ]  # fmt: skip
    assert tally.examples[0] == f"{file}, line 2: column 'text' holds a number, not text: 7"


def test_types_of_other_columns_may_change(tmp_path: Path) -> None:
    rows = [{"text": str(i), "other": i if i < 900 else f"word {i}"} for i in range(1000)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path / "a.jsonl") == [row["text"] for row in rows]


def test_every_format_of_a_folder_is_read_and_what_is_not_is_named(tmp_path: Path) -> None:
    rows = [{"text": "from json", "n": 1}]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((json.dumps(rows[0]) + "\n").encode()))
    (tmp_path / "b.ndjson").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "c.json").write_text(json.dumps(rows * 2, indent=1))
    (tmp_path / "d.csv").write_text('\ufeffid,text\n1,"from, a ""table""\nof lines"\n')
    (tmp_path / "e.tsv.gz").write_bytes(gzip.compress(b"text\tn\nfrom tabs\t1\n"))
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "g.pdf").write_text("not read")
    (tmp_path / ".hidden").write_text("not named")
    found, tally = counted(tmp_path)
    assert found == [*["from json"] * 4, 'from, a "table"\nof lines', "from tabs", "packed"]
    assert tally.unread == [str(tmp_path / "g.pdf")] and len(tally.files) == 6


def test_a_file_without_a_known_name_is_what_its_first_line_says(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text('{"text": "one"}\n')
    assert read(tmp_path / "corpus") == ["one"]
    (tmp_path / "corpus").write_text("plain words\n\n\n\nmore")
    assert read(tmp_path / "corpus") == ["plain words", "more"]
    (tmp_path / "corpus").write_text(">a\nMKV\n")
    with pytest.raises(InputError, match="corpus is FASTA, and a domain of texts reads .txt"):
        read(tmp_path / "corpus")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.txt"])
def test_what_is_wrong_with_a_local_file_has_nothing_to_do_with_a_network(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x00\x01 damaged \xff")
    with pytest.raises(InputError, match=name) as caught:
        read(tmp_path / name)
    assert "network" not in str(caught.value) and "pydoc" not in str(caught.value)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="data.path=nowhere.txt does not exist"):
        read("nowhere.txt")
    with pytest.raises(InputError, match="a folder without a file that can be read"):
        read(tmp_path)
    with pytest.raises(InputError, match="data.path is empty"):
        Source(())
    with pytest.raises(InputError, match="unknown way to separate documents 'blank'.*Did you mean 'blank_lines'"):
        Source(("a",), documents="blank")


def test_a_hub_data_set_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    for error in (ConnectionError("Couldn't reach it"), datasets.exceptions.DatasetNotFoundError("it is gated")):

        def refuse(*args: object, error: Exception = error, **settings: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(InputError, match=r"data.path=nobody/nothing.*data.path=pydoc"):
            read("nobody/nothing")


def test_a_hub_data_set_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def rows(*args: object, **settings: object) -> Iterator[dict[str, str]]:
        yield {"text": "one"}
        raise ConnectionError("gone")

    monkeypatch.setattr(datasets, "load_dataset", rows)
    with pytest.raises(InputError, match="data.path=some/set broke off: gone"):
        read("some/set")


def test_windows_line_ends_count_as_line_breaks() -> None:
    assert list(split_documents(_prose(Path("x"), ["a\r\n\r\n\r\nb"]), "three_breaks")) == ["a", "b"]


@settings(deadline=None, max_examples=100)
@given(st.text(alphabet="ab \t\r\n", max_size=40), st.integers(1, 7), st.sampled_from(sorted(BREAKS)))
def test_documents_are_the_same_wherever_the_text_is_cut(text: str, size: int, documents: str) -> None:
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    whole = BREAKS[documents].split(text.replace("\r\n", "\n"))
    found = list(split_documents(_prose(Path("x"), pieces), documents))
    assert found == [part.strip("\n") for part in whole]


def test_binary_data_are_named_with_their_line() -> None:
    with pytest.raises(InputError, match="x, line 3: binary data"):
        list(_prose(Path("x"), ["a\nb", "b\n", "c\0\n"]))


# --- packing


def pack(folder: Path, documents: list[str], tokenizer: TextTokenizer, held: Held) -> Packed:
    return Packed.make(folder, iter(documents), tokenizer, held, {})


def test_blocks_are_pieces_of_the_joined_documents_in_their_frame(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    documents = [TEXT[:i] for i in range(10, 30)]
    packed = pack(tmp_path, documents, tokenizer, Held())
    joined = [i for text in documents for i in (*tokenizer.ids(text), tokenizer.end)]
    assert packed.stream("train").tolist() == joined
    blocks = Blocks(packed.stream("train"), 8, tokenizer.begin, tokenizer.end)
    rows = blocks.rows(torch.arange(len(blocks)))
    assert rows[:, 1:-1].flatten().tolist() == joined[: len(blocks) * 6] and len(joined) - len(blocks) * 6 < 6
    assert (rows[:, 0] == tokenizer.begin).all() and (rows[:, -1] == tokenizer.end).all()


def test_the_last_documents_are_held_out(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    packed = pack(tmp_path, ["a", "b", "c", "d", "e"], tokenizer, Held(last=2))
    assert packed.card["documents"] == {"train": 3, "validation": 2}
    assert tokenizer.text(packed.stream("validation").tolist()) == f"d{END}e{END}"
    assert tokenizer.text(packed.stream("train").tolist()) == f"a{END}b{END}c{END}"


def test_a_share_is_held_out_by_document_and_seed() -> None:
    documents = [str(i) for i in range(2000)]
    chosen = {s: [t for split, t in Held(0.1, seed=s).split(documents) if split == "validation"] for s in (0, 1)}
    assert 150 < len(chosen[0]) < 250 and chosen[0] != chosen[1]
    assert chosen[0] == [t for split, t in Held(0.1, seed=0).split(documents) if split == "validation"]
    more = [t for split, t in Held(0.1).split([*documents, "new"]) if split == "validation"]
    assert [t for t in more if t != "new"] == chosen[0]


def test_what_was_packed_is_found_again_and_what_was_broken_off_is_not(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    packed = pack(tmp_path, ["a", "b"], tokenizer, Held(last=1))
    again = Packed.open(tmp_path)
    assert again is not None and again.stream("train").tolist() == packed.stream("train").tolist()
    (tmp_path / "train.bin").write_bytes(b"\0")
    assert Packed.open(tmp_path) is None
    assert Packed.open(tmp_path / "absent") is None

    def broken() -> Iterator[str]:
        yield "a"
        raise InputError("the source broke off")

    with pytest.raises(InputError):
        Packed.make(tmp_path / "new", broken(), tokenizer, Held(), {})
    assert Packed.open(tmp_path / "new") is None and not list((tmp_path / "new").iterdir())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 12))
def test_batches_resume_anywhere_and_show_every_block_once(blocks: int, batch: int, start: int) -> None:
    source = Blocks(np.arange(blocks * 2, dtype=np.uint16), 4, 0, 0)
    whole = list(islice(source.batches(batch, 3, "train"), start + 3))
    resumed = list(islice(source.batches(batch, 3, "train", start), 3))
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], resumed, strict=True))
    per_epoch = -(-blocks // batch)
    epoch = torch.cat(list(islice(source.batches(batch, 3, "train"), per_epoch)))[:blocks, 1]
    assert sorted(epoch.tolist()) == list(range(0, blocks * 2, 2))


def test_epochs_and_seeds_differ() -> None:
    source = Blocks(np.arange(200, dtype=np.uint16), 4, 0, 0)
    first, second = islice(source.batches(100, 0, "train"), 2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, next(source.batches(100, 1, "train")))


def test_large_vocabularies_fit(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    assert pack(tmp_path, ["a"], tokenizer, Held()).card["dtype"] == "uint16"
    with pytest.raises(InputError, match="batch_size=0"):
        next(Blocks(np.arange(9), 4, 0, 0).batches(0, 0, "train"))
