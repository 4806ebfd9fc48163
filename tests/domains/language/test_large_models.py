"""Large teachers of texts: their tokenizers, masks and chat templates, and a run with an adapter."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from large_files import KINDS, folder, tokenizer
from tokenizers import pre_tokenizers

from didi_core.checkpoints.card import load_denoiser, read_card
from didi_core.cli import main
from didi_core.domain.conditioning import Request
from didi_core.errors import InputError
from didi_core.streams import generator
from didi_language import LanguageDomain
from didi_language.settings import LanguageSettings
from didi_language.tokenizer import load_tokenizer

SHORT = ("training.steps=2", "training.batch_size=4", "training.warmup=1", "evaluate.enabled=false")


def hub(path: Path, kind: str = "llada", dtype: torch.dtype = torch.bfloat16) -> Path:
    """A hub folder with weights and tokenizer."""
    return tokenizer(folder(path, kind, dtype=dtype))


def domain(path: Path, length: int = 16) -> LanguageDomain:
    return LanguageDomain(LanguageSettings(tokenizer=str(path), length=length))


@pytest.mark.parametrize("mask", ["<|mdm_mask|>", "<|MASK|>", "<|mask|>", "[MASK]"])
def test_the_mask_of_a_tokenizer_is_known_by_its_spelling(mask: str, tmp_path: Path) -> None:
    made = load_tokenizer(str(tokenizer(tmp_path, mask)))
    assert made.own_mask == 33 and 33 not in made.vocabulary.generated and made.vocabulary.mask == 36


def test_a_tokenizer_without_a_mask_has_none(tmp_path: Path) -> None:
    assert load_tokenizer(str(tokenizer(tmp_path, "<|gmask|>"))).own_mask is None
    assert load_tokenizer().own_mask is None


def test_an_answer_may_end_by_the_token_of_the_chat_template(tmp_path: Path) -> None:
    with_chat = load_tokenizer(str(tokenizer(tmp_path / "with")))
    without = load_tokenizer(str(tokenizer(tmp_path / "without", chat=None)))
    assert with_chat.turn_ends == (32,) and without.turn_ends == ()
    assert set(with_chat.vocabulary.generated) - set(without.vocabulary.generated) == {32}


def test_a_conversation_is_written_in_the_template(tmp_path: Path) -> None:
    made = load_tokenizer(str(tokenizer(tmp_path)))
    ids = made.chat([{"role": "user", "content": "hi"}])
    assert made.text(ids) == "<|begin|><|start|>user\nhi<|turn|><|start|>assistant\n"


@pytest.mark.parametrize(
    ("chat", "reason"),
    [(None, "has no chat template"), ("{{ raise_exception('no system') }}", "its chat template fails: no system")],
)
def test_a_missing_or_failing_template_is_named(chat: str | None, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        load_tokenizer(str(tokenizer(tmp_path, chat=chat))).chat([{"role": "user", "content": "hi"}])


def test_dreams_tokenizer_is_read_without_its_code(tmp_path: Path) -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    (tmp_path / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    names = ("<|endoftext|>", "<|beginoftext|>", "<|mask|>")
    added = {str(256 + i): {"content": name, "special": True} for i, name in enumerate(names)}
    config = {
        "tokenizer_class": "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        "added_tokens_decoder": added,
        **dict(zip(("eos_token", "bos_token", "mask_token"), names, strict=True)),
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    made = load_tokenizer(str(tmp_path))
    assert (made.end, made.begin, made.own_mask, made.size) == (256, 257, 258, 259)
    assert made.text(made.ids("a line")) == "a line"


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "GPT2Tokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("model", ["llada2_moe", "mistral"])
def test_transformers_says_nothing_of_a_tokenizer_that_is_read(named: str, model: str, tmp_path: Path) -> None:
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    folder = tokenizer(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": model, "rope_scaling": None}))
    known = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**known, "tokenizer_class": named}))
    logging.getLogger("transformers").addHandler(listener)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an entry that transformers calls deprecated
            load_tokenizer(str(folder))
    finally:
        logging.getLogger("transformers").removeHandler(listener)
    assert heard == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_domain_reads_them_and_refuses_another_mask(kind: str, tmp_path: Path) -> None:
    path = hub(tmp_path / "right", kind)
    teacher = domain(path).teacher(str(path))
    assert teacher.vocabulary == domain(path).vocabulary
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "mask_token_id": 35}))
    with pytest.raises(InputError, match="the model's mask is token 35 .* tokenizer is token 33"):
        domain(path).teacher(str(path))


@pytest.mark.parametrize("kind", ["llada", "llada2"])
def test_a_run_by_adapters_keeps_the_type_of_the_weights(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    path, run = hub(tmp_path / "hub", kind), tmp_path / "run"
    keys = ("domain=language", f"teacher={path}", f"data.tokenizer={path}", "data.length=16", f"run_dir={run}")
    assert main(["distill", *keys, *SHORT, "adapter=lora", "adapter.rank=2"]) == 0, capsys.readouterr().err
    student = load_denoiser(run)
    assert {p.dtype for p in student.parameters()} == {torch.bfloat16}
    card = read_card(run / "student")
    assert card["architecture"] == "llama" and card["training"]["adapter"]["rank"] == 2
    out = tmp_path / "samples.jsonl"
    assert main(["sample", f"run={run}", "num=2", "steps=3", f"out={out}"]) == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["dream", "llada2"])
def test_a_student_that_learns_in_full_has_weights_in_fp32(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = hub(tmp_path / "hub", kind), tmp_path / "run"
    keys = ("domain=language", f"teacher={path}", f"data.tokenizer={path}", "data.length=16", f"run_dir={run}")
    assert main(["distill", *keys, *SHORT]) == 0, capsys.readouterr().err
    student, teacher = load_denoiser(run), domain(path).teacher(str(path))
    assert {p.dtype for p in student.parameters()} == {torch.float32}
    pairs = zip(student.parameters(), teacher.parameters(), strict=True)
    assert not all(torch.equal(own, theirs.float()) for own, theirs in pairs)


def asked(path: Path, length: int = 40, **wishes: object) -> list[int]:
    """The only template for a user's keys."""
    found = domain(path, length).condition(wishes, Request(1, None, generator(0, "x"))).templates
    assert found is not None and len(found) == 1
    return list(found[0])


