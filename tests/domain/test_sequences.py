"""A domain of letters from nothing but its alphabet: data, lengths, batches, files, errors."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from didi_core.domain.conditioning import Conditioning, index_map, read_template, verify
from didi_core.domain.controls import negative_controls
from didi_core.errors import InputError
from didi_core.evaluation.contenders import Measuring
from didi_core.evaluation.evaluate import evaluate_files
from didi_core.letters import Letters as Letters_
from didi_core.metrics import KmerDivergence, word_counts
from didi_core.models.dit import DiT, DiTConfig
from didi_core.report.record import build_report
from didi_core.report.write import write_report
from didi_core.run import Run
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.sequences import AlphabetDomain
from didi_core.storage.fasta import write_fasta
from didi_core.storage.jsonl import write_jsonl
from didi_core.storage.sample_files import read_samples
from didi_core.streams import seeded
from didi_core.testing import DomainContract
from didi_core.types import Sample


class Letters(AlphabetDomain):
    name, alphabet = "letters", "abcd"

    def normalise(self, text: str) -> str:
        return text.lower()


def written(folder: Path, texts: Sequence[str], name: str = "x.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(texts) + "\n")
    return path


def words(n: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    shares = [0.6, 0.2, 0.15, 0.05]
    return ["".join(random.choice(list("abcd"), p=shares, size=random.integers(4, 20))) for _ in range(n)]


@pytest.fixture
def domain(tmp_path: Path) -> Letters:
    return Letters(written(tmp_path, words(120)))


class TestLetters(DomainContract):
    @pytest.fixture(autouse=True)
    def at(self, tmp_path: Path) -> None:
        self.path = written(tmp_path, words(200))

    def make(self) -> Letters:
        return Letters(self.path)


def test_files_of_every_kind_hold_the_same_sequences(tmp_path: Path) -> None:
    texts = ["abca", "ddab"]
    plain = written(tmp_path, texts)
    fasta = written(tmp_path, [">one first", "ab", "ca", ">two", "ddab"], "x.fa")
    packed = tmp_path / "x.fa.gz"
    packed.write_bytes(gzip.compress(fasta.read_bytes()))
    Letters().write(tmp_path / "x.jsonl", [Sample(text) for text in texts])
    for path in (plain, fasta, packed, tmp_path / "x.jsonl"):
        assert [sample.text for sample in Letters().read(path)] == texts, path
    assert [sample.id for sample in Letters().read(fasta)] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.txt", "ab\nabXb\n", r"x.txt, line 2: letter 'X' at position 3 is not in the alphabet of letters: abcd"),
        ("x.fa", ">one\nab\n>two\nq\n", r"x.fa, line 3, record 'two': letter 'q' at position 1"),
        ("x.fa", "ab\n", "line 1: 'ab' stands before the first '>'"),
        ("x.jsonl", '{"text": "abe"}\n', "line 1: letter 'e' at position 3"),
        ("x.txt", "\n\n", "there is no record in it"),
    ],
)
def test_bad_files_are_told_with_their_place(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=told):
        Letters().read(tmp_path / name)


def test_split_keeps_equal_sequences_together_and_does_not_move_when_the_file_grows(tmp_path: Path) -> None:
    small = Letters(written(tmp_path, [*words(100), *(word.upper() for word in words(100))]))
    large = Letters(written(tmp_path, [*words(100), *words(300, seed=1)], "y.txt"))
    assert not {s.text.lower() for s in small.splits["train"]} & {s.text.lower() for s in small.splits["validation"]}
    assert {s.text for s in small.splits["validation"]} <= {s.text for s in large.splits["validation"]}


def test_lengths_outside_are_left_out_and_nothing_left_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, words(120))
    kept = Letters(path, min_length=8, max_length=12, allow_loss=True)
    assert all(8 <= len(s.text) <= 12 for part in kept.splits.values() for s in part)
    with pytest.raises(InputError, match="split of .*x.txt is empty: 0 different sequences of 50 to 60 letters"):
        Letters(path, min_length=50, max_length=60, allow_loss=True).splits  # noqa: B018


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"min_length": 0}, "data.min_length=0"),
        ({"validation": 1.0}, "data.validation=1.0 is out of range"),
    ],
)
def test_settings_are_checked(given: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Letters(**given)


def test_without_data_it_says_which_key_to_set() -> None:
    for ask in (lambda: next(Letters().batches("train", 2, 0)), lambda: Letters().lengths(2, torch.Generator())):
        with pytest.raises(InputError, match="domain letters has no data: set data.path"):
            ask()
    with pytest.raises(InputError, match="no bundled teacher: train one with .*pretrain domain=letters"):
        Letters().teacher()


@pytest.mark.parametrize("alphabet", ["a", "aa", "a_", "a b"])
def test_alphabets_that_cannot_be_read_back_are_refused(alphabet: str) -> None:
    with pytest.raises(InputError, match="give at least two different letters"):
        type("Odd", (AlphabetDomain,), {"name": "odd", "alphabet": alphabet})()


def test_sorting_in_pools_shows_the_same_sequences_with_less_padding(domain: Letters) -> None:
    def epoch(pool: int) -> list[torch.Tensor]:
        made = type("Pooled", (Letters,), {"pool": pool})(domain.paths)
        count = -(-len(made.splits["train"]) // 8)
        batches = made.batches("train", 8, seed=0)
        return [next(batches) for _ in range(count)]

    plain, pooled = epoch(1), epoch(8)
    padding = [sum(int((b == domain.vocabulary.pad).sum()) for b in batches) for batches in (plain, pooled)]
    assert padding[1] < padding[0] / 2

    def rows(batches: list[torch.Tensor]) -> set[str]:
        return {domain.decode(row) for batch in batches for row in batch.tolist()}

    assert rows(plain) == rows(pooled)


def test_word_counts_and_their_divergence_by_hand() -> None:
    assert word_counts("abab", "ab", 2).tolist() == [0, 2, 1, 0]
    assert word_counts("a", "ab", 2).tolist() == [0, 0, 0, 0]
    metric = KmerDivergence("ab", 1, np.array([1.0, 3.0]))
    rows = metric.statistics([Sample("aabb"), Sample("ab")])
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert metric.aggregate(rows.mean(0)) == pytest.approx(expected)


# --- letters of several characters


class Molecules(AlphabetDomain):
    name, alphabet = "molecules", ("C", "N", "O", "Cl", "Br", "(", ")")


class TestMolecules(DomainContract):
    @pytest.fixture(autouse=True)
    def at(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(Molecules.alphabet, size=random.integers(4, 20))) for _ in range(200)]
        self.path = written(tmp_path, texts)

    def make(self) -> Molecules:
        return Molecules(self.path)


def test_letters_of_several_characters_are_read_by_the_longest_match() -> None:
    domain = Molecules()
    tokens = domain.encode("CClBr(N)")
    assert tokens == [0, 3, 4, 5, 1, 6] and domain.decode(tokens) == "CClBr(N)"
    assert domain.decode([3, domain.vocabulary.mask, 4, domain.vocabulary.pad]) == "Cl_Br"
    with pytest.raises(InputError, match=r"letter 'l' at position 2 is not in the alphabet of molecules: C N O Cl Br"):
        domain.encode("Nl")


def test_templates_entropy_words_and_controls_count_letters_not_characters() -> None:
    domain, mask = Molecules(), Molecules().vocabulary.mask
    assert read_template(domain, "Cl_Br__C") == [3, mask, 4, mask, mask, 0]
    assert (domain.template([2, 3]) == mask).sum(1).tolist() == [2, 3]
    entropy = domain.entropy().statistics([Sample("ClClBrBr"), Sample("ClCl"), Sample("")])[:, 0]
    assert entropy[:2] == pytest.approx([np.log(2), 0.0], abs=1e-12) and np.isnan(entropy[2])
    assert word_counts("ClClBr", ("Cl", "Br"), 2).tolist() == [1, 1, 0, 0]
    natural = [Sample("ClBrCNO(Cl)Br" * 3)]
    made = negative_controls(domain, natural)
    assert sorted(domain.encode(made["shuffled"][0].text)) == sorted(domain.encode(natural[0].text))
    assert len(domain.encode(made["repeats"][0].text)) == len(domain.encode(natural[0].text))


@pytest.mark.parametrize("suffix", [".fasta", ".fasta.gz", ".jsonl", ".txt", ".csv"])
def test_files_keep_letters_of_several_characters(suffix: str, tmp_path: Path) -> None:
    texts, path = ["CClBr(N)", "ClCl" * 30, "BrCOCl"], tmp_path / f"x{suffix}"
    samples = [Sample(text, f"s{i}", info={"nfe": 4}) for i, text in enumerate(texts)]
    if suffix.startswith(".fasta"):
        write_fasta(path, samples)
    elif suffix == ".jsonl":
        write_jsonl(path, samples)
    else:
        written(tmp_path, [*(["text"] if suffix == ".csv" else []), *texts], path.name)
    assert [sample.text for sample in read_samples(Molecules(), path)] == texts
    wrapped = written(tmp_path, [">a", "CC", "lBr"], "wrapped.fasta")  # a letter may go on in the next line
    assert [sample.text for sample in Molecules(wrapped).samples] == ["CClBr"]


def test_samples_and_reports_of_letters_of_several_characters(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(Molecules.alphabet, size=6)) for _ in range(80)]
    domain = Molecules(written(tmp_path, texts))
    with seeded(0, "test"):
        model = DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), domain.vocabulary).eval()
    template = read_template(domain, "Cl___Br_")
    for how in ({"length": 6}, {"templates": [template]}):
        made = generate(domain, model, settings=SamplerSettings(steps=2), num=12, **how)  # type: ignore[arg-type]
        assert [s.info["length"] for s in made.samples] == [6] * 12
        assert {len(domain.encode(s.text)) for s in made.samples} == {6}
    assert all(s.text.startswith("Cl") for s in made.samples)
    asked = Conditioning([template], "template")
    verify(made.samples, asked, domain.vocabulary)
    found = index_map(made.samples, asked, domain.vocabulary)
    assert found is not None and found["samples"]["sample_1"] == {"length": 6, "pinned": "1,5"}
    evaluation = evaluate_files(Run(domain), {"ours": made.samples}, Measuring(12, resamples=20))
    length = next(row for row in evaluation.rows if row.model == "ours").values["length"]
    assert length.value == 6  # in letters
    write_report(tmp_path / "report", build_report(evaluation))
    page = (tmp_path / "report/report.html").read_text()
    assert made.samples[0].text in page and "entropy" in page


@pytest.mark.parametrize("alphabet", [("C", "l", "Cl"), ("a", "ab", "bc"), ("ab", "aba", "b"), ("a", "b c"), ("a", "")])
def test_letters_that_would_be_read_as_others_are_refused(alphabet: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="could not be read back|at least two different letters"):
        Letters_(alphabet)


@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=2, max_size=4, unique=True), st.data())
def test_an_alphabet_that_is_accepted_reads_back_whatever_it_writes(alphabet: list[str], data: st.DataObject) -> None:
    try:
        made = Letters_(tuple(alphabet))
    except InputError:
        return
    ids = data.draw(st.lists(st.integers(0, len(alphabet) - 1), max_size=8))
    assert made.ids("".join(alphabet[i] for i in ids)) == ids
