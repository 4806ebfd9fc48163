"""Greedy clusters by shared words, and a split that keeps close relatives on one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.progress import Reporter
from didi_core.streams import derive_seed

from .kmers import KmerIndex

AT_ONCE = 1000  # sequences between two advances of a bar

@dataclass(frozen=True)
class Split:
    """Indices of the sequences. ``left_out``: relatives of validation sequences in other clusters, which are not used.

    ``by_similarity`` is False where there were too few clusters to hold any out whole, and single sequences were drawn
    instead.
    """

    train: np.ndarray
    validation: np.ndarray
    left_out: np.ndarray
    clusters: int
    by_similarity: bool


def greedy_clusters(index: KmerIndex, threshold: float = 0.5, bar: Reporter | None = None) -> np.ndarray:
    """Label of each sequence, [n]: the index of its cluster's representative.

    Sequences with more distinct k-mers come first, as in CD-HIT. Each joins the first representative that contains at
    least the share ``threshold`` of its k-mers, or becomes one itself. Unlike connected components, this does not chain
    a family into one cluster. For 5-mers and scattered differences, a containment c corresponds to an identity of about
    c^(1/5): 0.5 to 87 %.

    Args:
        index: of all sequences, not filled. While it holds only representatives, a sequence is compared with no others;
            at the end it holds all. bar: advances by one a sequence.
    """
    labels = np.full(len(index), -1, dtype=np.int64)
    place = np.empty(len(index), dtype=np.int64)
    order = np.argsort(-index.sizes, kind="stable")
    place[order] = np.arange(len(order))
    members = []
    for done, number in enumerate(order.tolist(), start=1):
        words = index.words(number)
        leads = _leads(index, words, threshold)
        if len(leads):
            labels[number] = leads[np.argmin(place[leads])]
            members.append(number)
        else:
            labels[number] = number
            index.add(number, words)
        if bar and (done % AT_ONCE == 0 or done == len(order)):
            bar.advance(by=(done - 1) % AT_ONCE + 1)
    for number in members:
        index.add(number, index.words(number))
    return labels


def _leads(index: KmerIndex, words: np.ndarray, threshold: float) -> np.ndarray:
    """The representatives that have the share ``threshold`` of a sequence's words; none has fewer words than it."""
    fewest = max(int(threshold * len(words)), 1)  # rounded down, so that no rounding loses one
    if not len(words) or not index.may_share(words, fewest):
        return words[:0]
    names, counts = index.sharing(words, fewest)
    return names[counts / len(words) >= threshold]


def split_by_similarity(
    sequences: Sequence[str],
    *,
    fraction: float = 0.05,
    threshold: float = 0.5,
    seed: int = 0,
    k: int = 5,
    bar: Reporter | None = None,
) -> Split:
    """Hold out whole clusters, about ``fraction`` of the sequences, and keep their relatives out of training.

    Clusters are drawn at random (``seed``). Every sequence outside them whose containment with *any* held-out one
    reaches the threshold is left out of training, so no pair across the split is above it. Neither a held-out cluster
    nor its relatives lost from training may exceed a tenth of the quota. Otherwise one big family would fill the
    validation set, or a satellite of it would remove the family from training. ``bar`` advances by one a sequence.
    """
    n = len(sequences)
    quota = min(max(1, round(n * fraction)), n - 1)
    random = np.random.default_rng(derive_seed(seed, "protein split"))
    index = KmerIndex(sequences, k, filled=False)
    labels = greedy_clusters(index, threshold, bar)
    names, sizes = np.unique(labels, return_counts=True)
    if quota < 1 or len(names) < 2:
        return _by_sequence(n, quota, len(names), random)
    limit = max(quota // 10, int(sizes.min()))
    members_of = dict(
        zip(names.tolist(), np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1]), strict=True)
    )
    validation, relatives, held = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), 0
    for cluster in random.permutation(names[sizes <= limit]).tolist():
        if held >= quota:
            break
        members = members_of[cluster]
        near = np.unique(np.concatenate([index.close_to(index.words(i), threshold) for i in members.tolist()]))
        if (~validation[near] & (labels[near] != cluster)).sum() <= limit:
            validation[members] = True
            relatives[near] = True
            held += len(members)
    left_out = relatives & ~validation
    train = ~relatives & ~validation
    if not validation.any() or train.sum() < n / 2:  # very few families: too little would be left for training
        return _by_sequence(n, quota, len(names), random)
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(left_out), len(names), True)


def _by_sequence(n: int, quota: int, clusters: int, random: np.random.Generator) -> Split:
    order = random.permutation(n)
    validation, train = np.sort(order[:quota]), np.sort(order[quota:])
    if not len(validation):
        validation = train  # one sequence: it is both
    return Split(train, validation, np.zeros(0, dtype=np.int64), clusters, False)
