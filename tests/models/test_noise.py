"""A student that reads noise: what it can say in one call that no other can, and where its noise goes with it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from didi_core.checkpoints.card import load_denoiser, load_scorer, save_model, save_scorer
from didi_core.checkpoints.exporters import export_didi, export_hf
from didi_core.config import build
from didi_core.diffusion.masking import log_p_x0
from didi_core.diffusion.noise import fresh_noise, noisy_trunk
from didi_core.errors import InputError
from didi_core.huggingface import DiTForMaskedDiffusion
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.noise import with_noise
from didi_core.models.scorer import scorer_from_trunk
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import OBJECTIVES
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.objective import Slice
from didi_core.training.settings import TrainingSettings
from didi_core.types import Vocabulary
from didi_toy import ExactTeacher, ToyDomain

SIZES = {"hidden": 16, "layers": 2, "heads": 2, "conditioning": 8}
STUDENTS = sorted(name for name, kind in OBJECTIVES.items() if "distill" in kind.commands)


def noisy(noise: int = 4, size: int = 3, seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    network = DiT(DiTConfig(**SIZES, noise=noise), Vocabulary(size))
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.5)
    if network.noise_map is not None:
        torch.nn.init.normal_(network.noise_map[2].bias)  # type: ignore[arg-type]
    return network.eval()


# --- what it can say


def quantiles(count: int) -> Tensor:
    """Noise [count, 1] that stands for all of it: equally likely values of one normal number."""
    return torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(count) + 0.5) / count)[:, None]


def one_call_law(student: DiT, count: int = 32) -> Tensor:
    """Exact probabilities of 00, 01, 10, 11 written in one call, over ``count`` values of the noise."""
    noise = quantiles(count) if student.noise_size else torch.zeros(1, 1)
    masked = torch.full((len(noise), 2), student.vocabulary.mask)
    p = log_p_x0(student(masked, noise if student.noise_size else None), student.vocabulary).exp()
    return torch.stack([(p[:, 0, a] * p[:, 1, b]).mean() for a, b in itertools.product(range(2), repeat=2)])


@pytest.mark.parametrize(("noise", "reached"), [(0, False), (1, True)])
def test_a_student_with_noise_writes_a_mixture_that_a_factorised_one_cannot(noise: int, reached: bool) -> None:
    """The data are 00 and 11, each half of the time. A product of two distributions is at least log 2 away."""
    torch.manual_seed(0)
    student = DiT(DiTConfig(hidden=32, layers=1, heads=2, conditioning=8, positions=2, noise=noise), Vocabulary(2))
    wanted = torch.tensor([0.5, 0.0, 0.0, 0.5])
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-3)
    for _ in range(200):
        optimiser.zero_grad()
        (-(wanted * one_call_law(student).clamp_min(1e-9).log()).sum()).backward()
        optimiser.step()
    law = one_call_law(student).detach()
    assert abs(float(law.sum()) - 1) < 1e-4
    divergence = float((wanted[[0, 3]] * (wanted[[0, 3]] / law[[0, 3]]).log()).sum())
    floor = float(torch.tensor(2.0).log())
    assert divergence < 0.1 if reached else divergence > floor - 1e-4


def test_the_floor_of_a_product_is_the_mutual_information() -> None:
    """Over a grid of all pairs of coins none comes nearer to 00 and 11 than log 2, the chosen one does."""
    p = torch.linspace(0.01, 0.99, 99)
    first, second = p[:, None], p[None]
    divergence = 0.5 * (0.5 / (first * second)).log() + 0.5 * (0.5 / ((1 - first) * (1 - second))).log()
    assert float(divergence.min()) == pytest.approx(float(torch.tensor(2.0).log()), rel=1e-5)


# --- the network


def test_noise_moves_the_mask_and_only_through_it() -> None:
    student = noisy()
    mask, noise = student.vocabulary.mask, torch.randn(2, 4, generator=generator(0))
    open_rows, masked = torch.tensor([[0, 1, 2], [1, 1, 0]]), torch.tensor([[0, mask, 2], [mask, 1, 0]])
    torch.testing.assert_close(student.trunk(open_rows, noise), student.trunk(open_rows))
    assert (student.trunk(masked, noise) - student.trunk(masked)).abs().amax((1, 2)).min() > 1e-3
    torch.testing.assert_close(student.trunk(masked), student.trunk(masked, torch.zeros(2, 4)))


def test_noise_is_the_streams_and_costs_nothing_where_none_is_read() -> None:
    tokens, student = torch.full((3, 2), 3), noisy()
    first, again = (noisy_trunk(student, tokens, generator(0, "noise")) for _ in range(2))
    assert torch.equal(first, again)
    stream = generator(0, "noise")
    assert not torch.equal(noisy_trunk(student, tokens, stream), noisy_trunk(student, tokens, stream))
    before = stream.get_state()
    assert fresh_noise(noisy(0), tokens, stream) is None and torch.equal(before, stream.get_state())


def test_a_student_with_noise_starts_near_its_teacher() -> None:
    teacher = noisy(0)
    student = with_noise(teacher, 32, seed=0)
    tokens = torch.tensor([[3, 1, 3, 0]])
    assert isinstance(student, DiT) and student.noise_size == 32
    moved = (noisy_trunk(student, tokens, generator(0)) - teacher.trunk(tokens)).norm() / teacher.trunk(tokens).norm()
    assert 1e-4 < moved < 0.2
    again = with_noise(teacher, 32, seed=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())
    torch.testing.assert_close(with_noise(student, 0, 1)(tokens), student(tokens))
    with pytest.raises(InputError, match=r"student.noise=8: the teacher reads 32 numbers already"):
        with_noise(student, 8, 0)
    with pytest.raises(InputError, match=r"student.noise=8: the teacher is a ExactTeacher, and only a DiT"):
        with_noise(ExactTeacher(ToyDomain().chain), 8, 0)


# --- files


def test_the_card_says_how_much_noise_a_model_reads(tmp_path: Path) -> None:
    student = noisy()
    scorer = scorer_from_trunk(noisy(0), 1)
    card = save_model(tmp_path, student)
    save_scorer(tmp_path, scorer)
    assert card["config"]["noise"] == 4
    back, guide = load_denoiser(tmp_path), load_scorer(tmp_path)
    tokens, noise = torch.tensor([[3, 1, 3]]), torch.ones(1, 4)
    assert isinstance(back, DiT) and guide is not None
    torch.testing.assert_close(back(tokens, noise), student(tokens, noise))
    torch.testing.assert_close(guide(tokens), scorer.eval()(tokens))


def test_a_scorer_reads_no_noise_but_starts_where_its_denoiser_is_without(tmp_path: Path) -> None:
    teacher = noisy()
    scorer = scorer_from_trunk(teacher, 1).eval()
    tokens = torch.tensor([[3, 1, 3]])
    torch.testing.assert_close(scorer.network.trunk(tokens), teacher.trunk(tokens))  # type: ignore[operator]
    assert not any("noise" in name for name in scorer.state_dict()) and teacher.noise_size == 4


def test_an_export_holds_the_noise_or_refuses(tmp_path: Path) -> None:
    student = noisy()
    save_model(tmp_path / "student", student)
    with pytest.raises(InputError, match=r"reads 4 numbers of noise at every call.*Set format=hf"):
        export_didi(tmp_path / "student", tmp_path / "didi")
    assert not (tmp_path / "didi").exists()
    export_hf(tmp_path / "student", tmp_path / "hf")
    back = DiTForMaskedDiffusion.from_pretrained(tmp_path / "hf")
    tokens, noise = torch.tensor([[3, 1, 3]]), torch.ones(1, 4)
    torch.testing.assert_close(back(tokens, noise=noise).logits, student(tokens, noise))


# --- objectives


@pytest.mark.parametrize("name", STUDENTS)
def test_every_objective_trains_a_student_with_noise(name: str) -> None:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)

    def samples(num: int, steps: int) -> Tensor:
        return domain.chain.sample(num, 32, generator(0, "test"))  # type: ignore[attr-defined]

    keys: dict[str, Any] = {"reference_samples": 16} if name == "didi" else {"states": {"source": "teacher"}}
    if name in ("dmmd", "idlm"):  # at the start, where teacher and fake are the same, only the anchor pulls
        keys["anchor"] = {"kl": 0.1}
    found = []
    for _ in range(2):
        student = with_noise(teacher, 8, 0).requires_grad_(True)
        materials = Materials(Run(domain), TrainingSettings(batch_size=8), student, teacher, samples)
        objective = build(OBJECTIVES.find(name), keys, "objective").prepare(materials)
        part = Slice(stream=generator(0, "slice"))
        objective.loss("student", objective.batch(part), part).loss.backward()
        assert isinstance(student, DiT) and student.noise_map is not None
        gradient = student.noise_map[0].weight.grad
        assert gradient is not None and float(gradient.norm()) > 0
        found.append(gradient.clone())
    assert torch.equal(*found)


def test_noise_tells_sequences_apart_from_the_start_and_leaves_most_of_what_the_teacher_knows() -> None:
    """Information of the tokens of one call about their vector, and what the student is off its teacher, in nats."""
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").eval()
    student = with_noise(teacher, 32, 0).eval()
    tokens = torch.full((256, 4), domain.vocabulary.mask)
    with torch.no_grad():
        noise = torch.randn(256, 32, generator=generator(0, "noise"))
        known, ours = (each.log_softmax(-1) for each in (teacher(tokens), student(tokens, noise)))
    p = ours.exp()
    told = float((p * (ours - p.mean(0).log())).sum(-1).mean())
    off = float((p * (ours - known)).sum(-1).mean())
    assert 0.03 < told < off < 0.5
