"""The contract of a domain, one function for each requirement.

The message of a violation gives the call, its result, and the expected result.
"""

from __future__ import annotations

import itertools
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from didi_core.domain.controls import negative_controls
from didi_core.errors import InputError
from didi_core.evaluation.intervals import bootstrap
from didi_core.evaluation.measure import evaluate_samples
from didi_core.sequences.batches import SPLITS
from didi_core.streams import generator
from didi_core.testing.bench import SAMPLES, Bench, Broken, promise, refuses
from didi_core.testing.conditional_checks import check_given
from didi_core.testing.network_checks import check_sampling, check_scorer, check_teacher
from didi_core.types import Denoiser, Domain, Metric, Sample

WIDTH, EVERY_PAIR = 9, 40  # tokens of a written sequence; largest vocabulary of which all pairs are written


def check_vocabulary(bench: Bench) -> None:
    """Special ids are pinned, never generated, and all networks and templates use the same mask."""
    vocabulary = bench.domain.vocabulary
    wrong = {*vocabulary.pinned} & {*vocabulary.generated}
    promise(not wrong, f"the ids {sorted(wrong)} are special and may be generated; list them in Vocabulary.forbidden.")
    tokens = vocabulary.tokens
    promise(tokens is None or len({*tokens}) == len(tokens), "two tokens of the vocabulary have one spelling.")
    promise(
        bool(bench.domain.name) and bench.domain.name == bench.domain.name.strip().lower(),
        f"name={bench.domain.name!r}: give a lower-case name, as users will write it after domain=.",
    )
    promise(bench.domain.suffix.startswith("."), f"suffix={bench.domain.suffix!r} must begin with a dot: '.fasta'.")


def check_text(bench: Bench) -> None:
    """encode and decode are inverse on natural sequences, and only tokens of the vocabulary come out."""
    domain = bench.domain
    for sample in bench.natural:
        tokens = domain.encode(sample.text)
        outside = [t for t in tokens if not 0 <= t < domain.vocabulary.size]
        promise(not outside, f"encode({sample.text[:30]!r}) gave the ids {outside[:5]}, which the vocabulary lacks.")
        never = {*tokens} & {*domain.vocabulary.forbidden} - {*domain.vocabulary.pinned}
        promise(  # a prompt may spell what no model writes
            not never or domain.vocabulary.given_copies,
            f"encode({sample.text[:30]!r}) gave forbidden ids {sorted(never)}: no model will write them.",
        )
        again = domain.encode(domain.decode(tokens))
        promise(
            again == tokens,
            f"decode does not undo encode: {sample.text[:30]!r} has the ids {tokens[:10]}, and its decoded text "
            f"{domain.decode(tokens)[:30]!r} has {again[:10]}.",
        )
    padded = [*tokens, domain.vocabulary.pad] if domain.vocabulary.pad is not None else tokens
    promise(domain.decode(padded) == domain.decode(tokens), "decode does not drop padding.")


def check_generated(bench: Bench) -> None:
    """encode and decode are inverse on everything that a model may write, because metrics and judges read its text.

    Without spellings in the vocabulary (subwords), other tokens may spell the same text; then only the text must agree.
    """
    domain, vocabulary = bench.domain, bench.domain.vocabulary
    for tokens in _written(bench):
        text = domain.decode(tokens)
        try:
            again = domain.encode(text)
        except InputError as error:
            words = f"a model may write the tokens {tokens}, and encode refuses their text {text!r}: {error}"
            raise Broken(words) from error
        promise(
            domain.decode(again) == text,
            f"a model may write {text!r}, which becomes {domain.decode(again)!r} when it is read again.",
        )
        promise(
            vocabulary.tokens is None or again == tokens,
            f"encode does not undo decode: a model may write the tokens {tokens}, and their text {text!r} has {again}.",
        )


def _written(bench: Bench) -> list[list[int]]:
    """Sequences of tokens as a model may write them: random ones, and of few tokens every pair of neighbours."""
    vocabulary = bench.domain.vocabulary
    ids = torch.tensor(vocabulary.generated)
    drawn = ids[torch.randint(len(ids), (SAMPLES * WIDTH,), generator=generator(0, "contract", "generated"))]
    rows = drawn.view(SAMPLES, WIDTH)
    if len(ids) <= EVERY_PAIR:
        pairs = torch.cartesian_prod(ids, ids).flatten()
        stream = torch.cat([pairs, pairs[:WIDTH].repeat(WIDTH)])
        rows = torch.cat([rows, stream.unfold(0, WIDTH, WIDTH - 1)])  # rows share a token, so no pair is cut
    free = bench.domain.template([WIDTH] * len(rows))
    places = free == vocabulary.mask
    return free.masked_scatter(places, rows.flatten()[: int(places.sum())]).tolist()


