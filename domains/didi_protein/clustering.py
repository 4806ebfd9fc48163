"""Greedy clusters by shared words, and a split that keeps close relatives on one side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from didi_core.progress import Reporter
from didi_core.storage.sample_store import Chosen
from didi_core.streams import derive_seed

from .contained import may_be_contained
from .kmers import KmerIndex, all_words

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


def greedy_clusters(
    index: KmerIndex, threshold: float = 0.5, bar: Reporter | None = None, members: np.ndarray | None = None
) -> np.ndarray:
    """Label of each sequence, [n]: the index of its cluster's representative.

    Sequences with more distinct k-mers come first, as in CD-HIT. Each joins the first representative that contains at
    least the share ``threshold`` of its k-mers, or becomes one itself. Unlike connected components, this does not chain
    a family into one cluster. For 5-mers and scattered differences, a containment c corresponds to an identity of about
    c^(1/5): 0.5 to 87 %.

    Args:
        index: of all sequences, not filled. While it holds only representatives, a sequence is compared with no others;
            at the end it holds all. bar: advances by one a sequence.
        members: which sequences another one with no fewer k-mers may contain, bool [n]; None for all. The others are
            representatives that nobody needs to look up, and those that may contain a member are in the index already.
    """
    labels = np.arange(len(index))
    place = np.empty(len(index), dtype=np.int64)
    order = np.argsort(-index.sizes, kind="stable")
    place[order] = np.arange(len(order))
    if members is not None:
        order = order[members[order]]
        if bar:
            bar.advance(by=len(index) - len(order))
    joined = []
    for done, number in enumerate(order.tolist(), start=1):
        words = index.words(number)
        leads = _leads(index, words, threshold)
        if len(leads):
            labels[number] = leads[np.argmin(place[leads])]
            joined.append(number)
        else:
            index.add(number, words)
        if bar and (done % AT_ONCE == 0 or done == len(order)):
            bar.advance(by=(done - 1) % AT_ONCE + 1)
    for number in joined:
        index.add(number, index.words(number))
    return labels


def _leads(index: KmerIndex, words: np.ndarray, threshold: float) -> np.ndarray:
    """The representatives that have the share ``threshold`` of a sequence's words; none has fewer words than it.

    Of those that are in the index before their turn (``members``), none with fewer words is found: this sequence would
    have the share of *its* words too, and so it would be a member.
    """
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
    validation set, or a satellite of it would remove the family from training. ``bar`` shows how far it is.
    """
    n = len(sequences)
    quota = min(max(1, round(n * fraction)), n - 1)
    random = np.random.default_rng(derive_seed(seed, "protein split"))
    labels, near = _clusters(sequences, threshold, k, bar)
    names, sizes = np.unique(labels, return_counts=True)
    if quota < 1 or len(names) < 2:
        return _by_sequence(n, quota, len(names), random)
    limit = max(quota // 10, int(sizes.min()))
    members, ends = np.argsort(labels, kind="stable"), np.cumsum(sizes)
    validation, relatives, held = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool), 0
    for cluster in random.permutation(names[sizes <= limit]):
        if held >= quota:
            break
        which = int(np.searchsorted(names, cluster))
        those = members[ends[which] - sizes[which] : ends[which]]
        close = np.unique(np.concatenate([near(i) for i in those.tolist()]))
        if (~validation[close] & (labels[close] != cluster)).sum() <= limit:
            validation[those] = True
            relatives[close] = True
            held += len(those)
    left_out = relatives & ~validation
    train = ~relatives & ~validation
    if not validation.any() or train.sum() < n / 2:  # very few families: too little would be left for training
        return _by_sequence(n, quota, len(names), random)
    return Split(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(left_out), len(names), True)


def _clusters(
    sequences: Sequence[str], threshold: float, k: int, bar: Reporter | None
) -> tuple[np.ndarray, Callable[[int], np.ndarray]]:
    """The greedy clusters, and a function that says to which sequences one is close.

    Of very many, those that no other contains are told by ``may_be_contained``. A relative of these is a member, so the
    index needs the words of members only, and of the others those that have enough of these words.
    """
    found = may_be_contained(sequences, threshold, k, bar)
    if found is None:
        index, members, fewest = KmerIndex(sequences, k, filled=False), None, 0
    else:
        members = found.members
        kept = all_words(Chosen(sequences, np.flatnonzero(members)), k)
        index = KmerIndex(sequences, k, filled=False, kept=kept, sizes=found.sizes)
        fewest = max(int(threshold * found.sizes[members].min(initial=np.iinfo(np.int64).max)), 1)
        index.add_all(np.flatnonzero(~members & (index.kept_sizes >= fewest)))
    if bar:
        bar.start(f"split of {len(sequences):,} sequences by similarity", len(sequences))
    labels = greedy_clusters(index, threshold, bar, members)

    def near(number: int) -> np.ndarray:
        if index.kept_sizes[number] < fewest:  # it has no member among its relatives, and is none
            return np.full(min(int(index.sizes[number]), 1), number)
        return index.close_to(index.words(number), threshold)

    return labels, near


def _by_sequence(n: int, quota: int, clusters: int, random: np.random.Generator) -> Split:
    order = random.permutation(n)
    validation, train = np.sort(order[:quota]), np.sort(order[quota:])
    if not len(validation):
        validation = train  # one sequence: it is both
    return Split(train, validation, np.zeros(0, dtype=np.int64), clusters, False)
