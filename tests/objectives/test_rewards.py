"""The list of rewards: functions of the text, weights, what a reward may ask for, and the messages for a wrong one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import didi_core
from didi_core.errors import InputError
from didi_core.objectives.advantage import BaselineSettings
from didi_core.objectives.anchor import AnchorSettings
from didi_core.objectives.base import Materials
from didi_core.objectives.didi import Didi
from didi_core.objectives.policy import draw_episode, student_terms
from didi_core.objectives.reference import SampleReference
from didi_core.objectives.rewards import REWARDS, Corrupted, Reward, make_rewards, read_rewards, reward
from didi_core.objectives.rewards.base import Context, CriticSettings
from didi_core.objectives.rollout import RolloutSettings
from didi_core.run import Run
from didi_core.streams import generator
from didi_core.training.objective import Collapse, Terms
from didi_core.training.settings import TrainingSettings
from didi_toy import ToyDomain
from didi_toy.enumeration import TableDenoiser

SYMBOLS, LENGTH = 3, 2
ANCHORLESS = AnchorSettings(kl=0.0)


def letters(tokens: Sequence[int]) -> str:
    return "".join("abc"[token] for token in tokens)


@reward
def count_a(texts: list[str], *, each: float = 1.0) -> list[float]:
    return [each * text.count("a") for text in texts]


def table() -> TableDenoiser:
    return TableDenoiser(SYMBOLS, LENGTH, generator(0, "student"))


def made(*listed: Any) -> list[tuple[Reward, float]]:
    """Rewards of a list that need no networks."""
    run = Run(ToyDomain())
    materials = Materials(run, TrainingSettings(), table())
    nothing = SampleReference(torch.zeros(1, LENGTH, dtype=torch.long), 0, None)
    return make_rewards(read_rewards(listed, CriticSettings()), Context(materials, CriticSettings(), lambda: nothing))


def terms(rewards: list[tuple[Reward, float]], student: TableDenoiser, decode: Callable | None = letters) -> Terms:
    """Loss of one slice of rollouts, the same for every list of rewards."""
    how = Didi(
        reward=["scorer"],
        rollout=RolloutSettings(states=2),
        baseline=BaselineSettings(group=4, clip=1e9),
        anchor=ANCHORLESS,
    )
    stream = generator(1)
    template = torch.full((64, LENGTH), student.vocabulary.mask)
    episode = draw_episode(student, template, how, stream)
    return student_terms(student, table(), rewards, episode, how, stream, decode)


# --- a function of the text


def test_a_reward_is_still_a_function() -> None:
    assert count_a(["aba", "b"], each=2.0) == [4.0, 0.0] and count_a.name == "count_a"


def test_its_keyword_parameters_are_its_settings() -> None:
    (entry,) = read_rewards([{"kind": count_a, "each": 3, "weight": 0.5}], CriticSettings())
    assert (entry.kind, entry.weight, entry.rule.each) == ("count_a", 0.5, 3.0)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"unknown key 'objective.reward\[0\].eech'. Did you mean .*each"):
        read_rewards([{"kind": count_a, "eech": 3}], CriticSettings())
    with pytest.raises(InputError, match=r"objective.reward\[0\].each='x' does not fit: .* a finite number"):
        read_rewards([{"kind": count_a, "each": "x"}], CriticSettings())


def test_descending_it_writes_what_it_praises() -> None:
    student = table()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.3)

    def shown() -> float:
        return float(terms(made(count_a), student).scalars["reward"])

    before = shown()
    for _ in range(20):
        optimiser.zero_grad()
        terms(made(count_a), student).loss.backward()
        optimiser.step()
    assert before < 1 and shown() > 1.9


def test_texts_are_decoded_once_for_all_rewards() -> None:
    decoded: list[str] = []

    def counting(tokens: Sequence[int]) -> str:
        decoded.append(letters(tokens))
        return decoded[-1]

    @reward
    def length(texts: list[str]) -> list[float]:
        assert texts == decoded
        return [float(len(text)) for text in texts]

    terms(made(count_a, length), table(), counting)
    assert len(decoded) == 64


def test_it_may_ask_for_times_and_groups() -> None:
    asked: dict[str, list] = {}

    @reward
    def watching(texts: list[str], times: list[float], groups: list[int], *, start: int = 0) -> list[float]:
        asked.update(times=times, groups=groups)
        return [float(start + i) for i in range(len(texts))]

    terms(made({"kind": watching, "start": 2}), table())
    assert asked["groups"] == [i // 4 for i in range(64)]
    by_group = torch.tensor(asked["times"]).view(16, 4)
    assert (by_group == by_group[:, :1]).all() and by_group.min() >= 0.02 and by_group.max() <= 0.98
    assert len(set(by_group[:, 0].tolist())) > 8


def test_it_may_not_ask_for_what_there_is_not() -> None:
    with pytest.raises(InputError, match="reward 'asking' asks for 'lengths'. A reward gets texts and, on request"):

        @reward
        def asking(texts: list[str], lengths: list[int]) -> list[float]:
            return [float(n) for n in lengths]

    with pytest.raises(InputError, match="takes no texts: write def"):
        reward(lambda: [])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([1.0], "reward 'wrong' returned 1 scores for 64 texts: it must return one for each"),
        (3.0, "reward 'wrong' returned 3.0: it must return one number for each text"),
        ([1.0] * 63 + [math.nan], "reward 'wrong' gave text 63 the score nan: it must be a finite number"),
        ([1.0] * 63 + ["x"], "reward 'wrong' gave text 63 the score 'x': it must be a finite number"),
        (torch.zeros(64, 2), "reward 'wrong' gave text 0 the score tensor"),
    ],
)
def test_wrong_scores_are_refused_by_the_name_of_the_reward(scores: Any, said: str) -> None:
    def wrong(texts: list[str]) -> Any:
        return scores

    with pytest.raises(InputError, match=said):
        terms(made(reward(wrong)), table())


# --- the list


def test_weights_add_up_the_losses_of_the_rewards() -> None:
    @reward
    def count_b(texts: list[str]) -> list[float]:
        return [float(text.count("b")) for text in texts]

    def gradient(*listed: Any) -> Tensor:
        student = table()
        (found,) = torch.autograd.grad(terms(made(*listed), student).loss, student.table)
        return found

    a, b = gradient(count_a), gradient(count_b)
    assert not torch.allclose(a, b)
    both = gradient({"kind": count_a, "weight": 0.25}, {"kind": count_b, "weight": 2.0})
    torch.testing.assert_close(both, 0.25 * a + 2.0 * b)
    assert torch.equal(gradient(count_a, {"kind": count_b, "weight": 0.0}), a)


def test_scalars_of_further_rewards_bear_their_names() -> None:
    @reward
    def longest(texts: list[str]) -> list[float]:
        return [float(max(map(text.count, text))) for text in texts]

    scalars = terms(made(count_a, longest), table()).scalars
    assert {"reward", "reward_spread", "longest_reward", "longest_advantage_spread"} <= set(scalars)


def test_one_function_may_be_there_twice() -> None:
    scalars = terms(made(count_a, {"kind": count_a, "each": 3}), table()).scalars
    assert scalars["count_a_2_reward"] == pytest.approx(3 * scalars["reward"])


def test_a_function_cannot_take_the_name_of_a_reward_of_the_core() -> None:
    def scorer(texts: list[str]) -> list[float]:
        return [0.0 for _ in texts]

    with pytest.raises(InputError, match="there is a reward 'scorer' already: give the function another name"):
        made(scorer)


class Ranked(Reward):
    """Scores of a shape of its own."""

    name = "ranked"

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def score(self, noised: Corrupted) -> Tensor:
        return self.scores


@pytest.mark.parametrize("shape", [(63,), (64, 3), (64, 2, 1), ()])
def test_scores_are_one_a_sample_or_one_a_token(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"reward 'ranked' returned scores of shape .* for 64 samples of 2 tokens"):
        terms([(Ranked(torch.zeros(shape)), 1.0)], table())


def test_a_score_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(Collapse, match="reward 'ranked' returned a score that is not finite"):
        terms([(Ranked(torch.full((64,), torch.nan)), 1.0)], table())


def test_a_score_a_token_moves_that_token_alone() -> None:
    """Only the second position is praised, and only where it holds token 0."""
    student = table()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.3)

    class Second(Reward):
        name = "second"

        def score(self, noised: Corrupted) -> Tensor:
            return (noised.x == 0).float() * noised.masked * torch.tensor([0.0, 1.0])

    for _ in range(30):
        optimiser.zero_grad()
        terms([(Second(), 1.0)], student).loss.backward()
        optimiser.step()
    template = torch.full((1, LENGTH), student.vocabulary.mask)
    p = torch.softmax(student(template)[0, :, :SYMBOLS], -1)
    assert p[1, 0] > 0.9 > p[0, 0]


# --- a run with them


SMALL: dict[str, Any] = {
    "domain": "toy",
    "training": {"steps": 2, "batch_size": 8, "log_every": 1},
    "evaluate": {"enabled": False},
    "device": "cpu",
    "objective": "didi",
    "objective.baseline.group": 4,
}


def test_a_function_from_python_is_a_reward_of_a_run(tmp_path: Path) -> None:
    def vowels(texts: list[str]) -> list[float]:
        return [float(sum(map(text.count, "aeiou"))) for text in texts]

    listed = [{"kind": "scorer"}, {"kind": vowels, "weight": 0.5}]
    few = {"objective.reference_samples": 8, "objective.reference_steps": 1, "objective.critic.warmup": 1}
    asked = {**SMALL, **few, "objective.reward": listed, "run_dir": tmp_path / "run"}
    folder = didi_core.distill(**asked)
    record = json.loads((folder / "run.json").read_text())
    assert [(one["kind"], one["weight"]) for one in record["config"]["objective"]["reward"]] == [
        ("scorer", 1.0),
        ("vowels", 0.5),
    ]
    card = json.loads((folder / "student" / "card.json").read_text())
    assert [one["kind"] for one in card["training"]["reward"]] == ["scorer", "vowels"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "vowels_reward" in lines[-1] and "scorer_loss" in lines[-1]
    assert didi_core.distill(**asked) == folder, "the same function again is the same run"
    assert "vowels" not in REWARDS


def test_a_reward_alone_needs_no_critic_and_no_warm_up(tmp_path: Path) -> None:
    @didi_core.reward
    def distinct(texts: list[str]) -> list[float]:
        return [float(len(set(text))) for text in texts]

    folder = didi_core.distill(**SMALL, **{"objective.reward": [distinct]}, run_dir=tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and "reward" in lines[0]
    assert not (folder / "student" / "scorer.safetensors").exists() and not (folder / "reference").exists()


def test_two_fake_denoisers_are_one_too_many(tmp_path: Path) -> None:
    twice = [{"kind": "log_ratio"}, {"kind": "log_ratio", "credit": "token"}]
    with pytest.raises(InputError, match="two learners of the objective are called 'fake'"):
        didi_core.distill(**SMALL, **{"objective.reward": twice}, run_dir=tmp_path / "run")