def check_template(bench: Bench) -> None:
    """A template has exactly the requested free positions; all others are special; padding is on the right."""
    domain, vocabulary = bench.domain, bench.domain.vocabulary
    shortest = min(domain.lengths(8, generator(0, "contract")))
    asked = [shortest, shortest + 2] if vocabulary.pad is not None else [shortest, shortest]
    made = domain.template(asked)
    promise(
        made.dtype == torch.long and made.ndim == 2, f"template gave {made.dtype} of {made.ndim} axes; int64 [B, L]."
    )
    free = (made == vocabulary.mask).sum(1).tolist()
    promise(free == asked, f"template({asked}) has {free} free positions (the mask is id {vocabulary.mask}).")
    strange = sorted({*made[made != vocabulary.mask].tolist()} - {*vocabulary.pinned, *_frame(bench)})
    promise(
        not strange,
        f"template({asked}) holds the ids {strange} beside the mask; only BOS, EOS and padding belong there.",
    )
    if vocabulary.pad is not None:
        real = made != vocabulary.pad
        ends = torch.arange(made.shape[1]) < vocabulary.lengths(made)[:, None]
        promise(bool((real == ends).all()), "template has padding before a token; pad on the right.")


def _frame(bench: Bench) -> set[int]:
    """Ids that a domain pins by their position: those with which every encoded text begins and ends."""
    encoded = [bench.domain.encode(sample.text) for sample in bench.natural]
    ends = ({row[place] for row in encoded if row} for place in (0, -1))
    return {token for found in ends if len(found) == 1 for token in found}


def check_lengths(bench: Bench) -> None:
    """lengths gives n numbers of at least one, which depend only on the generator."""
    domain = bench.domain
    first, again, other = (domain.lengths(50, generator(seed, "contract")) for seed in (1, 1, 2))
    promise(len(first) == 50, f"lengths(50) gave {len(first)} lengths.")
    promise(all(isinstance(n, int) and n >= 1 for n in first), f"lengths gave {first[:5]}; whole numbers from 1.")
    promise(first == again, "lengths differ for equal generators: draw from the generator that is passed.")
    promise(len({*first, *other}) == 1 or first != other, "lengths ignore the generator that is passed.")


def check_batches(bench: Bench) -> None:
    """Batches are endless, of the requested size, the same for a seed, and ``start`` skips exactly so many."""
    domain, vocabulary = bench.domain, bench.domain.vocabulary
    for split in SPLITS:
        first = list(itertools.islice(domain.batches(split, 5, seed=3), 4))
        again = list(itertools.islice(domain.batches(split, 5, seed=3), 4))
        later = list(itertools.islice(domain.batches(split, 5, seed=3, start=2), 2))
        promise(
            all(_same(a, b) for a, b in zip(first, again, strict=True)), f"{split}: one seed gave different batches."
        )
        promise(
            all(_same(a, b) for a, b in zip(first[2:], later, strict=True)),
            f"{split}: start=2 does not give what comes after two batches, so a resumed run would see other data.",
        )
        promise(all(len(b) == 5 for b in first), f"{split}: batch_size=5 gave rows of {[len(b) for b in first]}.")
        for batch in first:
            ids = {*batch[~vocabulary.is_given(batch)].tolist()}
            promise(vocabulary.mask not in ids, f"{split}: a batch holds the mask; the core does the masking.")
            promise(
                ids <= {*range(vocabulary.size)},
                f"{split}: ids {sorted(ids - {*range(vocabulary.size)})[:5]} are unknown.",
            )
            promise(bool(vocabulary.maskable(batch).any(1).all()), f"{split}: a row has no token beside special ones.")
    other = next(iter(domain.batches("train", 5, seed=4)))
    promise(not _same(other, next(iter(domain.batches("train", 5, seed=3)))), "another seed gave the same first batch.")
    refuses(lambda: domain.batches("test", 5, seed=0), "batches('test')")


def check_held_out(bench: Bench) -> None:
    """Held-out samples are not training sequences."""
    domain = bench.domain
    promise(bool(bench.natural), "held_out gave no sample.")
    again = [sample.text for sample in domain.held_out(SAMPLES, 0)]
    promise(again == [sample.text for sample in bench.natural], "held_out differs between two calls with one seed.")
    known: set[str] = set()
    for batch in itertools.islice(domain.batches("train", 16, seed=0), 16):
        ends = domain.vocabulary.lengths(batch).tolist()
        known |= {domain.decode(row[:end]) for row, end in zip(batch.tolist(), ends, strict=True)}
    shared = [t for t in again if domain.decode(domain.encode(t)) in known]
    # Short sequences may occur twice by chance; long ones do not.
    innocent = len(shared) <= len(again) / 2 and max(map(len, shared), default=0) <= 12
    promise(innocent, f"{len(shared)} held-out samples are training sequences too, such as {shared[:1]}.")


