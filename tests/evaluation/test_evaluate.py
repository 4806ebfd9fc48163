"""Evaluation end to end on the toy chain: rows, references, cache, sweeps, and comparisons whose answer is known."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import didi_core.evaluation.drawing
from didi_core.commands.common import make_domain
from didi_core.domain.controls import negative_controls
from didi_core.errors import InputError
from didi_core.evaluation.cache import SampleCache, StatisticsCache
from didi_core.evaluation.conclusion import indistinct, notes, sentence
from didi_core.evaluation.contenders import Contender, Measuring
from didi_core.evaluation.evaluate import evaluate_files, evaluate_models, method_of, sweep
from didi_core.evaluation.findings import compare
from didi_core.evaluation.intervals import Interval
from didi_core.evaluation.measure import HasNetworks, all_metrics, evaluate_samples, on_device
from didi_core.evaluation.rows import HELD_OUT, Evaluation, MetricInfo, diversity, table_rows
from didi_core.evaluation.wording import change, figure
from didi_core.metrics import Share
from didi_core.progress import Silent
from didi_core.run import Run
from didi_core.sampling.generate import Generated, SamplerSettings
from didi_core.storage.fingerprint import model_hash
from didi_core.types import NFE, Metric, Sample
from didi_toy import ExactTeacher, MarkovChain, ToyDomain

CHAIN = MarkovChain(
    torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
    torch.tensor(
        [[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7], [0.6, 0.2, 0.1, 0.1]], dtype=torch.float64
    ),
)
LIKELY = ("aa", "bb", "cd", "da")
TEMPERATURES = (0.15, 0.3, 0.6, 1.0, 1.3)


@pytest.fixture(scope="module")
def domain() -> ToyDomain:
    made = ToyDomain(chain=CHAIN)
    made.settings = replace(made.settings, length=16)
    return made


def wrong() -> ExactTeacher:
    """The exact posterior of another chain. It prefers other pairs, which no temperature corrects, unlike a blur."""
    return ExactTeacher(MarkovChain(CHAIN.initial, (CHAIN.transition + CHAIN.transition.roll(1, 1)) / 2)).eval()


@pytest.fixture(scope="module")
def evaluation(domain: ToyDomain) -> Evaluation:
    base = SamplerSettings(law="dilated")
    models = {
        "teacher": Contender(wrong(), sweep(base, (4, 8, 16), TEMPERATURES)),
        "student": Contender(ExactTeacher(CHAIN).eval(), sweep(base, (4, 8), TEMPERATURES)),
    }
    return evaluate_models(Run(domain), models, Measuring(300, resamples=200))


def test_rows_are_references_then_the_plan_in_order(evaluation: Evaluation) -> None:
    assert [row.model for row in evaluation.rows[:3]] == [HELD_OUT, "shuffled", "repeats"]
    drawn = [(r.model, r.method.steps if r.method else None, r.temperature) for r in evaluation.rows[3:]]
    assert drawn == [("teacher", k, t) for k in (4, 8, 16) for t in TEMPERATURES] + [
        ("student", k, t) for k in (4, 8) for t in TEMPERATURES
    ]
    assert all(row.n == 300 for row in evaluation.rows)


def test_rows_say_what_they_cost(evaluation: Evaluation) -> None:
    for row in evaluation.rows[3:]:
        assert row.nfe == NFE(denoiser=float(row.method.steps if row.method else 0))
        assert row.seconds and row.rate == statistics.median(row.rates) and len(row.rates) == 5
    assert evaluation.rows[0].nfe is None and evaluation.rows[0].rate is None


def test_costly_metrics_only_at_the_tables_temperature(evaluation: Evaluation) -> None:
    for row in evaluation.rows[3:]:
        assert ("distinct" in row.values) == (row.temperature == 1.0)
        assert {"nll", "entropy"} <= set(row.values)
    table = [row for row in table_rows(evaluation.rows) if row.kind == "model"]
    assert [row.temperature for row in table] == [1.0] * 5


def test_table_takes_the_nearest_temperature_where_one_is_absent(domain: ToyDomain) -> None:
    plan = sweep(SamplerSettings(), (4,), (0.5, 0.9, 1.4))
    model = Contender(ExactTeacher(CHAIN).eval(), plan)
    found = evaluate_models(Run(domain), {"m": model}, Measuring(20, resamples=20))
    assert [row.temperature for row in table_rows(found.rows) if row.kind == "model"] == [0.9]
    assert [row.temperature for row in found.rows if "distinct" in row.values and row.kind == "model"] == [0.9]


def test_better_model_wins_at_matched_entropy(evaluation: Evaluation) -> None:
    findings = compare(evaluation)
    assert findings.baseline == "teacher"
    assert [(c.method.steps, c.verdict) for c in findings.comparisons] == [(4, "better"), (8, "better")]
    for item in findings.comparisons:
        assert item.ratio is not None and item.ratio.high < 1
    assert {w.acceleration.bound for w in findings.worth} == {"at least"}  # the wrong chain never gets there
    said = sentence(evaluation, findings)
    assert "better than the teacher at 4 and 8 steps" in said and "At 8 steps" in said and "at least" in said


@dataclass(frozen=True)
class Again:
    """The entropy once more, as a metric that models are matched at."""

    of: Any
    matched: bool
    name: str = "again"
    label: str = "entropy again"
    better: str = "higher"
    minimum: int = 1

    def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
        return self.of.statistics(samples)

    def aggregate(self, means: np.ndarray) -> np.ndarray:
        return self.of.aggregate(means)


@pytest.mark.parametrize("matched", [True, False])
def test_models_are_matched_at_a_second_variable(
    domain: ToyDomain, monkeypatch: pytest.MonkeyPatch, matched: bool
) -> None:
    """At the entropy under another name, what is found is what was found at the entropy."""
    own = domain.metrics()
    monkeypatch.setattr(domain, "metrics", lambda: [*own, Again(own[1], matched)])
    plan = sweep(SamplerSettings(law="dilated"), (8,), TEMPERATURES)
    models = {"teacher": Contender(wrong(), plan), "student": Contender(ExactTeacher(CHAIN).eval(), plan)}
    found = evaluate_models(Run(domain), models, Measuring(200, resamples=100))
    findings = compare(found)
    if not matched:
        assert found.variety is None and findings.at_variety == ()
        return
    assert found.variety is not None and found.variety.name == "again"
    (one,), (other,) = findings.comparisons, findings.at_variety
    assert other.at == pytest.approx(found.at) and other.ratio == one.ratio and other.verdict == "better"
    assert f"With entropy again matched instead ({other.at:.2f}), " in sentence(found, findings)
    swept = [row for row in found.rows if row.kind == "model"]
    assert all("again" in row.values for row in swept) and not all("distinct" in row.values for row in swept)
    apart = {"teacher": Contender(wrong(), plan[:1]), "student": Contender(ExactTeacher(CHAIN).eval(), plan[-1:])}
    findings = compare(evaluate_models(Run(domain), apart, Measuring(60, resamples=50)))
    assert [(c.at, c.verdict) for c in findings.at_variety] == [(None, "not reached")]


def test_a_model_against_itself_shows_no_difference(domain: ToyDomain) -> None:
    teacher = ExactTeacher(CHAIN).eval()
    plan = sweep(SamplerSettings(law="dilated"), (8,), TEMPERATURES)
    models = {"a": Contender(teacher, plan), "b": Contender(teacher, plan)}
    found = evaluate_models(Run(domain), models, Measuring(200, resamples=100))
    findings = compare(found)
    assert findings.baseline == "a"
    assert [c.verdict for c in findings.comparisons] == ["no difference shown"]
    assert "not distinguishable from the a at 8 steps" in sentence(found, findings)


class Counted(ToyDomain):
    """Judged by the share of texts in which most pairs are likely ones of the chain, so more is better."""

    def metrics(self) -> list[Metric]:
        return [Share("ordered", "ordered", ordered), self.entropy()]


def ordered(text: str) -> bool:
    likely = [text[i : i + 2] in LIKELY for i in range(len(text) - 1)]
    return 2 * sum(likely) > len(likely)


def test_a_quality_of_which_more_is_better_is_compared_as_it_is(domain: ToyDomain) -> None:
    counted = Counted(chain=CHAIN)
    counted.settings = domain.settings
    plan = sweep(SamplerSettings(law="dilated"), (8,), (0.6, 1.0))
    models = {
        "teacher": Contender(wrong(), plan),
        "student": Contender(ExactTeacher(CHAIN).eval(), plan),
        "copy": Contender(wrong(), plan),
    }
    found = evaluate_models(Run(counted), models, Measuring(200, resamples=100))
    findings = compare(found)
    assert not found.frontiers and not findings.comparisons
    assert [(d.model, d.verdict) for d in findings.differences] == [
        ("student", "better"),
        ("copy", "no difference shown"),
    ]
    own = [row.values["ordered"] for row in found.rows if row.kind == "model" and row.temperature == 1.0]
    student, copy = findings.differences
    assert (student.other, student.own) == (own[0], own[1])
    assert student.difference.value == own[1].value - own[0].value and student.difference.low > 0
    assert copy.difference == Interval(0, 0, 0, 200)  # the same samples, in pairs
    said = sentence(found, findings)
    assert said.startswith("The student is better than the teacher at 8 steps. At 8 steps its ordered is 0.")
    assert any("three seeds" in note for note in notes(found, findings))


def test_sweep_that_misses_the_entropy_claims_nothing(domain: ToyDomain) -> None:
    plan = sweep(SamplerSettings(), (4,), (0.2, 0.3))
    models = {"teacher": Contender(wrong(), plan), "student": Contender(ExactTeacher(CHAIN).eval(), plan)}
    found = evaluate_models(Run(domain), models, Measuring(60, resamples=50))
    findings = compare(found)
    assert [c.verdict for c in findings.comparisons] == ["not reached"]
    assert sentence(found, findings).startswith("No verdict")
    assert any("did not reach" in note for note in notes(found, findings))


def test_few_samples_are_called_a_first_look(evaluation: Evaluation) -> None:
    said = notes(evaluation, compare(evaluation))
    assert any(note.startswith("A first look, with 300") for note in said)
    assert any("three seeds" in note for note in said)
    first = next(i for i, row in enumerate(evaluation.rows) if row.kind == "model")
    one = replace(evaluation.rows[first], n=200)
    enough = [replace(row, n=1000) for row in evaluation.rows]
    few = replace(evaluation, rows=(*enough[:first], one, *enough[first + 1 :]))
    told = f"Fewer than 1,000 samples, too few for a claim: {one.model} at {one.method.steps} steps (200)."
    assert told in notes(few, compare(evaluation))


def test_quality_tells_shuffled_from_data_and_says_where_it_does_not(evaluation: Evaluation) -> None:
    quality = evaluation.metrics[0]
    assert "shuffled" not in indistinct(evaluation, quality)
    blind = MetricInfo("distinct", "distinct", "higher")
    assert "shuffled" in indistinct(evaluation, blind)


def test_seeds_are_pooled(domain: ToyDomain) -> None:
    model = Contender(wrong(), [SamplerSettings(steps=4)])
    found = evaluate_models(Run(domain), {"m": model}, Measuring(30, seeds=(0, 1), resamples=20))
    row = found.rows[-1]
    assert (row.n, row.seeds) == (60, (0, 1)) and row.nfe == NFE(denoiser=4.0)
    assert found.rows[0].n == 60


def test_first_hitting_has_no_number_of_steps(domain: ToyDomain) -> None:
    model = Contender(wrong(), [SamplerSettings(sampler="first_hitting")])
    found = evaluate_models(Run(domain), {"m": model}, Measuring(10, resamples=20))
    row = found.rows[-1]
    assert row.method is not None and row.method.steps is None and row.method.label == "first hitting"
    assert row.nfe == NFE(denoiser=16.0)
    assert "nothing" in sentence(found, compare(found)).lower() or "NLL" in sentence(found, compare(found))


def test_files_get_the_same_numbers_as_models(domain: ToyDomain, evaluation: Evaluation) -> None:
    held_out = domain.held_out(100, 5)
    found = evaluate_files(Run(domain), {"peer.jsonl": held_out}, Measuring(50, resamples=50))
    row = found.rows[-1]
    assert (row.model, row.kind, row.n) == ("peer.jsonl", "file", 100)
    direct = evaluate_samples(all_metrics(domain), held_out, resamples=50)
    assert row.values == direct.values
    assert found.metrics == evaluation.metrics


def test_metric_that_needs_more_samples_is_skipped_by_name(domain: ToyDomain) -> None:
    measured = evaluate_samples(domain.metrics(), domain.held_out(3, 0))
    assert measured.skipped["pair_kl"] == "needs at least 10 samples, got 3"
    assert "nll" in measured.values and "pair_kl" not in measured.values


def test_nothing_to_evaluate_is_an_error(domain: ToyDomain) -> None:
    with pytest.raises(InputError, match="at least one model"):
        evaluate_models(Run(domain), {}, Measuring(3))
    with pytest.raises(InputError, match="at least one seed"):
        Measuring(3, seeds=())


# --- the cache


def run(domain: ToyDomain, folder: Path | None, **changes: Any) -> Evaluation:
    settings: dict[str, Any] = {"num": 20, "resamples": 20, "cache_dir": folder} | changes
    plan = settings.pop("plan", [SamplerSettings(steps=4)])
    about = Run(domain, reporter=settings.pop("reporter", Silent()))
    model = Contender(settings.pop("model", wrong()), plan)
    return evaluate_models(about, {"m": model}, Measuring(**settings))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every real drawing; the warm-up (one step) is not counted."""
    made: list[str] = []
    own = didi_core.evaluation.drawing.generate

    def counted(*args: Any, **kwargs: Any) -> Generated:
        if kwargs["settings"].steps != 1:
            made.append(str(kwargs["settings"]))
        return own(*args, **kwargs)

    monkeypatch.setattr(didi_core.evaluation.drawing, "generate", counted)
    return made


