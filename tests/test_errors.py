"""Errors of settings say which key, which value, and what is allowed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from didi_core.errors import InputError, at_least, one_line, positive, with_kind
from didi_core.objectives.advantage import WeightingSettings
from didi_core.objectives.dmmd import Dmmd
from didi_core.objectives.idlm import Idlm
from didi_core.objectives.mmd import Mmd
from didi_core.objectives.sdtt import Sdtt
from didi_core.sampling.rgas import Rgas

CORE = sorted((Path(__file__).resolve().parent.parent / "didi_core").rglob("*.py"))
NAN = float("nan")


def refusals(path: Path) -> list[ast.Call]:
    """The errors raised where a dataclass validates itself and something must be otherwise."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checks = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"]
    raised = [node.exc for check in checks for node in ast.walk(check) if isinstance(node, ast.Raise)]
    return [call for call in raised if isinstance(call, ast.Call) and "must" in ast.unparse(call)]


def test_a_refused_setting_is_shown_with_its_value() -> None:
    found = [(path.name, call) for path in CORE for call in refusals(path)]
    assert len(found) > 20
    silent = [
        f"{name}:{call.lineno}"
        for name, call in found
        if not any(isinstance(node, ast.FormattedValue) for node in ast.walk(call))
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Dmmd, {"pull": -1.0}, "objective.pull=-1.0 is out of range: it must be at least 0"),
        (Dmmd, {"pull": NAN}, "objective.pull=nan is out of range"),
        (Dmmd, {"clip": 0.0}, "objective.clip=0.0 is out of range: it must be positive"),
        (Idlm, {"weight_clip": NAN}, "objective.weight_clip=nan is out of range: it must be positive"),
        (Mmd, {"block": 1}, "objective.block=1 is out of range: it must be 0 or at least 2"),
        (Sdtt, {"round_updates": 0}, "objective.round_updates=0 is out of range: it must be at least 1"),
        (Rgas, {"clip": -1.0}, "clip=-1.0 is out of range: it must be positive"),
        (WeightingSettings, {"low": 2.0, "high": 1.0}, "objective.weighting.low=2.0, high=1.0: need 0 <= low <= high"),
        (WeightingSettings, {"high": NAN}, "high=nan: need"),
    ],
)
def test_settings_out_of_range(kind: type, given: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        kind(**given)


def test_the_first_value_that_does_not_fit_is_named() -> None:
    at_least(1, "a.", x=1, y=2.5)
    positive(x=1e-9)
    with pytest.raises(InputError, match=r"^a\.y=0 is out of range: it must be at least 1\.$"):
        at_least(1, "a.", x=1, y=0, z=-1)
    with pytest.raises(InputError, match=r"^x=0 is out of range: it must be positive\.$"):
        positive(x=0)


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("two\n  lines"), "two lines"), (KeyError(), "KeyError"), (OSError("x" * 400), "x" * 300)],
)
def test_a_librarys_message_is_shown_on_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_an_error_with_its_kind_is_one_line_too() -> None:
    assert with_kind(ValueError("first\nsecond")) == "ValueError: first"
    assert with_kind(ValueError()) == "ValueError: no message"