def check_metrics(bench: Bench) -> None:
    """Quality and entropy come first; statistics have one row per sample; values have intervals; names are unique."""
    metrics = bench.domain.metrics()
    promise(len(metrics) >= 2, f"metrics() gave {len(metrics)}; the first is the quality, the second the entropy.")
    names = [metric.name for metric in metrics]
    promise(len({*names}) == len(names), f"two metrics have one name: {names}.")
    for metric in metrics:
        promise(isinstance(metric, Metric), f"metric {metric!r} lacks a member of didi_core.types.Metric.")
        if len(bench.natural) < metric.minimum:
            continue
        rows = np.asarray(metric.statistics(bench.natural))
        promise(
            rows.ndim == 2 and len(rows) == len(bench.natural),
            f"metric {metric.name}: statistics of {len(bench.natural)} samples have shape {rows.shape}; [n, k].",
        )
        value = bootstrap(metric, rows.astype(np.float64), 100, 0)
        promise(np.isfinite(value.value), f"metric {metric.name} is {value.value} on held-out samples.")
        promise(
            value.low <= value.value <= value.high or metric.minimum > 1,
            f"metric {metric.name}: {value} is not an interval.",
        )
    promise(
        metrics[0].better != "neither",
        f"the quality {names[0]} must say what is better: lower, for a frontier, or higher, to be compared as it is.",
    )
    if metrics[0].better == "lower" and len(bench.natural) >= metrics[0].minimum:
        rows = np.asarray(metrics[0].statistics(bench.natural), dtype=np.float64)
        raw = float(metrics[0].aggregate(np.nanmean(rows, axis=0)))
        promise(raw > 0, f"the quality {names[0]} is {raw:.3g} on held-out samples; a frontier needs it above zero.")


def check_controls(bench: Bench) -> None:
    """The quality distinguishes held-out samples from at least one of the negative controls."""
    quality = bench.domain.metrics()[0]
    if len(bench.natural) < quality.minimum:
        return
    known = evaluate_samples([quality], bench.natural).values[quality.name].value
    made = negative_controls(bench.domain, bench.natural)
    values = {n: evaluate_samples([quality], s).values[quality.name].value for n, s in made.items()}
    listed = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    sign = 1 if quality.better == "lower" else -1
    promise(
        any(sign * value > sign * known for value in values.values()),
        f"the quality {quality.name} is {known:.3g} on held-out samples and no worse on the controls: {listed}.",
    )


def check_files(bench: Bench) -> None:
    """Samples are unchanged after writing and reading; a file without samples is refused."""
    domain, path = bench.domain, bench.folder / f"samples{bench.domain.suffix}"
    samples = [Sample(s.text, f"seq_{i}", info={"nfe": 4}) for i, s in enumerate(bench.natural[:5], start=1)]
    domain.write(path, samples)
    again = domain.read(path)
    try:
        same = [domain.encode(s.text) for s in again] == [domain.encode(s.text) for s in samples]
    except InputError:
        same = False
    promise(same, "samples are not the same after write and read.")
    promise([s.id for s in again] == [s.id for s in samples], "ids of samples are lost between write and read.")
    broken = bench.folder / f"broken{domain.suffix}"
    broken.write_bytes(b"\x00\xff\x00 not a sample \x01")
    refuses(lambda: domain.read(broken), f"read of a binary file as {domain.suffix}")
    refuses(lambda: domain.read(bench.folder / f"absent{domain.suffix}"), "read of a file that is not there")


def check_input(bench: Bench) -> None:
    """Input that cannot be represented is refused with a message."""
    domain = bench.domain
    refuses(lambda: domain.template([0]), "template([0])")
    refuses(lambda: domain.template([]), "template([])")
    refuses(lambda: domain.batches("train", 0, seed=0), "batches with batch_size=0")
    refuses(lambda: domain.decode([domain.vocabulary.ids + 6]), "decode of an id outside the vocabulary")
    spelled = domain.vocabulary.tokens
    if spelled is not None and not any("\u2603" in token for token in spelled):
        refuses(lambda: domain.encode("\u2603\u2603"), "encode of a letter outside the alphabet")


def check_pickling(bench: Bench) -> None:
    """The domain can be sent to another process, and behaves there in the same way."""
    try:
        again: Domain = pickle.loads(pickle.dumps(bench.domain))
    except Exception as error:
        raise Broken(
            f"the domain cannot be pickled for worker processes ({type(error).__name__}: {error}). "
            "Lambdas, open files and nested functions cannot travel."
        ) from error
    first, other = (next(iter(domain.batches("train", 4, seed=0))) for domain in (bench.domain, again))
    promise(_same(first, other), "a pickled copy of the domain gives other batches.")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


CHECKS: dict[str, Callable[[Bench], None]] = {
    "vocabulary": check_vocabulary,
    "text": check_text,
    "generated": check_generated,
    "template": check_template,
    "lengths": check_lengths,
    "batches": check_batches,
    "held_out": check_held_out,
    "teacher": check_teacher,
    "scorer": check_scorer,
    "sampling": check_sampling,
    "metrics": check_metrics,
    "controls": check_controls,
    "files": check_files,
    "input": check_input,
    "pickling": check_pickling,
    "given": check_given,
}


def faults(domain: Domain, teacher: Denoiser | None = None) -> dict[str, str]:
    """The faults of a domain, by check; empty if it keeps the whole contract."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(domain, teacher, Path(folder))
        for name, check in CHECKS.items():
            try:
                check(bench)
            except Exception as error:  # any exception of the domain is a fault
                found[name] = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
    return found
