"""Low-rank adapters: they begin as the teacher, learn little, share the rest, and end as plain networks."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_keeper import Memory
from tolerance import close
from torch import Tensor, nn

from didi_core.checkpoints.card import load_denoiser, load_scorer, read_card
from didi_core.cli import main
from didi_core.commands.distill import _adapted
from didi_core.config import build
from didi_core.errors import InputError
from didi_core.models.adapter import AdapterSettings, OwnState, adapt, copied, is_adapted, merged
from didi_core.models.compiled import Compilation, try_on
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.models.noise import ReadsNoise, with_noise
from didi_core.models.scorer import scorer_from_trunk
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import OBJECTIVES
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.components import components
from didi_core.training.engine import Engine
from didi_core.training.settings import TrainingSettings
from didi_core.types import Denoiser
from didi_protein.vocabulary import VOCABULARY
from didi_toy import ExactTeacher, ToyDomain

pytest.importorskip("peft")

DOMAIN = ToyDomain()
TOKENS = DOMAIN.template([5, 9])
LORA = {"rank": 4, "alpha": 8.0}
STUDENTS = sorted(name for name, kind in OBJECTIVES.items() if "distill" in kind.commands)


def dit(**more: Any) -> DiT:
    torch.manual_seed(0)
    made = DiT(DiTConfig(16, 3, 2, 8, **more), DOMAIN.vocabulary)
    nn.init.normal_(made.output_layer.linear.weight, std=0.5)
    return made.eval().requires_grad_(False)


def esm() -> Esm:
    torch.manual_seed(0)
    return Esm(EsmConfig(16, 2, 2, 32), VOCABULARY).eval().requires_grad_(False)


def llama() -> Llama:
    torch.manual_seed(0)
    sizes = LlamaConfig(16, 2, 2, 1, 8, 32, 40, 38)
    return Llama(sizes, DOMAIN.vocabulary).eval().requires_grad_(False)


def tokens_of(network: Denoiser) -> Tensor:
    return TOKENS if network.vocabulary == DOMAIN.vocabulary else torch.tensor([[0, 32, 5, 32, 2], [0, 32, 32, 2, 1]])


def student_of(teacher: Denoiser, noise: int = 0, first: bool = False, **how: Any) -> Denoiser:
    made = with_noise(teacher, noise, 0, once=first, first_blocks=first).requires_grad_(True)
    return adapt(made, teacher, AdapterSettings(**{**LORA, **how}), 0, "student")


def moved(network: nn.Module) -> nn.Module:
    """The network after some training, as it were."""
    with torch.no_grad():
        for number, parameter in enumerate(p for p in network.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(0, "moved", number))
    return network


# --- a network with an adapter


@pytest.mark.parametrize("make", [dit, esm, partial(dit, positions=16)])
def test_at_first_it_is_the_teacher_exactly_and_shares_it(make: Any) -> None:
    teacher = make()
    tokens, student = tokens_of(teacher), student_of(teacher)
    assert torch.equal(student(tokens), teacher(tokens))
    theirs = {id(p) for p in teacher.parameters()}
    shared = [p for p in student.parameters() if not p.requires_grad]
    assert {id(p) for p in shared} == theirs
    assert all("lora_" in name for name, p in student.named_parameters() if p.requires_grad)
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("make", [dit, esm])
def test_merged_it_is_a_plain_network_that_computes_the_same(make: Any) -> None:
    teacher = make()
    tokens, student = tokens_of(teacher), moved(student_of(teacher))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    plain = merged(student)
    assert (student(tokens) - teacher(tokens)).abs().max() > 0.01
    close(plain(tokens), student(tokens))
    assert type(plain) is type(teacher) and plain.state_dict().keys() == teacher.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not is_adapted(plain) and merged(plain) is plain


def test_a_scorer_learns_its_head_and_the_blocks_that_it_would_learn() -> None:
    teacher = dit()
    plain = scorer_from_trunk(teacher, 1).eval()
    expected = plain(TOKENS)
    scorer = adapt(plain, teacher, AdapterSettings(**LORA), 0, "scorer")
    assert torch.equal(scorer(TOKENS), expected)
    learnt = [name for name, p in scorer.named_parameters() if p.requires_grad]
    assert all(name.startswith(("main.", "network.blocks.2.")) for name in learnt)
    assert {id(p) for p in scorer.network.parameters() if not p.requires_grad} <= {id(p) for p in teacher.parameters()}
    moved(scorer)
    close(merged(scorer)(TOKENS), scorer(TOKENS))


@pytest.mark.parametrize("make", [dit, esm, llama])
def test_the_noise_of_a_student_is_learnt_in_full(make: Any) -> None:
    teacher = make()
    tokens, student = tokens_of(teacher), student_of(teacher, noise=3)
    assert isinstance(student, ReadsNoise) and student.noise_map is not None
    whole = {name for name, p in student.named_parameters() if p.requires_grad and "lora_" not in name}
    assert whole == {f"noise_map.{name}" for name, _ in student.noise_map.named_parameters()}
    noise = torch.randn(2, 3, generator=generator(0, "noise"))
    close(merged(moved(student))(tokens, noise), student(tokens, noise))


@pytest.mark.parametrize("make", [dit, esm, llama])
def test_blocks_of_the_first_call_are_another_adapter_on_the_same_weights(make: Any) -> None:
    teacher = make()
    student = student_of(teacher, noise=3, first=True)
    assert isinstance(student, ReadsNoise) and student.first is not None
    theirs = {id(p) for p in teacher.parameters()}
    assert {id(p) for p in student.parameters() if not p.requires_grad} <= theirs
    learnt = {name for name, p in student.named_parameters() if p.requires_grad}
    assert {f"first.{name.removeprefix(f'{student.CORE}.')}" for name in learnt if name.startswith(student.CORE)} == {
        name for name in learnt if name.startswith("first.")
    }
    moved(student)
    tokens = torch.cat([tokens_of(teacher), torch.full_like(tokens_of(teacher), teacher.vocabulary.mask)])
    noise = torch.randn(len(tokens), 3, generator=generator(0, "noise"))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    plain = merged(student)
    assert isinstance(plain, ReadsNoise) and not is_adapted(plain)
    close(plain(tokens, noise), student(tokens, noise))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_targets_and_rank_say_what_is_learnt() -> None:
    teacher = dit()
    made = student_of(teacher, targets=("attn_qkv", "mlp.2"))
    named = {name.rpartition(".lora_")[0] for name, p in made.named_parameters() if p.requires_grad}
    assert named == {f"blocks.{i}.{part}" for i in range(3) for part in ("attn_qkv", "mlp.2")}
    sizes = [sum(p.numel() for p in student_of(teacher, rank=rank).parameters() if p.requires_grad) for rank in (2, 4)]
    assert sizes[1] == 2 * sizes[0]
    scaled = [moved(student_of(teacher, alpha=alpha)) for alpha in (None, 4.0)]
    close(scaled[0](TOKENS), scaled[1](TOKENS))


def test_a_copy_has_its_own_adapter_and_no_other_tensor() -> None:
    teacher = dit()
    student = moved(student_of(teacher))
    copy = copied(student)
    assert torch.equal(copy(TOKENS), student(TOKENS))
    own = [p for p in copy.parameters() if p.requires_grad]
    first, second, shared = ({id(p) for p in network.parameters()} for network in (copy, student, teacher))
    assert first & second == shared
    with torch.no_grad():
        own[0].zero_()
    assert not torch.equal(copy(TOKENS), student(TOKENS))


def test_blocks_with_adapters_can_be_compiled() -> None:
    compilation = Compilation(backend="eager")
    try_on(compilation, moved(student_of(dit())))
    assert compilation.problem == ""


# --- in training


def materials(adapter: AdapterSettings | None, noise: int = 0) -> Materials:
    teacher = dit()

    def samples(num: int, steps: int) -> Tensor:
        tokens = DOMAIN.template([12] * num)
        drawn = torch.randint(20, tokens.shape, generator=generator(0, "samples"))
        return torch.where(tokens == DOMAIN.vocabulary.mask, drawn, tokens)

    adapting = None if adapter is None else partial(_adapted, teacher=teacher, how=adapter, seed=0)
    student = with_noise(teacher, noise, 0).requires_grad_(True)
    student = student if adapting is None else adapting(student, "student")
    training = TrainingSettings(steps=4, batch_size=8, warmup=1, lr=0.01, ema=0.9, checkpoint_every=1, log_every=1)
    return Materials(Run(DOMAIN), training, student, teacher, samples, adapter=adapting)


SETTINGS: dict[str, dict[str, Any]] = {
    "didi": {"reward": [{"kind": "scorer", "trainable_blocks": 1}, {"kind": "log_ratio"}], "baseline": {"group": 4}},
    "sdtt": {"rounds": 2, "round_updates": 2},
}


def engine(name: str, keeper: Memory, adapter: AdapterSettings | None) -> Engine:
    given, rules = materials(adapter, noise=2 if name == "coupled" else 0), OBJECTIVES[name]
    states = {"states": {"source": "teacher", "samples": 16, "steps": 2}}
    more: dict[str, Any] = {"didi": {"reference_samples": 16}, "coupled": {"coupling": states}}.get(name, states)
    more |= {"critic": {"warmup": 1}} if hasattr(rules(), "critic") else {}
    settings = build(rules, {"kind": name, **more, **SETTINGS.get(name, {})})
    stream = partial(generator, 0)
    return Engine(settings.prepare(given), given.run, given.training, keeper, "test", stream)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_network_of_an_objective_is_an_adapter_and_resumes_exactly(name: str) -> None:
    whole, cut = Memory(), Memory(stop=3)
    made = engine(name, whole, AdapterSettings(**LORA))
    teacher = {id(p) for p in made.objective.materials.frozen.parameters()}
    for trainee in made.trainees:
        network = trainee.learner.network
        assert is_adapted(network) and {id(p) for p in network.parameters()} & teacher
        assert sum(p.numel() for p in trainee.parameters) < 0.5 * sum(p.numel() for p in network.parameters())
    made.train()
    with pytest.raises(KeyboardInterrupt):
        engine(name, cut, AdapterSettings(**LORA)).train()
    cut.stop = 0
    engine(name, cut, AdapterSettings(**LORA)).train()
    assert whole.saved is not None and cut.saved is not None
    for key, part in whole.saved[1].items():
        if "optimiser" not in key:
            assert part and all(torch.equal(value, cut.saved[1][key][one]) for one, value in part.items()), key
    student = {key: value for key, value in whole.saved[1]["student"].items() if "lora_B" in key}
    assert student and all(value.abs().max() > 0 for value in student.values())


def test_shared_weights_are_counted_once() -> None:
    sizes = []
    for adapter in (None, AdapterSettings(**LORA)):
        made = engine("idlm", Memory(), adapter)
        made.train()
        found = components({"teacher": made.objective.materials.frozen}, made.trainees)
        sizes.append({one.name: one for one in found})
    full, small = sizes
    assert full["teacher"].weights == small["teacher"].weights == full["student"].weights
    for name in ("fake", "student"):
        assert small[name].weights == small[name].gradients == 4 * small[name].trainable
        assert small[name].kept < 0.5 * full[name].kept


@pytest.mark.parametrize("other", [None, {"rank": 2}, {"targets": ("attn_qkv",)}])
def test_a_checkpoint_of_another_adapter_is_refused(other: dict[str, Any] | None) -> None:
    teacher = dit()
    state = OwnState(student_of(teacher)).state_dict()
    if other is None:
        state = dict(with_noise(teacher, 0, 0).state_dict())
        with pytest.raises(InputError, match="of another adapter, or of none"):
            OwnState(student_of(teacher)).load_state_dict(state)
        return
    with pytest.raises((InputError, RuntimeError), match="of another adapter|size mismatch"):
        OwnState(student_of(teacher, **other)).load_state_dict(state)


# --- through the command


SMALL = [
    "training.steps=2", "training.batch_size=8", "objective=didi", "objective.reward.warmup=1",
    "objective.reference_samples=8", "objective.reference_steps=2",
    "objective.baseline.group=4", "evaluate.enabled=false",
]  # fmt: skip


def test_a_run_ends_with_a_plain_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["distill", "domain=toy", "adapter=lora", f"run_dir={run}", *SMALL]
    assert main([*words, "adapter.rank=2"]) == 0
    card = read_card(run / "student")
    assert card["training"]["adapter"] == {"kind": "lora", "rank": 2, "alpha": 2.0, "targets": None}
    student, teacher = load_denoiser(run), DOMAIN.teacher("bundled")
    assert load_scorer(run) is not None and student.state_dict().keys() == teacher.state_dict().keys()
    assert not torch.equal(student(TOKENS), teacher(TOKENS))
    assert main(["push", f"run={run}", f"to={tmp_path / 'out'}", "report=none"]) == 0
    assert "Adapter: lora, merged (rank 2" in (tmp_path / "out" / "README.md").read_text()
    assert main([*words, "adapter.rank=3"]) == 2
    assert "adapter.rank: 2 -> 3" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["config"]["adapter"]["rank"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["adapter=lora", "adapter.rank=0"], "adapter.rank=0 is out of range"),
        (["adapter=lora", "adapter.alpha=0"], "adapter.alpha=0"),
        (["adapter=lora", "adapter.targets=[]"], "adapts no layer"),
        (["adapter=lora", "adapter.targets=[attn_qkv,query]"], "adapter.targets=query: no linear layer"),
        (["adapter=dora"], "unknown adapter 'dora'"),
        (["adapter.rank=4"], "It is one with adapter=lora"),
        (["adapter=lora", "teacher=exact"], "class ExactTeacher, has no blocks"),
    ],
)
def test_wrong_input_is_told(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["distill", "domain=toy", *SMALL, *words, f"run_dir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run" / "student").exists()


def test_a_network_without_blocks_is_told() -> None:
    teacher = ExactTeacher(DOMAIN.chain)
    with pytest.raises(InputError, match="ExactTeacher, has no blocks with linear layers"):
        adapt(teacher, teacher, AdapterSettings(**LORA), 0, "student")


def test_without_peft_the_command_that_adds_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else found(name, *more))
    assert main(["distill", "domain=toy", "adapter=lora", f"run_dir={tmp_path / 'run'}", *SMALL]) == 2
    assert 'pip install "didi-core[lora]"' in capsys.readouterr().err and not (tmp_path / "run").exists()