def test_cache_draws_nothing_twice_and_changes_nothing(domain: ToyDomain, tmp_path: Path, calls: list[str]) -> None:
    first, second, fresh = run(domain, tmp_path), run(domain, tmp_path), run(domain, None)
    assert len(calls) == 2  # the first and the uncached one
    assert first.rows == second.rows
    assert [row.values for row in first.rows] == [row.values for row in fresh.rows]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"num": 21},
        {"seeds": (1,)},
        {"length": 5},
        {"batch_size": 7},
        {"plan": [SamplerSettings(steps=5)]},
        {"plan": [SamplerSettings(steps=4, temperature=0.9)]},
        {"model": ExactTeacher(CHAIN)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_samples_changes_their_file(
    domain: ToyDomain, tmp_path: Path, calls: list[str], changes: dict[str, Any]
) -> None:
    run(domain, tmp_path)
    run(domain, tmp_path, **changes)
    assert len(calls) == 2


def test_other_lengths_are_other_samples(tmp_path: Path, calls: list[str]) -> None:
    for length in (8, "8-12"):
        made = ToyDomain(chain=CHAIN)
        made.settings = replace(made.settings, length=length)
        run(made, tmp_path)
    assert len(calls) == 2


def test_torn_file_is_drawn_again(domain: ToyDomain, tmp_path: Path, calls: list[str]) -> None:
    first = run(domain, tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    assert [row.values for row in run(domain, tmp_path).rows] == [row.values for row in first.rows]
    assert len(calls) == 2
    assert json.loads(path.read_text().splitlines()[0])["count"] == 20


def test_cache_keeps_samples_whole(tmp_path: Path) -> None:
    made = Generated([Sample("ab", "x", (1, 2), {"length": 2}), Sample("ü\n", "y")], NFE(3.0, 1.5), 0.25)
    cache = SampleCache(tmp_path)
    cache.save({"a": 1}, made)
    assert cache.load({"a": 1}) == made
    assert cache.load({"a": 2}) is None


def test_model_hash_sees_weights_and_class() -> None:
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    b.load_state_dict(a.state_dict())
    assert model_hash(a) == model_hash(b)
    with torch.no_grad():
        b.bias[0] += 1e-6
    assert model_hash(a) != model_hash(b)
    assert model_hash(a.to(torch.bfloat16)) != model_hash(torch.nn.Linear(2, 2))
    assert model_hash(None) == ""


def test_progress_counts_every_call_once(domain: ToyDomain, tmp_path: Path) -> None:
    @dataclass
    class Counting(Silent):
        total: int = 0
        done: int = 0

        def start(self, title: str, total: int, done: int = 0) -> None:
            self.total = total

        def advance(self, scalars: Any = None, by: int = 1) -> None:
            self.done += by

    for _ in range(2):  # drawn, then from the cache
        reporter = Counting()
        run(domain, tmp_path, seeds=(0, 1), batch_size=6, reporter=reporter)
        assert reporter.done == reporter.total == 40 * 4  # denoiser calls


# --- controls and words


def test_generic_controls_keep_length_and_break_order(domain: ToyDomain) -> None:
    held_out = domain.held_out(40, 0)
    made = negative_controls(domain, held_out, seed=3)
    assert list(made) == ["shuffled", "repeats"]
    for before, after in zip(held_out, made["shuffled"], strict=True):
        assert sorted(before.text) == sorted(after.text)
    for before, after in zip(held_out, made["repeats"], strict=True):
        assert len(before.text) == len(after.text)
        longest = max(len(run) for run in _runs(after.text))
        assert longest >= len(before.text) // 3
    assert any(a.text != b.text for a, b in zip(held_out, made["shuffled"], strict=True))
    assert made == negative_controls(domain, held_out, seed=3)


def test_domains_own_controls_come_first(domain: ToyDomain) -> None:
    class Own(ToyDomain):
        def controls(self, samples: Sequence[Sample], seed: int = 0) -> dict[str, list[Sample]]:
            return {"mine": list(samples)}

    assert list(negative_controls(Own(chain=CHAIN), domain.held_out(2, 0))) == ["mine"]


def _runs(text: str) -> list[str]:
    runs = [text[:1]]
    for letter in text[1:]:
        if letter == runs[-1][0]:
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs


def test_method_names_power_and_forgets_steps_of_first_hitting() -> None:
    assert method_of(SamplerSettings(law="dilated", grid="power", power=2.0)).label == "dilated · power 2"
    assert method_of(SamplerSettings(sampler="rgas")).label == "rgas · iid · uniform"
    assert method_of(SamplerSettings(law={"kind": "threshold", "block": 8})).label == "threshold 0.9 block=8"
    assert method_of(SamplerSettings(sampler={"kind": "p2", "eta": 2.0})).label == "p2 eta=2.0 · uniform"
    assert method_of(SamplerSettings(sampler="first_hitting", steps=7)).steps is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(7.1234, "7.12"), (0.12345, "0.123"), (12345.6, "12,346"), (0.0, "0"), (float("nan"), "–"), (3e-7, "3.00e-07")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_change_is_a_percentage() -> None:
    assert change(Interval(0.76, 0.7, 1.02, 10)) == "−24.0 % [−30.0, +2.0]"


def test_variety_is_what_more_of_is_better() -> None:
    infos = [MetricInfo(n, n, b) for n, b in (("q", "higher"), ("e", "higher"), ("d", "higher"), ("l", "neither"))]
    assert [m.name for m in diversity(infos)] == ["d"]


def test_intervals_hold_their_values(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        for name in ("nll", "entropy"):
            found = row.values[name]
            assert found.low <= found.value <= found.high
    assert evaluation.at == evaluation.rows[0].values["entropy"].value
    assert np.isfinite(evaluation.at or np.nan)


def test_costly_statistics_are_computed_once_and_torn_ones_again(tmp_path: Path) -> None:
    @dataclass
    class Costly:
        name: str = "costly"
        identity: str = "weights"
        calls: int = 0

        def statistics(self, samples: Sequence[Sample]) -> np.ndarray:
            self.calls += 1
            return np.array([[float(len(sample.text))] for sample in samples])

    metric, cache, samples = Costly(), StatisticsCache(tmp_path), [Sample("ab"), Sample("c")]
    first, second = (cache.statistics(metric, samples) for _ in range(2))  # type: ignore[arg-type]
    assert metric.calls == 1 and (first == second).all()
    (path,) = (tmp_path / "statistics").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-3])
    assert (cache.statistics(metric, samples) == first).all() and metric.calls == 2  # type: ignore[arg-type]
    metric.identity = "other"
    cache.statistics(metric, samples)  # type: ignore[arg-type]
    metric.identity = ""
    cache.statistics(metric, samples)  # type: ignore[arg-type]
    assert metric.calls == 4
    assert len(list((tmp_path / "statistics").glob("*.npy"))) == 2


def test_networks_of_metrics_move_to_the_runs_device() -> None:
    """A judge on the CPU beside a GPU took most of an evaluation. ``meta`` stands for any other device."""
    network, plain = nn.Linear(2, 2), Share("x", "x", str.isalpha)

    class Judged:
        networks = (network,)

    on_device([Judged(), plain], torch.device("meta"))  # type: ignore[list-item]
    assert network.weight.device.type == "meta"


@pytest.mark.parametrize("name", ["protein", "language"])
def test_metrics_with_networks_name_them(name: str) -> None:
    """Perplexity and energy distance of the bundled domains."""
    found = {m.name: m for m in make_domain(name, {}).metrics()}
    for metric in (found["perplexity"], found["energy"]):
        assert isinstance(metric, HasNetworks)
        assert all(isinstance(network, nn.Module) for network in metric.networks)
        assert metric.networks
