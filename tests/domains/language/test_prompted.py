"""Prompts from JSON lines: given in templates, batches and rollouts, never masked; bad rows refused with their line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from large_files import folder, tokenizer
from torch import Tensor

from didi_core.checkpoints.card import load_denoiser
from didi_core.cli import main
from didi_core.commands.evaluate import Opened
from didi_core.commands.evaluate import Settings as EvaluateSettings
from didi_core.diffusion.masking import forward_mask
from didi_core.errors import InputError
from didi_core.metrics.samples import Mean
from didi_core.models.dit import DiT, DiTConfig
from didi_core.sampling.generate import SamplerSettings, generate
from didi_core.streams import generator
from didi_core.testing import DomainContract
from didi_core.types import Domain, Metric, Vocabulary
from didi_language import create
from didi_language.prompted import PromptedDomain
from didi_language.settings import LanguageSettings

ROWS: list[dict[str, Any]] = [
    {"prompt": "why is it", "response": "so"},
    {"prompt": "who", "response": "me and you"},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    {"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "a"}]},
]
LENGTH = 48


def file(path: Path, rows: list[Any] = ROWS) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def domain(path: Path, rows: list[Any] = ROWS, chat: str | None = "", **keys: Any) -> Any:
    """The domain of these rows; every other one is held out."""
    named = tokenizer(path / "tokenizer") if chat == "" else tokenizer(path / "tokenizer", chat=chat)
    prompts = [str(file(path / "p.jsonl", rows))]
    given = {"tokenizer": str(named), "length": LENGTH, "validation": 0.5, "prompts": prompts}
    return create(**{**given, **keys})


def answered(path: Path, **keys: Any) -> Any:
    return domain(path, ROWS[:3] * 4, **keys)


def test_a_block_is_the_given_prompt_the_response_and_end_tokens(tmp_path: Path) -> None:
    made = domain(tmp_path, ROWS[:1], chat=None, validation=1.0, length=16)
    (row,) = next(made.batches("validation", 1, 0)).tolist()
    own = made.tokenizer
    prompt = [own.begin, *own.ids("why is it")]
    assert row == [t + 37 for t in prompt] + [*own.ids("so"), own.end, own.end, own.end, own.end]
    assert made.decode(row) == "why is itso<|end|><|end|><|end|>"


def test_conversations_are_written_in_the_template_and_end_by_its_token(tmp_path: Path) -> None:
    made = domain(tmp_path, [ROWS[2]], validation=1.0)
    text = made.held_out(1)[0].text
    assert text.startswith("<|start|>user\nhi<|turn|><|start|>assistant\nhello<|turn|><|end|>")


def test_only_what_follows_a_prompt_can_be_masked(tmp_path: Path) -> None:
    made = answered(tmp_path)
    batch = next(made.batches("train", 4, 0))
    given = batch > made.vocabulary.mask
    masked = forward_mask(batch, torch.zeros(4), made.vocabulary.maskable(batch), made.vocabulary.mask)
    assert torch.equal(masked == made.vocabulary.mask, ~given) and bool(given.any(1).all())
    templates = made.templates("train", 5, generator(0, "x"))
    assert torch.equal(templates == made.vocabulary.mask, templates <= made.vocabulary.mask)


def test_a_network_reads_given_tokens_as_tokens(tmp_path: Path) -> None:
    plain, copies = Vocabulary(9), Vocabulary(9, given_copies=True)
    torch.manual_seed(0)
    model = DiT(DiTConfig(16, 2, 2, 8), plain).eval()
    tokens = torch.tensor([[1, 2, 9, 4, 9]])
    expected = model(tokens)
    model.vocabulary = copies
    given = torch.where(torch.tensor([True, True, False, True, False]), copies.as_given(tokens), tokens)
    assert torch.equal(model(given), expected) and torch.equal(copies.as_read(given), tokens)
    assert copies.maskable(given).tolist() == [[False, False, True, False, True]]


def test_batches_depend_on_their_number_alone_and_show_every_row_once(tmp_path: Path) -> None:
    made = answered(tmp_path)
    stream, later = made.batches("train", 2, 3), made.batches("train", 2, 3, start=5)
    first = [next(stream) for _ in range(6)]
    assert torch.equal(first[5], next(later))
    count = len(made.exchanges("train"))
    shown: list[Tensor] = list(torch.cat(first)[: count // 2 * 2])
    assert len({tuple(row.tolist()) for row in shown}) == len({tuple(one.prompt) for one in made.exchanges("train")})


class Answers(PromptedDomain):
    """The domain with metrics that need no judge."""

    def metrics(self) -> list[Metric]:
        return [Mean("spread", "letters apart", spread, "lower"), *super().metrics()[1:]]

    @property
    def _judge(self) -> Metric:  # type: ignore[override]
        return Mean("none", "none", len, "lower")


def spread(text: str) -> float:
    """Mean distance of neighbouring letters, which shuffling makes larger."""
    codes = [ord(letter) for letter in text]
    return 1 + sum(abs(a - b) for a, b in zip(codes, codes[1:], strict=False)) / len(codes)


class TestContract(DomainContract):
    """The whole contract, on networks of a test's size."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        letters = "abcdefghijklmnopqrstuvw"
        rows = [{"prompt": f"{a}{b}", "response": f"{a}{a}{b}{b}{a}{b}" * 3} for a in letters for b in letters]
        named = tokenizer(tmp_path / "tokenizer", chat=None)
        prompts = (str(file(tmp_path / "p.jsonl", rows)),)
        self.settings = LanguageSettings(prompts=prompts, tokenizer=str(named), length=32, validation=0.2)

    def make(self) -> Domain:
        return Answers(self.settings)


