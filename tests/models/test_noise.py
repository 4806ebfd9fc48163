"""A student that reads noise: what it can say in one call that no other can, and where its noise goes with it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from didi_core.checkpoints.card import load_denoiser, load_scorer, save_model, save_scorer, write_card
from didi_core.checkpoints.exporters import export_didi, export_hf
from didi_core.config import build
from didi_core.diffusion.masking import log_p_x0
from didi_core.diffusion.noise import fresh_noise, noisy_trunk
from didi_core.errors import InputError
from didi_core.huggingface import DiTForMaskedDiffusion, EsmForMaskedDiffusion, LlamaForMaskedDiffusion
from didi_core.models.compiled import Compilation, try_on
from didi_core.models.dit import DiT, DiTConfig
from didi_core.models.esm import Esm, EsmConfig
from didi_core.models.experts import ExpertsConfig
from didi_core.models.llama import Llama, LlamaConfig
from didi_core.models.masters import with_master_weights
from didi_core.models.noise import ReadsNoise, as_later_calls, learning, with_noise
from didi_core.models.scorer import scorer_from_trunk
from didi_core.objectives.base import Materials
from didi_core.objectives.registry import OBJECTIVES
from didi_core.plugins import registry
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.objective import Slice
from didi_core.training.outlines import fill, outlined
from didi_core.training.parallel import blocks_of
from didi_core.training.settings import TrainingSettings
from didi_core.types import Vocabulary
from didi_toy import ExactTeacher, ToyDomain

N = TypeVar("N", bound=torch.nn.Module)
SIZES = {"hidden": 16, "layers": 2, "heads": 2, "conditioning": 8}
STUDENTS = sorted(name for name, kind in OBJECTIVES.items() if "distill" in kind.commands)


def noisy(noise: int = 4, size: int = 3, seed: int = 0, **more: Any) -> DiT:
    torch.manual_seed(seed)
    network = DiT(DiTConfig(**SIZES, noise=noise, **more), Vocabulary(size))
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.5)
    if network.noise_map is not None:
        torch.nn.init.normal_(network.noise_map[2].bias)  # type: ignore[arg-type]
    return network.eval()


def esm(noise: int = 0, **more: Any) -> Esm:
    torch.manual_seed(0)
    network = Esm(EsmConfig(16, 2, 2, 32, noise=noise, **more), Vocabulary(5))
    return grown(network)


def llama(noise: int = 0, **more: Any) -> Llama:
    torch.manual_seed(0)
    return grown(Llama(LlamaConfig(16, 2, 2, 1, 8, 32, 8, 6, noise=noise, **more), Vocabulary(5)))


def grown(network: N) -> N:
    """With weights of which every part shows."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "noise" not in name:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
    return network.eval()


EXPERTS = ExpertsConfig(count=4, chosen=2, width=8, shared=1, groups=2, chosen_groups=1, dense=1, scale=1.0)
PRETRAINED: dict[str, Callable[..., ReadsNoise]] = {
    "esm": esm,
    "esm without token dropout": partial(esm, token_dropout=False),
    "llama": llama,
    "llama, shifted, tied": partial(llama, shifted=True, tied=True),
    "llama, blocks of experts": partial(llama, block=2, experts=EXPERTS),
}
NETWORKS: dict[str, Callable[..., ReadsNoise]] = {"dit": partial(noisy, size=5), **PRETRAINED}
KINDS: list[dict[str, bool]] = [{}, {"noise_once": True}, {"noise_once": True, "first_blocks": True}]  # of noise
STATES = torch.tensor([[5, 1, 5, 0], [5, 5, 5, 5]])
OPEN = torch.tensor([[4, 1, 2, 0], [1, 1, 0, 3]])


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


