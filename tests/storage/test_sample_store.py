"""A store of samples is the list of the samples that went in, whoever asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from didi_core.storage.records import unique
from didi_core.storage.sample_store import Chosen, Joined, Listed, SampleStore, first_of_each, texts_of
from didi_core.types import Sample

VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3))
SAMPLES = st.builds(
    Sample,
    st.text(max_size=5),
    st.sampled_from(["", "a", "b", "a_2", "seq_1", "seq_3"]),
    st.one_of(st.none(), st.lists(st.integers(), max_size=3).map(tuple)),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), st.one_of(VALUES, st.lists(VALUES, max_size=2))),
)


def stored(samples: Sequence[Sample]) -> tuple[SampleStore, int]:
    store = SampleStore()
    for sample in samples:
        store.add(sample.text, sample.id, sample.tokens, sample.info)
    return store, store.number_repeated()


def named(samples: Sequence[Sample]) -> tuple[list[Sample], int]:
    """The rule of names, one sample after the other."""
    used: dict[str, int] = {}
    made = [replace(s, id=unique(s.id or f"seq_{i}", used)) for i, s in enumerate(samples, start=1)]
    return made, sum(new.id != old.id for new, old in zip(made, samples, strict=True))


@settings(deadline=None, max_examples=150)
@given(st.lists(SAMPLES, max_size=7))
def test_what_comes_out_is_what_went_in(samples: list[Sample]) -> None:
    store, renamed = stored(samples)
    expected, count = named(samples)
    assert list(store) == expected and renamed == count
    assert list(texts_of(store)) == [sample.text for sample in samples]
    assert store == expected and store == tuple(expected) and (store != expected[:-1] or not expected)


MADE = [Sample(f"M{i}", f"s{i}", None, {"n": i}) for i in range(7)]


@pytest.mark.parametrize("kind", ["store", "chosen", "joined", "joined of one"])
def test_every_kind_is_a_sequence(kind: str) -> None:
    found: dict[str, Listed[Sample]] = {
        "store": stored(MADE)[0],
        "chosen": Chosen(Chosen(stored([*MADE, *MADE])[0], np.arange(14)), np.arange(7)),
        "joined": Joined([[], stored(MADE[:3])[0], stored(MADE[3:4])[0], MADE[4:], []]),
        "joined of one": Joined([stored(MADE)[0]]),
    }
    those = found[kind]
    assert len(those) == 7 and list(those) == MADE == [those[i] for i in range(7)]
    assert [s.text for s in those] == list(texts_of(those)) == [texts_of(those)[i] for i in range(7)]
    assert those[-1] == MADE[-1] and those[-7] == MADE[0] and those[np.int64(2)] == MADE[2]
    for part in (slice(None, None, 2), slice(2, 5), slice(None, None, -1), slice(9, 12)):
        assert those[part] == MADE[part] and texts_of(those[part]) == [s.text for s in MADE[part]]
    for number in (7, -8):
        with pytest.raises(IndexError):
            those[number]
    assert MADE[3] in those and those.index(MADE[5]) == 5 and "7 elements" in repr(those)


def test_words_become_values_when_they_are_asked_for() -> None:
    kinds: dict[str, Any] = {"n": int}
    store = SampleStore(lambda key, word: kinds[key](word))
    store.add("M", "a", None, {"n": "1"})
    kinds["n"] = float
    assert store[0].info == {"n": 1.0}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_the_first_of_equal_rows_is_kept(rows: list[tuple[int, int]]) -> None:
    keys = np.array(rows, dtype=np.uint64).reshape(-1, 2)
    assert first_of_each(keys).tolist() == [i for i, row in enumerate(rows) if row not in rows[:i]]
