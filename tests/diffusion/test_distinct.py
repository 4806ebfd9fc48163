"""Rows found by hash are those found by sorting, whatever the hash."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from didi_core.diffusion import distinct

FACTORS = {"random": distinct.factors, "of no use": lambda width, device: torch.zeros(width, dtype=torch.long)}
ROWS = {
    "some equal": [[1, 2, 3], [3, 2, 1], [1, 2, 3], [1, 2, 4], [3, 2, 1]],
    "all equal": [[5, 5]] * 4,
    "all different": [[2, 1], [1, 2], [0, 3]],
    "one": [[7, 7, 7]],
}


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("rows", ROWS)
def test_hashes_find_the_rows_that_sorting_finds(rows: str, factors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distinct, "factors", FACTORS[factors])
    tokens = torch.tensor(ROWS[rows], dtype=torch.long)
    unique, own = distinct.hashed(tokens)
    sorted_rows = torch.unique(tokens, dim=0)
    assert len(unique) == len(sorted_rows) and torch.equal(torch.unique(unique, dim=0), sorted_rows)
    assert torch.equal(unique[own], tokens)


def test_rows_that_all_differ_keep_their_order() -> None:
    tokens = torch.tensor(ROWS["all different"])
    unique, own = distinct.distinct_rows(tokens)
    assert torch.equal(unique, tokens) and own.tolist() == [0, 1, 2]


def test_hashes_tell_permuted_and_neighbouring_rows_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a second look, which would sort: many rows that differ in little."""
    tokens = torch.stack([torch.arange(40).roll(k) for k in range(40)] + [torch.arange(40) + k for k in range(1, 40)])
    twice = torch.cat([tokens, tokens])

    def refuse(rows: Tensor, **more: object) -> None:
        assert rows.dim() == 1 and "dim" not in more, "sorted"
        return unique(rows, **more)  # type: ignore[no-any-return]

    unique = torch.unique
    monkeypatch.setattr(torch, "unique", refuse)
    found, own = distinct.hashed(twice)
    assert len(found) == len(tokens) and torch.equal(found[own], twice)
