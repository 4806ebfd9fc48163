"""The computed plan for large teachers: the sizes of a real run, what layers keep, and LLaDA-8B on one GPU."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from large_files import (
    KINDS,
    LLADA2_MINI,
    LLADA2_MINI_LAYER,
    LLADA2_MINI_PARAMETERS,
    VOCABULARY,
    folder,
    tokenizer,
)

from didi_core.checkpoints.importers import outline_of
from didi_core.cli import main
from didi_core.commands.distill import _adapted
from didi_core.device import Machine
from didi_core.errors import InputError
from didi_core.models.adapter import AdapterSettings, adapt
from didi_core.models.experts import ExpertsConfig
from didi_core.models.llama import Llama, LlamaConfig, saved_bytes
from didi_core.models.masters import with_master_weights
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import OBJECTIVES
from didi_core.processes import Processes
from didi_core.run import Run
from didi_core.training.components import components, expected
from didi_core.training.planning import time_steps
from didi_core.training.settings import TrainingSettings
from didi_core.training.sizing import Sized, sized
from didi_language import LanguageDomain
from didi_language.settings import LanguageSettings

SMALL = LlamaConfig(64, 2, 4, 2, 16, 160, 40, 33, attention="sdpa")
EXPERTS = ExpertsConfig(count=8, chosen=2, width=24, shared=1, groups=2, chosen_groups=2, dense=0, scale=2.5)
POSITIONS = 101  # no width of a layer, by which weights are told from activations
GIGABYTE = 10**9


def llama(config: LlamaConfig = SMALL, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Llama:
    torch.manual_seed(0)
    with torch.device(device):
        return Llama(config, VOCABULARY).to(dtype).eval().requires_grad_(False)


def kept(config: LlamaConfig, adapted: bool, positions: int = 64) -> int:
    """Bytes that autograd keeps, without parameters and their copies in bf16."""
    teacher = llama(config, dtype=torch.bfloat16 if adapted else torch.float32)
    student: Llama = copy.deepcopy(teacher).requires_grad_(True)
    if adapted:
        student = adapt(student, teacher, AdapterSettings(rank=1), 0, "x")
    shapes = {p.shape for p in student.parameters()} | {p.shape[::-1] for p in student.parameters()}
    owned = {p.untyped_storage().data_ptr() for p in student.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned and tensor.shape not in shapes:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.zeros(1, positions, dtype=torch.long)
    embedded = student.embed(tokens).detach().requires_grad_(True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        student.encode(tokens, embedded)
    return sum(seen.values())


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"intermediate": 400},
        {"kv_heads": 4, "head_width": 32},
        {"experts": EXPERTS},
        {"experts": replace(EXPERTS, chosen=5, width=56, shared=2)},
        {"experts": replace(EXPERTS, count=16, shared=0), "hidden": 96},
    ],
    ids=str,
)
def test_a_layer_keeps_what_the_plan_says(adapted: bool, sizes: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    one, two = (kept(replace(SMALL, layers=layers, **sizes), adapted, POSITIONS) for layers in (1, 2))
    assert abs((two - one) / POSITIONS / saved_bytes(replace(SMALL, **sizes), adapted) - 1) < 0.05


def test_layers_with_and_without_a_mixture_count_by_their_number() -> None:
    dense, mixed = saved_bytes(SMALL, False), saved_bytes(replace(SMALL, experts=EXPERTS), False)
    some = replace(SMALL, layers=5, experts=replace(EXPERTS, dense=2))
    assert abs(saved_bytes(some, False) - (2 * dense + 3 * mixed) / 5) <= 1


def given(teacher: Llama, device: str, adapted: bool, where: Path) -> Materials:
    domain = LanguageDomain(LanguageSettings(tokenizer=str(where), length=12))
    training = TrainingSettings(steps=2, batch_size=8, warmup=1, ema=0.9)
    run = Run(domain, Machine(torch.device(device), "bf16"))
    adapter = partial(_adapted, teacher=teacher, how=AdapterSettings(rank=2), seed=0) if adapted else None
    student = copy.deepcopy(teacher).requires_grad_(True)
    student = with_master_weights(student) if adapter is None else adapter(student, "student")
    samples = domain.template([10] * 8).clamp_max(1)
    return Materials(run, training, student, teacher, lambda *_: samples, adapter=adapter)


@pytest.mark.parametrize("adapted", [False, True])
def test_the_networks_of_the_plan_are_those_of_a_run(adapted: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    path, settings = tokenizer(tmp_path), OBJECTIVES.find("didi", "objective")()
    real = given(llama(), "cpu", adapted, path)
    measured = time_steps(settings.prepare(real), real.run, real.training)
    made = components({"teacher": real.frozen}, measured.trainees)
    meta = given(llama(device="meta"), "meta", adapted, path)
    planned = expected({"teacher": meta.frozen}, settings.prepare(meta).learners())
    for one, other in zip(planned, made, strict=True):
        assert replace(one, optimiser=0) == replace(other, optimiser=0)
        steps = 4 * 20  # AdamW also counts its steps, once a tensor
        assert one.optimiser <= other.optimiser <= one.optimiser + steps * 4


def llada_8b(path: Path) -> Path:
    """A folder with the configuration of LLaDA-8B and a tokenizer, without weights."""
    sizes = {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288}
    rows = {"embedding_size": 126464, "vocab_size": 126464}
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({**KINDS["llada"], **sizes, **rows}))
    return tokenizer(path)


def dry_run(path: Path, monkeypatch: pytest.MonkeyPatch, *keys: str) -> Sized:
    """The plan that the command makes."""
    made: list[Any] = []
    import didi_core.commands.sizing as sizing

    monkeypatch.setattr(sizing, "SHORT", 8)
    monkeypatch.setattr(sizing, "sized", lambda *given: made.append(sized(*given)) or made[-1])
    common = (f"teacher={path}", f"data.tokenizer={path}", "data.length=512", "dry_run=true", "training.batch_size=8")
    assert main(["distill", "domain=language", *common, *keys]) == 0
    return made[0]


def test_llada_8b_with_adapters_fits_one_gpu_of_80_gb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    plan = dry_run(llada_8b(tmp_path / "hub"), monkeypatch, "adapter=lora")
    teacher, student = plan.components[0], plan.components[-1]
    assert teacher.parameters == 8_015_581_184 and teacher.weights == 2 * teacher.parameters
    assert student.trainable == 16 * 32 * (4 * 2 * 4096 + 3 * (4096 + 12288))  # rank x layers x (inputs + outputs)
    assert student.weights == student.gradients == student.ema == 4 * student.trainable
    assert plan.positions == 8 * 512 and plan.activations == 32 * plan.positions * saved_bytes(LlamaConfig(), True)
    assert 40 * GIGABYTE < plan.peak < 72 * GIGABYTE and plan.fits(80) and not plan.fits(40)
    assert "Needs one accelerator of 80 GB" in " ".join(capsys.readouterr().out.split())
    assert [one.name for one in tmp_path.iterdir()] == ["hub"]  # nothing was written


def test_a_run_on_prompts_is_planned_as_one_on_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most prompts are longer than the sequences on which texts are counted."""
    pytest.importorskip("peft")
    path, asked = tokenizer(tmp_path), tmp_path / "asked.jsonl"
    (path / "config.json").write_text(json.dumps(KINDS["llada"]))
    asked.write_text("".join(f'{{"prompt": "{"why " * number}"}}\n' for number in range(1, 9)))
    keys = ("adapter=lora", "data.length=64", "training.batch_size=2")
    plain = dry_run(path, monkeypatch, *keys)
    assert dry_run(path, monkeypatch, *keys, f"data.prompts={asked}") == plain


