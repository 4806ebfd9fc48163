"""doctor: every line is found out by trying, and what is missing comes with the command that adds it."""

from __future__ import annotations

import socket

import pytest
import torch

from didi_core.cli import main
from didi_core.commands import doctor


def test_it_tells_all_of_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["doctor", "device=cpu"]) == 0
    told = capsys.readouterr().out
    for title in ("installation", "precision", "attention", "places", "plugins", "optional features"):
        assert title in told
    assert "HF_HUB_OFFLINE is set" in " ".join(told.split())


def test_missing_module_is_told_with_its_command() -> None:
    assert doctor.Feature("x", ("no_such_module",), "pip install x").missing() == "no_such_module not installed"
    assert doctor.Feature("x", ("json",), "pip install x").missing() == ""
    assert doctor.Feature("x", ("pytest",), "pip install x", release="pytest>=1").missing() == ""
    told = doctor.Feature("x", ("pytest",), "pip install x", release="pytest>=999").missing()
    assert told.startswith("needs pytest>=999, found ")
    if not torch.cuda.is_available():
        assert doctor.Feature("x", ("json",), "pip install x", cuda=True).missing() == "no CUDA device"


def test_precisions_are_tried() -> None:
    assert doctor.precisions(torch.device("cpu"))["fp32"] == "ok"


def test_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def refused(*_: object, **__: object) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refused)
    assert doctor.hub() == "127.0.0.1 does not answer (Connection refused): give paths instead of hub ids"


def test_missing_program_is_told() -> None:
    lacking = doctor.Feature("x", (), "conda install x", programs=("sh", "no-such-program"))
    assert lacking.missing() == "no-such-program not on the PATH"
    assert doctor.Feature("x", (), "conda install x", programs=("sh",)).missing() == ""
    assert {"mmseqs", "foldseek"} <= {name for feature in doctor.FEATURES for name in feature.programs}
