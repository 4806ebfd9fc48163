"""A causal model as generator: it draws from its own law, keeps what is pinned, and has a row beside the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tolerance import near
from torch import Tensor

from didi_core.checkpoints.card import save_model
from didi_core.checkpoints.judge import save_judge
from didi_core.cli import main
from didi_core.commands.comparison import PlanSettings
from didi_core.errors import InputError
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.judge import Judge, JudgeConfig
from didi_core.sampling.autoregressive import CausalGenerator, load_generator
from didi_core.sampling.base import SampleRequest, TokenRule
from didi_core.sampling.catalogue import SAMPLERS
from didi_core.streams import generator, seeded
from didi_core.types import Vocabulary
from didi_protein import ProteinDomain

SMALL = Vocabulary(5, pad=0, bos=1)  # tokens 2, 3 and 4 may be drawn; 5 is the mask
MASK = SMALL.mask


def small(vocabulary: Vocabulary = SMALL, context: int = 40) -> Judge:
    with seeded(3, "test"):
        judge = Judge(JudgeConfig(16, 2, 2, context), vocabulary).eval()
        for parameter in judge.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return judge


def wrap(judge: Judge) -> CausalGenerator:
    return CausalGenerator(judge.network, judge.vocabulary, judge.config.context).eval()


def fill(model: CausalGenerator, template: Tensor, rule: TokenRule | None = None, seed: int = 0) -> Tensor:
    return model.fill(template, rule or TokenRule(), generator(seed, "test")).tokens


def test_samples_follow_the_models_own_law() -> None:
    judge = small()
    n = 6000
    template = torch.tensor([[1, MASK, MASK, 0]]).repeat(n, 1)
    template[:, 3] = SMALL.mask
    made = fill(wrap(judge), template)
    pairs = torch.cartesian_prod(torch.arange(2, 5), torch.arange(2, 5))
    with torch.no_grad():
        rows = torch.cat([torch.ones(9, 1, dtype=torch.long), pairs], dim=1)
        logits = judge.network(rows).logits[:, :, :5].masked_fill(~SMALL.allowed(), -torch.inf)
        law = logits.log_softmax(-1)[:, :2].gather(2, pairs[..., None]).sum(dim=(1, 2)).exp()
    found = torch.stack([(made[:, 1:3] == pair).all(1).float().mean() for pair in pairs])
    assert law.sum().item() == near(1)
    assert (found - law).abs().max() < 4 * 0.5 / n**0.5


def test_pinned_tokens_stay_and_are_read() -> None:
    judge, template = small(), torch.tensor([[1, MASK, 3, MASK, MASK, 0, 0], [1, MASK, MASK, MASK, MASK, 4, 0]])
    made = wrap(judge).fill(template, TokenRule(1e-3), generator(0, "test"))
    expected = template.clone()
    for row in expected:  # greedy, each position from all before it, without a cache
        for i in range(1, 7):
            if row[i] == MASK:
                with torch.no_grad():
                    logits = judge.network(row[None, :i]).logits[0, -1, :5]
                row[i] = logits.masked_fill(~SMALL.allowed(), -torch.inf).argmax()
    assert torch.equal(made.tokens, expected)
    assert made.nfe.denoiser == 4  # one call a position up to the last gap


def test_the_bias_and_the_seed_count() -> None:
    model, template = wrap(small()), torch.tensor([[1, *[MASK] * 30]])
    bias = torch.zeros(5)
    bias[3] = 50.0
    assert (fill(model, template, TokenRule(bias=bias))[0, 1:] == 3).all()
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first, again, other = fill(model, template, seed=1), fill(model, template, seed=1), fill(model, template, seed=2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_cannot_be_written_is_told() -> None:
    model = wrap(small(context=4))
    with pytest.raises(InputError, match="needs a first token to begin with"):
        fill(model, torch.tensor([[MASK, 2]]))
    with pytest.raises(InputError, match="a template of 5 tokens exceeds the causal model's context of 4"):
        fill(model, torch.tensor([[1, MASK, MASK, MASK, MASK]]))
    denoiser = DiT(DiTConfig(16, 1, 2, 8), SMALL)
    request = SampleRequest(denoiser, torch.tensor([[1, MASK]]), torch.ones(1), None, generator(0, "test"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="sampler=autoregressive is for causal models"):
        SAMPLERS.find("autoregressive")().sample(request)


def test_loading(tmp_path: Path) -> None:
    judge = small()
    save_judge(tmp_path / "run" / "judge", judge)
    judge.network.save_pretrained(tmp_path / "hub")
    template = torch.tensor([[1, MASK, MASK]])
    expected = fill(wrap(judge), template)
    for name in ("run", "run/judge", "hub"):
        made = load_generator(str(tmp_path / name), SMALL)
        assert made.context == 40 and torch.equal(fill(made, template), expected)
    with pytest.raises(InputError, match="autoregressive=.* has 5 tokens, this domain 20"):
        load_generator(str(tmp_path / "hub"), Vocabulary(20))
    with pytest.raises(InputError, match="autoregressive=.*nowhere cannot be loaded"):
        load_generator(str(tmp_path / "nowhere"), SMALL)


def test_samplers_without_steps_have_one_row() -> None:
    plan = PlanSettings(samplers=("ancestral", "first_hitting"), laws=("iid", "stratified")).plan((4, 8))
    assert [p.sampler for p in plan].count("first_hitting") == 1 and len(plan) == 5


def test_a_row_in_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    domain = ProteinDomain()
    with seeded(0, "test"):
        save_model(tmp_path / "run" / "student", DiT(DiTConfig(16, 1, 2, 8), domain.vocabulary), {"domain": "protein"})
    save_judge(tmp_path / "causal", small(domain.vocabulary))
    words = ["evaluate", f"run={tmp_path / 'run'}", "num=6", "steps=[2]", "length=20-30", "samplers=[ancestral]"]
    done = main([*words, f"autoregressive={tmp_path / 'causal'}", "temperatures=[0.9,1.0]", f"out={tmp_path / 'out'}"])
    assert done == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = [row for row in report["rows"] if row["model"] == "autoregressive"]
    assert len(rows) == 2 and all(20 <= row["nfe"]["denoiser"] <= 30 for row in rows)
    timed = [row for row in report["timing"] if row["model"] == "autoregressive"]
    assert len(timed) == 2 and all(row["seconds"] > 0 for row in timed)
    assert "autoregressive" in capsys.readouterr().out


def test_the_judge_is_no_candidate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from didi_protein.domain import asset

    domain = ProteinDomain()
    save_model(tmp_path / "student", DiT(DiTConfig(16, 1, 2, 8), domain.vocabulary), {"domain": "protein"})
    assert main(["evaluate", f"run={tmp_path}", "num=2", f"autoregressive={asset('judge')}"]) == 2
    assert "is the judge of this comparison" in capsys.readouterr().err