def test_llada_8b_in_full_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = dry_run(llada_8b(tmp_path / "hub"), monkeypatch)
    assert plan.networks > 2 * 16 * 8_015_581_184 and not plan.fits(180)  # two networks with AdamW, fp32


def test_llada_8b_in_full_is_shared_by_eight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("didi_core.commands.common.current", lambda: Processes(0, 8))
    whole, part = (dry_run(llada_8b(tmp_path / "hub"), monkeypatch, f"parallel={how}") for how in ("auto", "shard"))
    for one, other in zip(whole.components, part.components, strict=True):
        assert other == one.shard(8) and other.weights == one.weights // 8 and other.parameters == one.parameters
    block = 4 * 4096 * 4096 + 3 * 4096 * 12288 + 2 * 4096
    outside = 2 * 126464 * 4096 + 4096  # embedding, head and the last norm; the teacher's are in bf16
    assert part.gathered == (2 + 4 + 4) * outside + 4 * outside + 2 * 4 * block
    assert (whole.setting_up, part.setting_up) == (whole.components[0].weights, 0)  # the teacher whole is less
    assert (whole.activations, whole.gathered) == (part.activations, 0) and part.peak < whole.peak / 3
    assert "8 accelerators of" in " ".join(capsys.readouterr().out.split())


def llada2_mini(path: Path) -> Path:
    """A folder with the sizes of LLaDA2.0-mini, but two layers, and a tokenizer, without weights."""
    path.mkdir(exist_ok=True)
    sizes = {**LLADA2_MINI, "num_hidden_layers": 2, "mask_token_id": 33}
    (path / "config.json").write_text(json.dumps({**KINDS["llada2"], **sizes}))
    return tokenizer(path)


def test_the_plan_of_a_mixture_adapts_all_but_its_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    plan = dry_run(llada2_mini(tmp_path / "hub"), monkeypatch, "adapter=lora")
    attention = 2 * 2048 + 2 * 2048 + 2 * (2048 + 512)  # inputs and outputs of o, q, k and v
    mlps = 3 * (2048 + 5120), 3 * (2048 + 512)  # that of the first layer, the shared one of the second
    assert plan.components[-1].trainable == 16 * (2 * attention + sum(mlps))
    teacher = plan.components[0]
    assert teacher.parameters == LLADA2_MINI_PARAMETERS - 18 * LLADA2_MINI_LAYER
    sizes = LlamaConfig(2048, 2, 16, 4, 128, 5120, experts=ExpertsConfig(256, 8, 512, 1, 8, 4, 1, 2.5))
    assert plan.activations == 2 * plan.positions * saved_bytes(sizes, True)


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 10**9), ("hidden_size", 10**12)])
def test_sizes_that_no_network_has_are_refused_at_once(key: str, value: int, tmp_path: Path) -> None:
    path = folder(tmp_path, "dream", config={key: value}, state={"x": torch.zeros(1)})
    with pytest.raises(InputError, match=r"1,000,000,000 layers|cannot be built|head_width"):
        outline_of(str(path), VOCABULARY)


def test_a_plan_reads_no_weights_and_refuses_what_a_run_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tokenizer(folder(tmp_path, "dream", config={"mask_token_id": 3}))
    (path / "model.safetensors").write_bytes(b"")
    keys = (f"teacher={path}", f"data.tokenizer={path}", "data.length=16", "dry_run=true")
    assert main(["distill", "domain=language", *keys]) == 2
    assert "the model's mask is token 3" in capsys.readouterr().err