@pytest.mark.parametrize("kind", NETWORKS)
def test_noise_moves_the_mask_and_only_through_it(kind: str) -> None:
    student, noise = NETWORKS[kind](4), torch.randn(2, 4, generator=generator(0))
    torch.testing.assert_close(student.trunk(OPEN, noise), student.trunk(OPEN))
    assert (student.trunk(STATES, noise) - student.trunk(STATES)).abs().amax((1, 2)).min() > 1e-3
    torch.testing.assert_close(student.trunk(STATES), student.trunk(STATES, torch.zeros(2, 4)))
    torch.testing.assert_close(student(STATES, noise), student.head(student.trunk(STATES, noise)))
    (student.trunk(STATES, noise).square().sum()).backward()
    assert student.noise_map is not None and all(p.grad.norm() > 0 for p in student.noise_map.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", NETWORKS)
def test_noise_of_the_first_call_moves_masks_only_where_nothing_is_written(kind: str) -> None:
    student, noise = NETWORKS[kind](4, noise_once=True), torch.randn(2, 4, generator=generator(0))
    always = NETWORKS[kind](4)
    always.load_state_dict(student.state_dict())
    plain = NETWORKS[kind](0)
    plain.load_state_dict(student.state_dict(), strict=False)
    moved, still = student.trunk(STATES, noise), plain.trunk(STATES)
    torch.testing.assert_close(moved[0], still[0])  # a sequence with two letters
    torch.testing.assert_close(moved[1], always.trunk(STATES, noise)[1])  # one of masks alone
    assert (moved[1] - still[1]).abs().max() > 1e-3


def test_what_is_given_is_not_written() -> None:
    """BOS, EOS, padding, clues and prompts leave a sequence as empty as it was; pinned letters of a motif do not."""
    vocabulary = Vocabulary(8, bos=5, eos=6, pad=7, given=(4,), given_copies=True)
    torch.manual_seed(0)
    student = DiT(DiTConfig(**SIZES, noise=2, noise_once=True), vocabulary).eval()
    mask, prompt = vocabulary.mask, vocabulary.mask + 1
    tokens = torch.tensor([[5, mask, 4, mask, 6, 7], [5, mask, prompt, mask, 6, 7], [5, mask, 0, mask, 6, 7]])
    moved = student.embed(tokens, torch.ones(3, 2)) - student.embed(tokens, -torch.ones(3, 2))
    assert (moved.abs().amax(-1) > 0).tolist() == [
        [False, True, False, True, False, False], [False, True, False, True, False, False], [False] * 6
    ]  # fmt: skip


def test_new_noise_changes_the_first_call_alone() -> None:
    """Two calls with noise of their own differ at a sequence of masks, and not at one that has a letter."""
    student = noisy(2, size=5, noise_once=True)
    partly = torch.tensor([[5, 5, 5, 5], [5, 5, 3, 5]])
    stream = generator(0)
    first, again = noisy_trunk(student, partly, stream), noisy_trunk(student, partly, stream)
    assert not torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_first_call_has_blocks_of_its_own(kind: str) -> None:
    """They start as copies. What they learn changes no later call, and what the others learn changes not the first."""
    teacher = NETWORKS[kind](0).requires_grad_(False)
    student = with_noise(teacher, 4, 0, once=True, first_blocks=True).requires_grad_(True)
    assert isinstance(student, ReadsNoise) and student.first is not None
    assert len(student.first_blocks) == len(student.blocks) and [*blocks_of(student)][2:] == [*student.first_blocks]  # type: ignore[attr-defined]
    rows = torch.cat([STATES, STATES.flip(0), OPEN])  # begun, empty, empty, begun, and two that are full
    noise = torch.randn(len(rows), 4, generator=generator(0))
    before, empty = student.trunk(rows, noise).detach(), torch.tensor([False, True, True, False, False, False])
    torch.testing.assert_close(before, with_noise(teacher, 4, 0, once=True).trunk(rows, noise))  # type: ignore[call-arg]
    torch.testing.assert_close(student.trunk(rows[1:2], noise[1:2])[0], before[1])
    student.trunk(rows[empty]).square().sum().backward()
    assert all(p.grad is None for block in student.blocks for p in block.parameters())  # type: ignore[attr-defined]
    student.zero_grad()
    student.trunk(rows[~empty]).square().sum().backward()
    assert all(p.grad is None for p in student.first.parameters())
    for core, moves in ((student.first, empty), (student.get_submodule(student.CORE), ~empty)):
        grown(core)
        after = student.trunk(rows, noise).detach()
        assert ((after - before).abs().amax((1, 2)) > 1e-3).equal(moves)
        before = after


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_all_calls_share_does_not_learn_beside_blocks_of_the_first(kind: str) -> None:
    plain, own = NETWORKS[kind](4), NETWORKS[kind](4, noise_once=True, first_blocks=True)
    for network in (plain, own):
        network.requires_grad_(False)
        learning(network)
    assert all(p.requires_grad for p in plain.parameters())
    learnt = {name for name, p in own.named_parameters() if p.requires_grad}
    assert learnt == {n for n, _ in own.named_parameters() if n.startswith(("first.", "noise_map.", f"{own.CORE}."))}
    assert learnt < {name for name, _ in own.named_parameters()}


@pytest.mark.parametrize("scale", [0.03, 2.0])
@pytest.mark.parametrize("kind", PRETRAINED)
def test_noise_starts_at_half_the_size_of_a_pretrained_embedding(kind: str, scale: float) -> None:
    """Whatever that size is; and what is read without noise is the teacher to the bit."""
    teacher = PRETRAINED[kind]()
    with torch.no_grad():
        teacher.token_rows().normal_(std=scale)
    student = with_noise(teacher, 32, seed=0)
    assert isinstance(student, ReadsNoise)
    added = student.shift(torch.randn(512, 32, generator=generator(0)))
    assert 0.3 * scale < float(added.detach().square().mean().sqrt()) < 0.7 * scale
    assert torch.equal(student(STATES), teacher(STATES))
    again = with_noise(teacher, 32, seed=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_an_outline_gets_the_map_of_the_network_that_it_stands_for(kind: str, first: bool) -> None:
    teacher = NETWORKS[kind](0)
    made = with_noise(outlined(teacher), 3, 0, teacher, first, first)
    plain = with_noise(teacher, 3, 0, None, first, first)
    fill(made, [teacher])
    ours, theirs = made.state_dict(), plain.state_dict()
    assert [*ours] == [*theirs] and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert isinstance(with_noise(outlined(teacher), 3, 0), ReadsNoise), "a run's size is computed without values"


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_map_learns_in_fp32_beside_frozen_weights_in_half(kind: str) -> None:
    teacher = NETWORKS[kind](0).to(torch.bfloat16)
    student, noise = with_noise(teacher, 3, 0), torch.randn(2, 3, generator=generator(0))
    assert isinstance(student, ReadsNoise) and student.noise_map is not None
    assert {p.dtype for p in student.noise_map.parameters()} == {torch.float32}
    hidden = student.trunk(STATES, noise)
    assert hidden.dtype == torch.bfloat16 and torch.isfinite(hidden).all()
    assert {p.dtype for p in with_master_weights(student).parameters()} == {torch.float32}


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", ["dit", "esm", "llama"])
def test_blocks_of_a_network_with_noise_can_be_compiled(kind: str, how: dict[str, bool]) -> None:
    compilation = Compilation(backend="eager")
    try_on(compilation, NETWORKS[kind](3, **how))
    assert compilation.problem == ""


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
    with pytest.raises(InputError, match=r"student.noise_once=true: .*reads its noise in every call. Set .*=false"):
        with_noise(student, 32, 0, once=True)
    once = with_noise(teacher, 2, 0, once=True)
    assert with_noise(once, 2, 1, once=True).config.noise_once and with_noise(once, 0, 1).config.noise_once  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"student.noise_once=false: .* in the first call only. Set .*=true"):
        with_noise(once, 2, 0)
    with pytest.raises(InputError, match=r"student.first_blocks=true: the teacher has no blocks.* Set .*=false"):
        with_noise(once, 2, 0, once=True, first_blocks=True)
    own = with_noise(teacher, 2, 0, once=True, first_blocks=True)
    assert with_noise(own, 0, 1).config.first_blocks  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"student.first_blocks=false: the teacher has its own blocks.* Set .*=true"):
        with_noise(own, 2, 0, once=True)
    with pytest.raises(InputError, match=r"class ExactTeacher, which cannot read noise.*such as objective=few_calls"):
        with_noise(ExactTeacher(ToyDomain().chain), 8, 0)


