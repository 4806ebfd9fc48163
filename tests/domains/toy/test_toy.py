"""The toy domain: its oracle against enumeration, its data and files, and metrics that distinguish good from bad."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tolerance import close

from didi_core.diffusion.masking import log_p_x0
from didi_core.errors import InputError
from didi_core.storage.jsonl import write_jsonl
from didi_core.storage.sample_files import read_file
from didi_core.streams import generator
from didi_core.types import Metric, Sample
from didi_toy import ExactTeacher, MarkovChain, ToyDomain, create, default_chain


def random_chain(symbols: int, seed: int) -> MarkovChain:
    stream = generator(seed, "random chain")
    weights = torch.rand(symbols + 1, symbols, generator=stream, dtype=torch.float64) ** 2 + 0.02
    rows = weights / weights.sum(1, keepdim=True)
    return MarkovChain(rows[0], rows[1:])


CHAIN = random_chain(3, 0)


def all_patterns(length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([False, True], repeat=length)))


def test_joint_sums_to_one_and_lists_every_sequence() -> None:
    x, log_p = CHAIN.joint(4)
    assert x.shape == (81, 4) and len({tuple(row) for row in x.tolist()}) == 81
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_posterior_and_marginal_equal_enumeration_for_every_visible_subset() -> None:
    x, log_p = CHAIN.joint(4)
    for visible in all_patterns(4):
        agree = ((x[:, None] == x[None]) | ~visible).all(-1).double()  # [evidence, sequence]
        weights = agree * log_p.exp()
        evidence = weights.sum(1)
        one_hot = torch.nn.functional.one_hot(x, 3).double()
        expected = torch.einsum("en,nlv->elv", weights / evidence[:, None], one_hot)
        shown = visible.expand_as(x)
        torch.testing.assert_close(CHAIN.posterior(x, shown).exp(), expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(CHAIN.log_marginal(x, shown).exp(), evidence, atol=1e-12, rtol=0)


def test_padding_changes_nothing() -> None:
    teacher = ExactTeacher(CHAIN)
    pad, mask = teacher.vocabulary.pad, teacher.vocabulary.mask
    x = CHAIN.sample(32, 6, generator(0, "x"))
    x[torch.rand(x.shape, generator=generator(0, "m")) < 0.6] = mask
    padded = torch.cat([x, torch.full((32, 3), pad)], 1)
    lengths = torch.full((32,), 6)
    close(teacher(padded)[:, :6], teacher(x))
    shown = padded < 3
    posterior = CHAIN.posterior(padded, shown, lengths)
    close(posterior[:, :6], CHAIN.posterior(x, x < 3))
    close(CHAIN.log_marginal(padded, shown, lengths), CHAIN.log_marginal(x, x < 3))
    whole = CHAIN.sample(32, 6, generator(0, "x"))
    longer = torch.cat([whole, padded[:, 6:]], 1)
    close(CHAIN.log_prob(longer, lengths), CHAIN.log_prob(whole))


def test_rows_of_different_length_do_not_mix() -> None:
    teacher = ExactTeacher(CHAIN)
    pad, mask = teacher.vocabulary.pad, teacher.vocabulary.mask
    batch = torch.tensor([[0, mask, 2, mask], [mask, 1, pad, pad], [mask, pad, pad, pad]])
    together = teacher(batch)
    for row, length in zip(range(3), (4, 2, 1), strict=True):
        close(together[row, :length], teacher(batch[row : row + 1, :length])[0])


def test_exact_teacher_logits_are_normalised_and_finite() -> None:
    teacher = ExactTeacher(CHAIN)
    x = torch.full((1, 4), teacher.vocabulary.mask)
    x[0, 2] = 1
    logits = teacher(x)
    assert logits.isfinite().all()
    log_p = log_p_x0(logits, teacher.vocabulary)
    close(log_p.exp().sum(-1), torch.ones(1, 4))
    close(log_p[..., :3].exp(), CHAIN.posterior(x, x < 3).exp())


def test_impossible_evidence_raises() -> None:
    certain = MarkovChain(torch.tensor([1.0, 0.0]).double(), torch.eye(2).double())
    with pytest.raises(ValueError, match="probability zero"):
        certain.posterior(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))


def test_stationary_marginals_pairs_and_entropies_agree_with_each_other() -> None:
    chain = default_chain()
    pi = chain.stationary()
    torch.testing.assert_close(pi @ chain.transition, pi, atol=1e-12, rtol=0)
    torch.testing.assert_close(chain.marginal(31), pi, atol=1e-9, rtol=0)  # starts stationary
    for lag in (0, 1, 5):
        pairs = chain.pairs(lag, 32)
        torch.testing.assert_close(pairs.sum(1), pi, atol=1e-9, rtol=0)
        torch.testing.assert_close(pairs.sum(0), pi, atol=1e-9, rtol=0)
    per_symbol = chain.entropy(201) - chain.entropy(200)
    assert per_symbol.item() == pytest.approx(chain.entropy_rate().item(), abs=1e-9)
    x, log_p = CHAIN.joint(5)
    assert CHAIN.entropy(5).item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), abs=1e-12)
    place = torch.zeros(3, 3, dtype=torch.float64)
    for a, b in itertools.product(range(3), repeat=2):
        place[a, b] = sum(((x[:, l] == a) & (x[:, l + 2] == b)).double() @ log_p.exp() for l in range(3)) / 3
    torch.testing.assert_close(CHAIN.pairs(2, 5), place, atol=1e-12, rtol=0)


def test_samples_follow_the_joint_distribution() -> None:
    n = 20_000
    drawn = CHAIN.sample(n, 4, generator(1, "samples"))
    _, log_p = CHAIN.joint(4)
    counts = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81)
    chi2 = ((counts - n * log_p.exp()) ** 2 / (n * log_p.exp())).sum()
    assert torch.special.gammaincc(torch.tensor(40.0), chi2.float() / 2) > 1e-3
    surprise = -CHAIN.log_prob(drawn)
    assert abs(surprise.mean() - CHAIN.entropy(4)) < 4.5 * surprise.std() / n**0.5


@pytest.mark.parametrize(
    ("initial", "transition", "message"),
    [
        (torch.ones(2).double() / 2, torch.ones(3, 3).double() / 3, r"\[2, 2\]"),
        (torch.ones(2) / 2, torch.ones(2, 2).double() / 2, "float64"),
        (torch.ones(2).double() / 2, torch.ones(2, 2).double(), "sum to one"),
        (torch.tensor([1.5, -0.5]).double(), torch.ones(2, 2).double() / 2, "sum to one"),
    ],
)
def test_a_chain_must_be_one(initial: torch.Tensor, transition: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MarkovChain(initial, transition)


# --- the domain


def test_batches_depend_on_seed_and_number_alone() -> None:
    domain = create(length="5-9")
    stream = domain.batches("train", 4, seed=3)
    first = [next(stream) for _ in range(3)]
    assert torch.equal(first[2], next(domain.batches("train", 4, seed=3, start=2)))
    assert not torch.equal(first[0][:, :5], next(domain.batches("validation", 4, seed=3))[:, :5])
    assert not torch.equal(first[0][:, :5], next(domain.batches("train", 4, seed=4))[:, :5])
    lengths = domain.vocabulary.lengths(torch.nn.functional.pad(first[0], (0, 9 - first[0].shape[1]), value=20))
    assert lengths.min() >= 5 and lengths.max() == first[0].shape[1] <= 9


def test_template_and_text_round_trip() -> None:
    domain = ToyDomain()
    template = domain.template([3, 5])
    assert domain.vocabulary.lengths(template).tolist() == [3, 5]
    assert (template == domain.vocabulary.mask).sum(1).tolist() == [3, 5]
    assert domain.decode(template[0].tolist()) == "___"
    assert domain.decode(domain.encode("abcat")) == "abcat"
    with pytest.raises(InputError, match="'Z' at position 3"):
        domain.encode("abZ")
    with pytest.raises(InputError, match="at least one letter"):
        domain.template([3, 0])


def test_lengths_cover_the_range() -> None:
    assert set(create(length="2-4").lengths(200, generator(0))) == {2, 3, 4}
    assert set(create(length=7).lengths(5, generator(0))) == {7}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lenght": 3}, "Did you mean 'data.length'"),
        ({"length": "9-3"}, "low <= high"),
        ({"length": 0}, "positive length"),
        ({"length": "long"}, "'long'"),
        ({"symbols": 1}, "2 to 52"),
        ({"symbols": 99}, "2 to 52"),
    ],
)
def test_bad_settings_name_the_key_and_the_value(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(**settings)


def test_teacher_names() -> None:
    domain = create(symbols=4)
    assert isinstance(domain.teacher("exact"), ExactTeacher)
    with pytest.raises(InputError, match="default chain only"):
        domain.teacher("bundled")
    with pytest.raises(InputError, match="Did you mean 'exact'"):
        domain.teacher("exakt")
    with pytest.raises(InputError, match="teacher=bundled"):
        domain.scorer(domain.teacher("exact"))


# --- metrics


@pytest.fixture(scope="module")
def values() -> dict[str, dict[str, float]]:
    """Every metric on chain samples, the same with their symbols shuffled, one repeated symbol, and copies."""
    domain = ToyDomain()
    good = domain.held_out(400, seed=5)
    random = np.random.default_rng(0)
    sets = {
        "chain": good,
        "shuffled": [Sample("".join(random.permutation(list(s.text)))) for s in good],
        "collapsed": [Sample("b" * 32)] * 400,
        "copies": good[:40] * 10,
    }
    metrics = domain.metrics()
    assert all(isinstance(metric, Metric) for metric in metrics)
    return {
        kind: {m.name: float(m.aggregate(m.statistics(samples).mean(0))) for m in metrics}
        for kind, samples in sets.items()
    }


def test_metrics_tell_the_chain_from_shuffled_symbols(values: dict[str, dict[str, float]]) -> None:
    chain, shuffled = values["chain"], values["shuffled"]
    surprise = -default_chain().log_prob(default_chain().sample(4000, 32, generator(2, "surprise")))
    error = surprise.std() / 400**0.5  # of the mean over 400 samples
    assert abs(32 * chain["nll"] - default_chain().entropy(32)) < 4.5 * error
    assert shuffled["nll"] > chain["nll"] + 1
    assert shuffled["pair_kl"] > 10 * chain["pair_kl"]
    assert shuffled["entropy"] == pytest.approx(chain["entropy"])
    assert shuffled["unigram_kl"] == pytest.approx(chain["unigram_kl"])


def test_metrics_see_collapse_and_copies(values: dict[str, dict[str, float]]) -> None:
    assert values["collapsed"]["entropy"] == 0
    assert values["collapsed"]["unigram_kl"] > 1
    assert values["collapsed"]["distinct"] == pytest.approx(1 / 400)
    assert values["copies"]["distinct"] == pytest.approx(0.1)
    assert values["chain"]["distinct"] == 1
    assert values["copies"]["pair_kl"] > 2 * values["chain"]["pair_kl"]


def test_pair_divergence_of_a_perfect_sampler_is_its_bias() -> None:
    domain = create(symbols=3, length=20)
    (metric,) = [m for m in domain.metrics() if m.name == "pair_kl"]
    means = [metric.aggregate(metric.statistics(domain.held_out(50, seed)).mean(0)) for seed in range(40)]
    # Pairs of one sequence overlap, so the independent-pairs figure is right only to a factor of about two.
    assert 0.5 < np.mean(means) / metric.bias(50 * 19) < 2


def test_metrics_accept_mixed_lengths_and_empty_text() -> None:
    domain = create(length="1-6")
    samples = [Sample("a"), Sample("abcab"), Sample("abc"), Sample("")]
    for metric in domain.metrics():
        rows = metric.statistics(samples)
        assert rows.dtype == np.float64 and rows.shape[0] == 4
        defined = ~np.isnan(rows).any(1)
        assert np.isfinite(metric.aggregate(rows[defined].mean(0)))
        # Aggregates work on any leading shape: a bootstrap passes many means at once.
        assert metric.aggregate(np.stack([rows[defined].mean(0)] * 3)).shape == (3,)


# --- files


def test_samples_survive_writing_and_reading(tmp_path) -> None:
    domain = ToyDomain()
    samples = [Sample("abc", "one", info={"nll": 1.25, "law": "iid"}), Sample("bca")]
    path = tmp_path / "new" / "samples.jsonl"
    domain.write(path, samples)
    again = domain.read(path)
    assert [s.text for s in again] == ["abc", "bca"] and [s.id for s in again] == ["one", "seq_2"]
    assert again[0].info == {"nll": 1.25, "law": "iid"}
    before = path.read_bytes()
    domain.write(path, again)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["samples.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b'{"text": "abc"}\n{"text": "abZ"}\n', "line 2: letter 'Z' at position 3"),
        (b'{"text": "abc"}\n\nnot json\n', "line 3: not JSON"),
        (b'{"id": "x"}\n', "line 1: no column 'text' or 'sequence'"),
        (b"[1]\n", "line 1: expected an object"),
        (b"\xff\xfe\n", "line 1: byte 0xff"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        ToyDomain().read(path)
    assert "bad.jsonl" in str(caught.value)


def test_missing_file_and_unwritable_values(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_file(tmp_path / "absent.jsonl")
    with pytest.raises(InputError, match="cannot be written as JSON"):
        write_jsonl(tmp_path / "a.jsonl", [Sample("a", info={"x": float("nan")})])
    with pytest.raises(InputError, match="which a row reserves"):
        write_jsonl(tmp_path / "a.jsonl", [Sample("a", info={"text": "b"})])
    assert not list(tmp_path.iterdir())


# --- the plugin


def test_the_plugin_offers_the_domain_with_its_config_keys() -> None:
    from didi_toy.plugin import didi_register_domains

    domain = didi_register_domains()["toy"](symbols=6, length="3-5", chain_seed=2)
    assert domain.name == "toy" and domain.vocabulary.mask == 7
