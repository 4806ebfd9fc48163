"""The language domain as the core sees it, on a tokenizer and models of a test's size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from didi_core.checkpoints.card import save_model
from didi_core.cli import WRONG, main
from didi_core.commands.compose import compose_jobs
from didi_core.domain.conditioning import Request, condition, read_template
from didi_core.errors import InputError
from didi_core.metrics import Mean
from didi_core.models.dit import DiT, DiTConfig
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.streams import generator
from didi_core.testing import DomainContract
from didi_core.types import Domain, Metric, Sample
from didi_language import LanguageDomain, LanguageSettings, TextTokenizer, create, train_tokenizer
from didi_language.tokenizer import END

TEXT = "the cat sat on the mat and the dog on the log"
LENGTH = 24


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer("tiny", train_tokenizer([TEXT] * 3, 270), 0, 0, (0,))


@pytest.fixture
def domain(tokenizer: TextTokenizer, tmp_path: Path) -> LanguageDomain:
    (tmp_path / "data.txt").write_text("\n\n\n".join(f"{TEXT} {i}" for i in range(60)))
    settings = LanguageSettings(
        path=(str(tmp_path / "data.txt"),), length=LENGTH, validation=0.2, cache=tmp_path / "cache"
    )
    return LanguageDomain(settings, tokenizer)


@pytest.fixture
def model(domain: Domain) -> DiT:
    torch.manual_seed(0)
    return DiT(DiTConfig(hidden=16, layers=1, heads=2, conditioning=8), domain.vocabulary).eval()


def strange_words(text: str) -> float:
    """Share of the words that are neither of the text nor numbers; a little more, since a quality is above zero."""
    words = text.replace(END, " ").split()
    return 0.01 + sum(word not in TEXT.split() and not word.isdigit() for word in words) / max(len(words), 1)


class Spelling(LanguageDomain):
    """Judged by its words, where no judge is at hand."""

    def metrics(self) -> list[Metric]:
        return [Mean("strange_words", "strange words", strange_words, "lower"), *super().metrics()[1:]]

    @property
    def _judge(self) -> Metric:  # type: ignore[override]
        return Mean("none", "none", len, "lower")


class TestContract(DomainContract):
    """The whole contract, on networks of a test's size."""

    @pytest.fixture(autouse=True)
    def place(self, tokenizer: TextTokenizer, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        lines = [" ".join(random.choice(TEXT.split(), size=12)) + f" {i}" for i in range(400)]
        (tmp_path / "data.txt").write_text("\n\n\n".join(lines))
        path = (str(tmp_path / "data.txt"),)
        self.settings = LanguageSettings(path=path, length=LENGTH, validation=0.2, cache=tmp_path / "cache")
        self.tokenizer = tokenizer

    def make(self) -> Domain:
        return Spelling(self.settings, self.tokenizer)


def test_templates_pin_the_frame_by_its_place(domain: LanguageDomain) -> None:
    tokens = domain.template([3, 3])
    assert tokens.tolist() == [[0, 270, 270, 270, 0]] * 2
    assert domain.lengths(3, generator(0)) == [LENGTH - 2] * 3
    with pytest.raises(InputError, match="not a range"):
        domain.template([3, 4])


def test_texts_survive_their_frame_and_keep_end_tokens_inside(domain: LanguageDomain) -> None:
    for text in ("the cat", "", f"a{END}b", f"{END}a", f"a{END}"):
        tokens = domain.encode(text)
        assert tokens[0] == tokens[-1] == 0 and domain.decode(tokens) == text


def test_generated_texts_may_end_documents(domain: LanguageDomain, model: DiT) -> None:
    made = generate(domain, model, settings=SamplerSettings(steps=4), num=6, seed=1)
    for sample in made.samples:
        assert len(sample.tokens or ()) == LENGTH and domain.decode(sample.tokens or ()) == sample.text
    with torch.no_grad():
        assert model(domain.template([3]))[..., domain.tokenizer.end].isfinite().all()
    assert domain.tokenizer.end in domain.vocabulary.generated


def test_data_are_packed_once(domain: LanguageDomain, tokenizer: TextTokenizer, capsys: pytest.CaptureFixture) -> None:
    first = next(domain.batches("train", 4, 0))
    assert first.shape == (4, LENGTH) and "tokenising" in capsys.readouterr().err
    again = LanguageDomain(domain.settings, tokenizer)
    assert torch.equal(next(again.batches("train", 4, 0)), first) and "tokenising" not in capsys.readouterr().err
    other = LanguageDomain(replace(domain.settings, split_seed=1), tokenizer)
    assert other.packed.folder != domain.packed.folder


def test_held_out_texts_are_blocks_of_the_other_split(domain: LanguageDomain) -> None:
    held = domain.held_out(5, seed=3)
    assert [s.text for s in held] == [s.text for s in domain.held_out(5, seed=3)] and len(held) == 5
    assert all(len(s.tokens or ()) == LENGTH and domain.decode(s.tokens or ()) == s.text for s in held)
    train = domain.tokenizer.text(domain.packed.stream("train").tolist())
    assert all(line not in train for s in held for line in s.text.split(END)[1:-1])


def test_too_little_text_is_told(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    (tmp_path / "a.txt").write_text("short")
    settings = LanguageSettings(path=(str(tmp_path / "a.txt"),), cache=tmp_path / "cache", validation=1)
    with pytest.raises(InputError, match="train split has 0 documents.*less than one block of data.length=256"):
        next(LanguageDomain(settings, tokenizer).batches("train", 2, 0))


def test_without_data_the_key_is_named() -> None:
    with pytest.raises(InputError, match="no text to train on: set data.path=.*pydoc"):
        next(LanguageDomain().batches("train", 2, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"lenght": 3}, "unknown key 'data.lenght'. Did you mean 'data.length'"),
        ({"length": 3}, "data.length=3 is out of range"),
        ({"validation": 0}, "data.validation=0.0 is out of range"),
        ({"validation": 2.5}, "a share below 1, or a whole number"),
        ({"path": "a", "limit": 0}, "data.limit=0"),
        ({"path": "a", "on_bad": "ignore"}, "unknown treatment of bad documents 'ignore'"),
    ],
)
def test_wrong_settings(data: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(**data)


def test_openwebtext_holds_out_its_last_documents() -> None:
    def held(**given: object) -> object:
        return LanguageSettings(**given).held  # type: ignore[arg-type]

    assert held(path=("Skylion007/openwebtext",)).last == 100_000  # type: ignore[attr-defined]
    assert held(path=("other",)).share == 0.05 and held(path=("other",), validation=7.0).last == 7  # type: ignore[attr-defined]


def test_samples_are_written_with_their_ids_and_read_back(domain: LanguageDomain, tmp_path: Path) -> None:
    tokens = tuple(domain.encode("the cat"))
    samples = [Sample("the cat", "a", tokens, {"steps": 4}), Sample("the dog", "b")]
    domain.write(tmp_path / "x.jsonl", samples)
    assert domain.read(tmp_path / "x.jsonl") == samples
    row = {"text": "the cat", "tokens": [1, 2, 3]}
    (tmp_path / "y.jsonl").write_text(json.dumps(row) + "\n")
    assert domain.read(tmp_path / "y.jsonl")[0].tokens is None


def test_controls_keep_the_length(domain: LanguageDomain) -> None:
    held = domain.held_out(3)
    made = domain.controls(held)
    assert set(made) == {"shuffled", "random", "repeats"}
    for samples in made.values():
        assert [len(s.tokens or ()) for s in samples] == [LENGTH] * 3
    assert sorted(made["shuffled"][0].tokens or ()) == sorted(held[0].tokens or ())
    assert made["shuffled"][0].text != held[0].text


def test_a_teacher_of_another_vocabulary_or_none(domain: LanguageDomain, model: DiT, tmp_path: Path) -> None:
    save_model(tmp_path / "model", model)
    assert domain.teacher(str(tmp_path / "model")).vocabulary.size == 270  # type: ignore[union-attr]
    with pytest.raises(InputError, match="vocabulary of 270 tokens .* this domain has 257"):
        LanguageDomain().teacher(str(tmp_path / "model"))
    with pytest.raises(InputError, match="unknown teacher 'bundle'.*Did you mean 'bundled'"):
        domain.teacher("bundle")


# --- prompts and gaps


def asked(domain: Domain, length: int | None = None, **wishes: str) -> list[int]:
    request = Request(2, None if length is None else ((length, length),), generator(0))
    made = condition(domain, wishes, request).templates
    assert made is not None and len(made) == 1
    return list(made[0])


def test_prompt_and_suffix_are_pinned_and_the_rest_is_free(domain: LanguageDomain) -> None:
    ids, mask = domain.tokenizer.ids, domain.vocabulary.mask
    begin, end = ids("the cat"), ids(" dog")
    assert asked(domain, prompt="the cat") == [0, *begin, *[mask] * (LENGTH - 2 - len(begin)), 0]
    assert asked(domain, suffix=" dog") == [0, *[mask] * (LENGTH - 2 - len(end)), *end, 0]
    both = asked(domain, length=12, prompt="the cat", suffix=" dog")
    assert both == [0, *begin, *[mask] * (12 - len(begin) - len(end)), *end, 0]


def test_gaps_in_a_template(domain: LanguageDomain) -> None:
    ids, mask = domain.tokenizer.ids, domain.vocabulary.mask
    read = read_template(domain, "the [[3]] on [[1]]")
    assert read == [0, *ids("the "), *[mask] * 3, *ids(" on "), mask, 0]
    full = read_template(domain, "the [[2]] on [[*]] log")
    assert len(full) == LENGTH and full[-1 - len(ids(" log")) : -1] == ids(" log")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("no gap", "has no gap: write"),
        ("a [[0]] b", "at least one token"),
        ("[[*]] and [[*]]", "only one can take the rest"),
        ("a [[99]] b", "longer than the model, which writes 22"),
        ("x" * 22 + "[[*]]", "longer than the model"),
    ],
)
def test_wrong_templates(domain: LanguageDomain, template: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_template(domain, template)


@pytest.mark.parametrize(
    ("wishes", "length", "message"),
    [
        ({"prompt": "x" * 22}, None, r"prompt='x+' has 22 tokens and is longer than the model, which writes 22"),
        ({"prompt": "x" * 5}, 5, "is longer than length=5"),
        ({"prompt": "x"}, 23, "length=23 is longer than the model"),
        ({"suffix": ""}, None, "suffix is empty"),
        ({"promt": "x"}, None, "unknown key 'promt'. Did you mean 'prompt'"),
    ],
)
def test_wrong_prompts(domain: LanguageDomain, wishes: dict, length: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        asked(domain, length, **wishes)


@pytest.mark.parametrize(
    "text",
    ['Zen, of: it\'s "good"', "plain", "a [[12]] b\nc", "x \\", "cost ${5} and {a}", "a \\' quote ", "t \\ \\"],
)
def test_prose_on_the_command_line_is_taken_as_it_is(text: str) -> None:
    config = compose_jobs("sample", ["run=x", f"prompt={text}", f"template={text}"])[0].config
    assert config["conditioning"]["prompt"] == config["template"] == text
    config = compose_jobs("sample", ["run=x", "prompt='in quotes'"])[0].config
    assert config["conditioning"]["prompt"] == "in quotes"


# --- the commands


def test_commands_on_text_of_ones_own(tmp_path: Path, tokenizer: TextTokenizer, monkeypatch, capsys) -> None:
    """pretrain, sample with a prompt, distil from data and evaluate files, on a tokenizer from a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("data.txt").write_text("\n\n\n".join(f"{TEXT} {i}" for i in range(60)))
    Path("tokenizer.json").write_text(tokenizer.backend.to_str())
    own = ["domain=language", "data.path=data.txt", "data.tokenizer=tokenizer.json", "data.length=16"]
    small = ["training.steps=2", "training.batch_size=4", "model.hidden=16", "model.layers=1", "model.heads=2"]
    assert main(["pretrain", *own, *small, "run_dir=teacher", "validation_batches=1"]) == 0
    judge = ["objective=autoregressive", "model=judge", "model.context=16", "training.steps=2"]
    assert main(["pretrain", *own, *small, *judge, "run_dir=judge", "validation_batches=1"]) == 0
    wish = ["prompt=the cat, who", "num=3", "steps=2", "out=s.jsonl"]
    assert main(["sample", "run=teacher", *wish]) == 0
    rows = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["text"].startswith("the cat, who") and len(row["tokens"]) == 16 for row in rows)
    assert main(["sample", "run=teacher", "template=the [[2]] dog", "num=1", "steps=2", "out=t.jsonl"]) == 0
    assert json.loads(Path("t.jsonl").read_text())["text"].startswith("the ")
    assert not Path("t.jsonl.map.json").exists() or "pinned" in Path("t.jsonl.map.json").read_text()
    assert main(["sample", "run=teacher", "num=1", "steps=2", "out=u.jsonl"]) == 0
    assert not Path("u.jsonl.map.json").exists()
    capsys.readouterr()
    files = ["evaluate", "samples=s.jsonl", *own, "data.judge=judge", "num=4", "out=report"]
    assert main(files) == 0
    assert "the autoregressive judge in judge" in Path("report/report.md").read_text()
    assert main(["sample", "run=teacher", "prompt=" + "x " * 40]) == WRONG
    assert "is longer than the model" in capsys.readouterr().err


def test_distil_from_the_manual_of_python(tmp_path: Path, monkeypatch) -> None:
    """``data=pydoc`` with real text as the reference."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = compose_jobs("distill", ["domain=language", "data=pydoc"])[0].config
    assert config["data"]["path"] == "pydoc" and config["data"]["length"] == 256
    own = ["domain=language", "data=pydoc", "data.length=16", "training.steps=2", "training.batch_size=4"]
    model = ["model.hidden=16", "model.layers=1", "model.heads=2", "validation_batches=1", "run_dir=teacher"]
    assert main(["pretrain", *own, *model]) == 0
    rest = [
        "teacher=teacher",
        "objective=didi",
        "objective.reference=data",
        "objective.baseline.group=2",
        "evaluate.enabled=false",
    ]
    assert main(["distill", *own, *rest, "objective.reward.warmup=1", "run_dir=student"]) == 0
    assert (tmp_path / "student/student/model.safetensors").is_file()


def test_what_became_of_the_documents_is_counted_once_and_kept_with_the_cache(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    rows = [json.dumps({"text": f"{TEXT} {i}"}) for i in range(60)] + ['{"text": 5}', '{"text": ""}', "cut"]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    how = {"path": (str(tmp_path / "a.jsonl"),), "length": LENGTH, "validation": 0.2, "cache": tmp_path / "cache"}
    first, again = (LanguageDomain(LanguageSettings(**how, on_bad="skip"), tokenizer).data_report() for _ in range(2))
    assert first == again and first is not None
    assert (first.read, first.kept, sum(first.splits.values()), first.set_aside) == (63, 60, 60, {"empty": 1})
    assert first.left_out == {"column 'text' holds a number, not text": 1, "not JSON (Expecting value)": 1}
    (tmp_path / "a.jsonl").write_text("\n".join(rows[:20] + ["cut"] * 30))
    lossy = LanguageDomain(LanguageSettings(**how, on_bad="skip"), tokenizer)
    with pytest.raises(InputError, match="30 of 50 documents cannot be used.*data.allow_loss=true"):
        lossy.data_report()
    assert LanguageDomain(LanguageSettings(**how, on_bad="skip", allow_loss=True), tokenizer).data_report() is not None