# --- files


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("how", KINDS)
def test_the_card_says_how_much_noise_a_model_reads(kind: str, how: dict[str, bool], tmp_path: Path) -> None:
    """With the scorer of a teacher that reads none beside it."""
    student, scorer = NETWORKS[kind](4, **how), scorer_from_trunk(NETWORKS[kind](0), 1)
    card = save_model(tmp_path, student)
    save_scorer(tmp_path, scorer)
    assert card["config"]["noise"] == 4 and {name: card["config"][name] for name in how} == how
    back, guide = load_denoiser(tmp_path), load_scorer(tmp_path)
    noise = torch.ones(2, 4)
    assert isinstance(back, ReadsNoise) and guide is not None
    torch.testing.assert_close(back(STATES, noise), student(STATES, noise))
    torch.testing.assert_close(guide(STATES), scorer.eval()(STATES))


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_card_from_before_there_was_noise_is_of_a_network_without(kind: str, tmp_path: Path) -> None:
    network = NETWORKS[kind](0)
    card = save_model(tmp_path, network)
    del card["config"]["noise"], card["config"]["noise_once"], card["config"]["first_blocks"]
    write_card(tmp_path, card)
    back = load_denoiser(tmp_path)
    assert isinstance(back, ReadsNoise) and back.noise_size == 0 and not any("noise" in n for n in back.state_dict())
    torch.testing.assert_close(back(STATES), network(STATES))


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_scorer_reads_no_noise_but_starts_where_its_denoiser_is_without(kind: str, how: dict[str, bool]) -> None:
    """Of noise in the first call: where it is in later ones."""
    teacher = NETWORKS[kind](4, **how)
    network: Any = scorer_from_trunk(teacher, 1).eval().network
    without = teacher.trunk(STATES)
    if isinstance(teacher, Llama) and teacher.config.shifted:  # a scorer reads a position at its own place
        network.config = replace(network.config, shifted=True)
    shown = slice(0, 1 if how else 2)
    torch.testing.assert_close(network.trunk(STATES)[shown], without[shown])
    assert not any("noise" in name for name in network.state_dict()) and teacher.noise_size == 4
    assert network.noise_size == network.config.noise == 0 and network.first is None
    assert not network.config.noise_once and not network.config.first_blocks


