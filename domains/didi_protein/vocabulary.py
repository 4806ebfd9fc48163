"""The 33 tokens of ESM-2 and DPLM, in code: no tokenizer, no download.

Ids follow ``vocab.txt`` of facebook/esm2 and airkingbd/dplm. Tokenising here is strict on purpose: Hugging Face's
``EsmTokenizer`` turns a whole run of unknown or lower-case letters into one ``<unk>``, which changes the length in
silence.
"""

from __future__ import annotations

import re

import numpy as np

from didi_core.errors import InputError
from didi_core.types import Vocabulary

TOKENS = (
    "<cls>", "<pad>", "<eos>", "<unk>",
    "L", "A", "G", "V", "S", "E", "R", "T", "I", "D", "P", "K", "Q", "N", "F", "Y", "M", "H", "W", "C",
    "X", "B", "U", "Z", "O", ".", "-", "<null_1>",
)  # fmt: skip
FIRST_RESIDUE, LAST_RESIDUE = 4, 23
RESIDUES = "".join(TOKENS[FIRST_RESIDUE : LAST_RESIDUE + 1])  # the 20 amino acids in the order of their ids
CLS, PAD, EOS, MASK = 0, 1, 2, 32
PROPERTIES = {
    "hydrophobic": "AILMV",
    "aromatic": "FWY",
    "polar": "CNQST",
    "positive": "HKR",
    "negative": "DE",
    "glycine, proline": "GP",
}

VOCABULARY = Vocabulary(
    size=32,
    forbidden=tuple(i for i in range(32) if not FIRST_RESIDUE <= i <= LAST_RESIDUE),
    pad=PAD,
    bos=CLS,
    eos=EOS,
    tokens=TOKENS,
)

_OTHER_LETTER = re.compile(f"[^{RESIDUES}{RESIDUES.lower()}]")
ID_OF_BYTE = np.zeros(256, dtype=np.int64)  # 0 for what is no residue
for _id, _letter in enumerate(RESIDUES, start=FIRST_RESIDUE):
    ID_OF_BYTE[ord(_letter)] = ID_OF_BYTE[ord(_letter.lower())] = _id

_WHY = {
    "*": "a stop codon inside the sequence",
    "/": "a break between chains: give each chain a record of its own",
    ":": "a break between chains: give each chain a record of its own",
    "-": "a gap: remove the alignment's gaps",
    ".": "a gap: remove the alignment's gaps",
    "X": "an unknown residue",
    "B": "aspartate or asparagine",
    "Z": "glutamate or glutamine",
    "J": "leucine or isoleucine",
    "U": "selenocysteine",
    "O": "pyrrolysine",
}


def first_other_letter(sequence: str) -> tuple[int, str] | None:
    """1-based position and letter of the first character outside the 20 amino acids (either case), or None."""
    found = _OTHER_LETTER.search(sequence)
    return None if found is None else (found.start() + 1, found.group())


def describe_letter(position: int, letter: str) -> str:
    """What is wrong with the letter, for a message: ``letter 'X' at position 3 (an unknown residue) is not ...``."""
    why = _WHY.get(letter.upper())
    note = f" ({why})" if why else ""
    return (
        f"letter {letter!r} at position {position}{note} is not one of the 20 amino acids {''.join(sorted(RESIDUES))}"
    )


def residue_ids(sequence: str) -> np.ndarray:
    """Ids 4..23 of a sequence, [L] int64, without <cls> and <eos>. Raises InputError for other letters."""
    bad = first_other_letter(sequence)
    if bad is not None:
        raise InputError(describe_letter(*bad))
    return ID_OF_BYTE[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
