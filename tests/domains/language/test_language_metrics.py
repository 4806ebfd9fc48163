"""Metrics of texts on cases with a known answer; judges of every kind under one protocol."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerance import close

from didi_core.checkpoints.judge import save_judge
from didi_core.errors import InputError
from didi_core.metrics import TokenEntropy
from didi_core.metrics.judge import JudgePerplexity
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.types import Metric, Sample
from didi_language import LanguageDomain, TextTokenizer, load_tokenizer, train_tokenizer
from didi_language.judge import text_judge
from didi_language.metrics import language_metrics
from didi_language.metrics.words import distinct_words, repeated_words, shared_words, top_share, words
from didi_language.tokenizer import END

TEXT = "the cat sat on the mat and the dog on the log"


def value(metric: Metric, texts: list[str]) -> float:
    rows = metric.statistics([Sample(text) for text in texts])
    return float(metric.aggregate(np.nanmean(rows, axis=0)))


def test_words_and_marks() -> None:
    assert words("Don't, it's 3.14!") == ["Don", "'", "t", ",", "it", "'", "s", "3", ".", "14", "!"]


def test_distinct_n_counts_the_whole_set() -> None:
    assert value(distinct_words(1), ["a b a", "b c"]) == pytest.approx(3 / 5)
    assert value(distinct_words(2), ["a b a", "b c", "x"]) == pytest.approx(3 / 3)
    assert value(distinct_words(2), ["a b", "a b"]) == pytest.approx(1 / 2)


def test_repeats_are_within_a_sample() -> None:
    assert value(repeated_words(2), ["a b a b a", "a b c d e"]) == pytest.approx((2 / 4 + 0) / 2)
    assert value(top_share(), ["a a a b"]) == pytest.approx(3 / 4)


def test_shared_grams_are_between_samples() -> None:
    assert value(shared_words(2), ["a b c", "a b d", "x y x y"]) == pytest.approx(2 / 7)
    assert value(shared_words(2), ["a b a b a b", "c d"]) == 0


def test_short_texts_are_undefined_not_zero() -> None:
    for metric in (distinct_words(4), shared_words(4), repeated_words(4)):
        assert np.isnan(metric.statistics([Sample("a b")])).all()


def test_entropy_is_that_of_the_samples_own_tokens() -> None:
    tokenizer = load_tokenizer()
    metric = TokenEntropy(lambda s: s.tokens or tokenizer.ids(s.text))
    rows = metric.statistics([Sample("x", tokens=(1, 2, 3, 4)), Sample("aaaa"), Sample("")])
    assert rows[0, 0] == pytest.approx(math.log(4)) and rows[1, 0] == 0 and np.isnan(rows[2, 0])


def test_the_frame_is_no_part_of_the_entropy() -> None:
    domain = LanguageDomain()
    entropy = language_metrics(distinct_words(1), domain._own_tokens)[1]
    framed = Sample("ab", tokens=tuple(domain.encode("ab")))
    assert entropy.statistics([framed])[0, 0] == entropy.statistics([Sample("ab")])[0, 0] == pytest.approx(math.log(2))


# --- judges


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("judge")
    backend = train_tokenizer([TEXT] * 3, 262)
    (folder / "tokenizer.json").write_text(backend.to_str())
    torch.manual_seed(0)
    vocabulary = TextTokenizer("own", backend, 0, 0).vocabulary
    judge = Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=12), vocabulary).eval()
    save_judge(folder / "judge", judge, {"data": {"tokenizer": str(folder / "tokenizer.json")}})
    return folder


def test_a_judge_reads_up_to_the_first_end_token(judge_folder: Path) -> None:
    metric = text_judge(str(judge_folder), END)
    rows = metric.statistics([Sample(f"the cat{END}and more"), Sample(f"the cat{END}"), Sample("the cat")])
    assert rows[0] == pytest.approx(rows[1]) and rows[0, 1] == rows[2, 1] + 1
    empty = metric.statistics([Sample(f"{END}the cat"), Sample("")])
    assert empty[0, 1] == 1 and np.isnan(empty[1]).all()


def test_a_judge_retokenises_whatever_the_model_wrote(judge_folder: Path) -> None:
    metric = text_judge(str(judge_folder), "</s>")
    own = load_tokenizer(str(judge_folder / "tokenizer.json"))
    rows = metric.statistics([Sample("the cat</s>never read", tokens=(1, 2, 3))])
    assert rows[0, 1] == len(own.ids("the cat")) + 1
    assert metric.description.startswith(f"under the autoregressive judge in {judge_folder}")


def test_texts_beyond_the_context_are_judged_to_their_end(judge_folder: Path) -> None:
    metric = text_judge(str(judge_folder), END)
    assert metric.statistics([Sample("x" * 50)])[0, 1] == 50


def test_a_judge_of_transformers_gives_the_same_numbers(judge_folder: Path, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    metric = text_judge(str(judge_folder), END)
    judge = metric.judge
    assert isinstance(judge, Judge)
    judge.network.save_pretrained(tmp_path)
    backend = load_tokenizer(str(judge_folder / "tokenizer.json")).backend
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END).save_pretrained(tmp_path)
    hub = text_judge(str(tmp_path), END)
    samples = [Sample(TEXT), Sample(f"the{END}"), Sample("x" * 30)]
    close(hub.statistics(samples), metric.statistics(samples))
    assert str(tmp_path) in hub.description and "context 12" in hub.description


def test_a_judge_out_of_reach_names_the_key_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"data.judge=nobody/nothing cannot be loaded.*data.judge=bundled"):
        text_judge("nobody/nothing", END)


def test_a_judge_and_a_tokenizer_that_do_not_belong_together(judge_folder: Path, tmp_path: Path) -> None:
    judge = text_judge(str(judge_folder), END).judge
    assert isinstance(judge, Judge)
    save_judge(tmp_path, judge, {"data": {"tokenizer": "bundled"}})
    with pytest.raises(InputError, match="has 262 tokens, its tokenizer 'bundled' 257"):
        text_judge(str(tmp_path), END)


def test_all_metrics_have_names_of_their_own(judge_folder: Path) -> None:
    metrics = language_metrics(text_judge(str(judge_folder), END), LanguageDomain()._own_tokens)
    assert len({m.name for m in metrics}) == len(metrics)
    assert [m.name for m in metrics[:2]] == ["perplexity", "entropy"]
    assert isinstance(metrics[0], JudgePerplexity)