PUBLISHED: dict[str, Any] = {
    "dit": DiTForMaskedDiffusion, "esm": EsmForMaskedDiffusion, "llama": LlamaForMaskedDiffusion
}  # fmt: skip


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("kind", PUBLISHED)
def test_an_export_holds_the_noise_or_refuses(kind: str, how: dict[str, bool], tmp_path: Path) -> None:
    student = NETWORKS[kind](4, **how)
    save_model(tmp_path / "student", student)
    reason = "reads 4 numbers of noise, and" if kind == "dit" else "DiDi-Instruct's network is a DiT"
    with pytest.raises(InputError, match=rf"{reason}.*Set format=hf"):
        export_didi(tmp_path / "student", tmp_path / "didi")
    assert not (tmp_path / "didi").exists()
    export_hf(tmp_path / "student", tmp_path / "hf")
    back, noise = PUBLISHED[kind].from_pretrained(tmp_path / "hf"), torch.ones(2, 4)
    torch.testing.assert_close(back(STATES, noise=noise).logits, student(STATES, noise))
    torch.testing.assert_close(back(STATES).logits, student(STATES))


# --- objectives


@pytest.mark.parametrize("name", STUDENTS)
def test_every_objective_trains_a_student_with_noise(name: str) -> None:
    domain = registry().domain("toy", {})
    teacher = domain.teacher("bundled").requires_grad_(False)

    def samples(num: int, steps: int) -> Tensor:
        return domain.chain.sample(num, 32, generator(0, "test"))  # type: ignore[attr-defined]

    keys: dict[str, Any] = {"reference_samples": 16} if name == "didi" else {"states": {"source": "teacher"}}
    keys = {"coupling": keys} if name == "coupled" else keys
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


def test_a_later_call_has_none_of_the_first_calls_parameters_in_its_graph() -> None:
    """So both can learn in one step: an update of one does not touch what a graph of the other needs."""
    student = noisy(2, size=5, noise_once=True, first_blocks=True)
    later = student.trunk(torch.tensor([[5, 3, 5, 5]]), torch.ones(1, 2))
    own = [p for name, p in student.named_parameters() if name.startswith(("first.", "noise_map."))]
    assert own and torch.autograd.grad(later.sum(), own, allow_unused=True) == (None,) * len(own)


@pytest.mark.parametrize("kind", NETWORKS)
def test_all_calls_can_be_taken_for_later_ones(kind: str) -> None:
    """As a student's rollouts are while its later calls learn; afterwards the first call is itself again."""
    student = with_noise(NETWORKS[kind](0).requires_grad_(False), 2, 0, once=True, first_blocks=True)
    plain, noise = copy.deepcopy(student), torch.ones(len(STATES), 2)
    plain.drop_noise()
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if name.startswith("first."):
                parameter.mul_(1.5)
    before = student.trunk(STATES, noise)
    with pytest.raises(KeyError), as_later_calls(student):
        torch.testing.assert_close(student.trunk(STATES, noise), plain.trunk(STATES))
        raise KeyError
    assert torch.equal(student.trunk(STATES, noise), before) and not torch.equal(before, plain.trunk(STATES))