BAD: list[tuple[Any, str]] = [
    ("{", "not JSON"),
    ([1], "not an object"),
    ({"text": "a"}, "it needs either 'prompt' or 'messages'"),
    ({"prompt": "a", "messages": []}, "it needs either 'prompt' or 'messages'"),
    ({"prompt": 3}, "'prompt' is no text"),
    ({"prompt": " "}, "'prompt' is no text"),
    ({"prompt": "a", "response": ""}, "'response' is no text"),
    ({"prompt": "a", "response": ["b"]}, "'response' is no text"),
    ({"messages": []}, "'messages' is no list of turns"),
    ({"messages": ["a"]}, "a turn needs 'role' and 'content'"),
    ({"messages": [{"role": "user"}]}, "a turn needs 'role' and 'content'"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "nothing is asked before the answer"),
    ({"prompt": "a" * 60}, "the prompt leaves no place for an answer"),
    ({"prompt": "a", "response": "b" * 40}, "prompt and response are too long: 6"),
]


@pytest.mark.parametrize(("row", "reason"), BAD, ids=lambda x: str(x)[:30])
def test_a_bad_row_is_refused_with_its_line_or_left_out(row: Any, reason: str, tmp_path: Path) -> None:
    rows = [ROWS[0], row, ROWS[1], ROWS[2]]
    with pytest.raises(InputError, match=f"p.jsonl, line 2: {reason}"):
        domain(tmp_path, rows).data_report()
    report = domain(tmp_path, rows, on_bad="skip").data_report()
    assert (report.read, report.kept) == (4, 3) and report.examples[0].startswith(str(tmp_path / "p.jsonl, line 2"))


def test_other_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'messages' need data.chat=true"):
        domain(tmp_path, [ROWS[2]], chat=None).data_report()
    with pytest.raises(InputError, match="has no chat template"):
        domain_with_chat(tmp_path)
    with pytest.raises(InputError, match=r"data.prompts=x.jsonl: no such file"):
        domain(tmp_path, prompts=["x.jsonl"]).data_report()
    with pytest.raises(InputError, match="in the place of data.path"):
        create(path=["a.txt"], prompts=["b.jsonl"])
    with pytest.raises(InputError, match="set data.prompts too"):
        create(chat=True)
    with pytest.raises(InputError, match="no row for validation"):
        next(domain(tmp_path, ROWS[:1], validation=1e-9).batches("validation", 1, 0))
    with pytest.raises(InputError, match="line 1: there is no response"):
        next(domain(tmp_path, [ROWS[3]], validation=1.0).batches("validation", 1, 0))


def domain_with_chat(path: Path) -> None:
    """Prompts that are to be written in a template that is not there."""
    named = tokenizer(path / "plain", chat=None)
    create(tokenizer=str(named), chat=True, prompts=[str(file(path / "c.jsonl"))]).data_report()


@pytest.mark.parametrize("sampler", ["ancestral", "first_hitting", "p2", "dplm", "joint_fp32"])
def test_samples_answer_held_out_prompts(sampler: str, tmp_path: Path) -> None:
    made = answered(tmp_path)
    torch.manual_seed(0)
    model = DiT(DiTConfig(16, 2, 2, 8), made.vocabulary).eval()
    held = {tuple(one.prompt) for one in made.exchanges("validation")}
    for sample in generate(made, model, settings=SamplerSettings(sampler, steps=3), num=6).samples:
        tokens = torch.tensor(sample.tokens)
        prompt = made.vocabulary.as_read(tokens[tokens > made.vocabulary.mask])
        assert tuple(prompt.tolist()) in held and bool((tokens != made.vocabulary.mask).all())


@pytest.mark.parametrize("objective", ["few_calls", "didi"])
def test_a_distillation_on_prompts_alone(objective: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub, run = tokenizer(folder(tmp_path / "hub", "llada")), tmp_path / "run"
    prompts = file(tmp_path / "p.jsonl", [{"prompt": text} for text in ("why", "who", "when", "what")])
    keys = ("domain=language", f"teacher={hub}", f"data.tokenizer={hub}", "data.length=40", "data.validation=0.5")
    training = ("training.steps=2", "training.batch_size=8", "training.warmup=1", "evaluate.enabled=false")
    given = (f"data.prompts={prompts}", f"objective={objective}", f"run_dir={run}")
    more = ("objective.reference_samples=8", "objective.reference_steps=2") if objective == "didi" else ()
    assert main(["distill", *keys, *training, *given, *more]) == 0, capsys.readouterr().err
    assert load_denoiser(run).vocabulary.given_copies
    evaluated = Opened.of(EvaluateSettings(run=run, device="cpu")).run.domain  # by the keys of the run
    assert isinstance(evaluated, PromptedDomain) and evaluated.exchanges("validation") == create(
        tokenizer=str(hub), length=40, validation=0.5, prompts=[str(prompts)]
    ).exchanges("validation")
    out = tmp_path / "samples.jsonl"
    assert main(["sample", f"run={run}", "num=2", "steps=3", "prompt=who", "chat=true", f"out={out}"]) == 0
    assert all("user\nwho<|turn|>" in json.loads(line)["text"] for line in out.read_text().splitlines())
