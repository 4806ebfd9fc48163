"""The ESM vocabulary in code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from didi_core.errors import InputError
from didi_protein import ProteinDomain
from didi_protein.vocabulary import RESIDUES, TOKENS, VOCABULARY

encode, decode = ProteinDomain().encode, ProteinDomain().decode
proteins = st.text(alphabet=RESIDUES, min_size=1, max_size=60)


def test_ids_are_those_of_esm2():
    assert [TOKENS.index(t) for t in ("<cls>", "<pad>", "<eos>", "<unk>", "L", "C", "X", "<null_1>")] == [
        0, 1, 2, 3, 4, 23, 24, 31,
    ]  # fmt: skip
    assert (VOCABULARY.mask, VOCABULARY.bos, VOCABULARY.pad, VOCABULARY.eos) == (32, 0, 1, 2)


def test_only_the_twenty_amino_acids_may_be_generated():
    assert VOCABULARY.generated == tuple(range(4, 24))
    assert sorted(RESIDUES) == sorted("ACDEFGHIKLMNPQRSTVWY")


@given(proteins)
def test_decode_inverts_encode_and_one_letter_is_one_token(sequence: str):
    tokens = encode(sequence)
    assert len(tokens) == len(sequence) + 2
    assert decode([*tokens, VOCABULARY.pad, VOCABULARY.pad]) == sequence


def test_lower_case_is_upper_case():
    assert encode("mkv") == encode("MKV")


@pytest.mark.parametrize(
    "sequence, message",
    [
        ("MKX", r"letter 'X' at position 3 \(an unknown residue\)"),
        ("M*K", r"'\*' at position 2 \(a stop codon"),
        ("-MK", r"'-' at position 1 \(a gap"),
        ("MuK", r"'u' at position 2 \(selenocysteine"),
        ("MK7", "'7' at position 3 is not one of the 20"),
        ("MKß", "'ß' at position 3"),
    ],
)
def test_other_letters_are_named_with_their_position(sequence: str, message: str):
    with pytest.raises(InputError, match=message):
        encode(sequence)


def test_decode_shows_masks_and_refuses_what_is_no_residue():
    assert decode([0, 4, 32, 5, 2]) == "L_A"
    with pytest.raises(InputError, match=r"token 24 \(X\) is not a letter of protein"):
        decode([0, 24, 2])
    with pytest.raises(InputError, match="token 40 is not a letter"):
        decode([40])


def test_same_vocabulary_as_transformers():
    transformers = pytest.importorskip("transformers")
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join([*TOKENS, "<mask>"]))
        tokenizer = transformers.EsmTokenizer(str(path))
        assert tokenizer("MKVW")["input_ids"] == encode("MKVW")
