"""Judges of every kind for proteins: bundled, a run that trained one, a model of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tolerance import close

import didi_core
from didi_core.checkpoints.judge import load_judge, save_judge
from didi_core.errors import InputError
from didi_core.metrics.judge import JudgePerplexity
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.types import Sample, Vocabulary
from didi_protein import VOCABULARY, ProteinDomain
from didi_protein.judge import LINE, protein_judge

TEXTS = [Sample("MKVLAC"), Sample("M"), Sample("ACDEFGHIKLMNPQRSTVWY" * 5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a judge in it."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    save_judge(folder / "judge", Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=64), VOCABULARY).eval())
    return folder


def quality(domain: ProteinDomain) -> JudgePerplexity:
    found = domain.metrics()[0]
    assert isinstance(found, JudgePerplexity)
    return found


def test_the_key_names_the_judge(run: Path) -> None:
    for name in (run, run / "judge"):
        made = quality(ProteinDomain(judge=str(name)))
        assert made.description == f"under the autoregressive judge in {name} (GPT-2 architecture, 1 layers, 16 wide)"
        assert made.statistics(TEXTS)[:, 1].tolist() == [7, 2, 101], "residues and the end, beyond the context too"
    usual = quality(ProteinDomain())
    assert quality(ProteinDomain(judge="bundled")).identity == usual.identity != made.identity


def test_perplexities_of_the_bundled_judge_are_not_shown_as_those_of_another(run: Path) -> None:
    bundled, other = ProteinDomain().reference_statistics(), ProteinDomain(judge=str(run)).reference_statistics()
    assert bundled is not None and other is not None
    assert {name: set(row) - {"perplexity"} for name, row in bundled.items()} == {k: set(v) for k, v in other.items()}
    assert all("perplexity" in row for row in bundled.values())


def hub_folder(run: Path, folder: Path, tokens: dict[str, int]) -> Path:
    """The run's judge as transformers has it, with a tokenizer of single letters."""
    from transformers import PreTrainedTokenizerFast

    load_judge(run / "judge").network.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<cls>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_gives_the_same_numbers(run: Path, tmp_path: Path) -> None:
    assert VOCABULARY.tokens is not None
    known = {token: i for i, token in enumerate(VOCABULARY.tokens)}
    hub = protein_judge(str(hub_folder(run, tmp_path, known)), lambda text: [])
    assert f"under {tmp_path}, per token of its own, context 64" == hub.description
    close(hub.statistics(TEXTS), quality(ProteinDomain(judge=str(run))).statistics(TEXTS))


def test_a_tokenizer_with_line_breaks_reads_lines_as_in_fasta(run: Path, tmp_path: Path) -> None:
    letters = ["<cls>", "<eos>", "<unk>", "\n", *"ACDEFGHIKLMNPQRSTVWY"]
    hub = protein_judge(str(hub_folder(run, tmp_path, {t: i for i, t in enumerate(letters)})), lambda text: [])
    ids = hub.encode("M" * (LINE + 1))
    assert ids == [0, 3, *[letters.index("M")] * LINE, 3, letters.index("M"), 3, 1]
    assert "in lines as in FASTA" in hub.description


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody/nothing", "data.judge=nobody/nothing cannot be loaded.*data.judge=bundled"),
        ("{empty}", "cannot be loaded"),
        ("{toy}", "has 5 tokens, proteins have 32: it was trained on another domain"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    save_judge(tmp_path / "toy", Judge(JudgeConfig(hidden=16, layers=1, heads=2, context=8), Vocabulary(5)))
    with pytest.raises(InputError, match=said):
        protein_judge(name.format(empty=tmp_path / "empty", toy=tmp_path / "toy"), lambda text: [])


def test_no_number_is_lost_where_a_sequence_has_no_context_left(run: Path) -> None:
    made = quality(ProteinDomain(judge=str(run)))
    assert np.isfinite(made.statistics([Sample("M" * 63), Sample("M" * 64), Sample("M" * 65)])).all()


def test_evaluate_takes_another_judge(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text("".join(f">s{i}\n{'MKVLACDE' * 5}{'ACDEFGHIKL'[i]}\n" for i in range(10)))
    report = didi_core.evaluate(
        samples=[tmp_path / "x.fasta"], domain="protein", judge=str(run), num=10, out=tmp_path / "out"
    )
    assert str(run) in report["metrics"][0]["description"]
    absent = [note for note in report["notes"] if "not among the bundled statistics" in note]
    assert any("perplexity of held-out data" in note for note in absent)
