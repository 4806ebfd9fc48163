"""The package from Python: the same settings as values, results that show themselves, names that complete."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch

import didi_core
from didi_core.api import RunFolder
from didi_core.domain.scoring import Scored
from didi_core.errors import InputError

TINY = {
    "domain": "toy",
    "training": {"steps": 2, "batch_size": 8, "ema": 0.5, "warmup": 1},
    "objective": "didi",
    "objective.reference_samples": 8,
    "objective.reference_steps": 2,
    "objective.critic": {"warmup": 1},
    "evaluate": {"num": 4, "steps": (2,), "teacher_steps": [2], "temperatures": [1.0]},
}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return didi_core.distill(**TINY, run_dir=tmp_path_factory.mktemp("api") / "größe, [1]")


def test_the_module_lists_what_it_offers() -> None:
    offered = {"demo", "distill", "evaluate", "load_student", "pretrain", "reward", "sample", "score", "shortlist"}
    assert offered == {name for name in dir(didi_core) if not name.startswith("__")}
    assert didi_core.__version__ == importlib.metadata.version("didi-core")
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        didi_core.distil  # noqa: B018


def test_a_run_from_nested_settings(student: Path) -> None:
    assert (student / "student/card.json").is_file() and (student / "report.json").is_file()
    assert isinstance(didi_core.load_student(student), torch.nn.Module)


def test_results_show_themselves(student: RunFolder, tmp_path: Path) -> None:
    made = didi_core.sample(student, num=3, steps=2, law="iid")
    assert repr(made).startswith("Generated(3 samples, 2 network calls each, first='")
    assert made._repr_html_().count("<tr>") == 4
    report = didi_core.evaluate(run=student, num=4, steps=[2], teacher_steps=[2], out=tmp_path / "report")
    assert repr(report) == f"Report({len(report['rows'])} rows, folder={str(tmp_path / 'report')!r})"
    assert student._repr_html_().startswith("<iframe srcdoc=") and (student / "x")._repr_html_() == f"{student}/x"
    assert report._repr_html_().startswith("<iframe srcdoc=") and "<script>" not in report._repr_html_()
    scored = Scored(tmp_path, [{"id": "<b>", "plddt": 1.0, "residues": [1.0]}])
    assert "&lt;b&gt;" in scored._repr_html_() and "residues" not in scored._repr_html_()


def test_a_network_is_sampled_with_its_domain_by_name_or_as_it_is(student: Path) -> None:
    network = didi_core.load_student(student)
    made = didi_core.sample(network, domain="toy", num=2, steps=2, grid={"kind": "power", "power": 2})
    assert len(made.samples) == 2
    with pytest.raises(InputError, match="sample needs domain"):
        didi_core.sample(network, num=2)
    with pytest.raises(InputError, match="unknown key 'stesp'. Did you mean 'steps'"):
        didi_core.sample(network, domain="toy", stesp=2)
    with pytest.raises(InputError, match="unknown key 'stesp'. Did you mean 'steps'"):
        didi_core.sample(student, stesp=2)


def test_the_teacher_in_the_box_is_sampled_without_a_run(tmp_path: Path) -> None:
    assert len(didi_core.sample("bundled", domain="toy", num=2, steps=2).samples) == 2
    with pytest.raises(InputError, match="give domain=<name> too"):
        didi_core.sample("bundled", num=2)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"domain": "toy", "training": {"stps": 5}}, "unknown key 'training.stps'. Did you mean 'training.steps'"),
        ({"domain": "toi"}, "unknown domain 'toi'. Did you mean 'toy'"),
        ({"domain": "toy", "training": {"steps": "many"}}, "training.steps='many' does not fit: training.steps is an"),
        ({"domain": "toy", "training": {"lr": float("nan")}}, "training.lr=nan does not fit"),
        ({"domain": "toy", "training": 5}, "training=5 does not fit: training is a group of keys"),
    ],
)
def test_wrong_settings_get_the_hints_of_the_command_line(settings: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        didi_core.distill(**settings)