def test_a_chat_is_the_template_of_the_tokenizer_and_masks_to_the_end(tmp_path: Path) -> None:
    path = tokenizer(tmp_path)
    row, own = asked(path, 70, prompt="hi", chat=True, system="be brief"), load_tokenizer(str(path))
    free = row.index(own.vocabulary.mask)
    turns = "<|start|>system\nbe brief<|turn|><|start|>user\nhi<|turn|><|start|>assistant\n"
    assert own.text(row[:free]) == f"<|begin|>{turns}"
    assert row[free:] == [36] * (70 - free)


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"chat": True}, "chat=true needs a prompt"),
        ({"chat": True, "prompt": "hi", "suffix": "x"}, "exclude each other"),
        ({"system": "be brief", "prompt": "hi"}, "a part of a chat: set chat=true"),
        ({"chat": True, "prompt": "hi" * 30}, "longer than the model, which writes 70 tokens"),
        ({"chat": True, "prompt": ""}, "prompt is empty"),
    ],
)
def test_a_wrong_chat_is_refused(wishes: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        asked(tokenizer(tmp_path), 70, **wishes)


def test_sample_chat_pins_the_prompt(tmp_path: Path) -> None:
    path, out = hub(tmp_path / "hub"), tmp_path / "samples.jsonl"
    keys = ("domain=language", f"data.tokenizer={path}", "data.length=48", f"run_dir={tmp_path / 'run'}")
    assert main(["import", f"source={path}", *keys]) == 0
    chat = ("prompt=hi you", "chat=true", "law={kind: blocks, size: 8, inside: confidence}")
    assert main(["sample", f"run={tmp_path / 'run'}", "num=2", "steps=6", *chat, f"out={out}"]) == 0
    for line in out.read_text().splitlines():
        assert json.loads(line)["text"].startswith("<|start|>user\nhi you<|turn|><|start|>assistant\n")
