"""The command ``demo``: what it refuses before a network is loaded, and what it serves."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
import yaml

from didi_core.cli import main
from didi_core.commands import demo

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "demo.md").read_text()
CONFIG = Path(__file__).resolve().parents[2] / "configs" / "demo.yaml"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The message of a command line that ends with exit code 2."""
    assert main(["demo", *words]) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused([f"port={port}"], capsys)
    assert f"port={port} cannot be used on host=127.0.0.1: address already in use. Give another port" in message


def test_without_gradio_it_names_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert 'pip install "didi-core[demo]"' in refused([], capsys)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("port=0", "port=0 is out of range"),
        ("port=70000", "port=70000 is out of range"),
        ("users=0", "users=0 is out of range"),
        ("max_length=0", "max_length=0 is out of range"),
        ("max_num=-3", "max_num=-3 is out of range"),
        ("host=", "host= has no value"),
        ("device=tpu", "unknown device 'tpu'"),
        ("colour=red", "unknown key 'colour'"),
    ],
)
def test_wrong_keys_are_refused(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused([word], capsys)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("domains=[nothing]", "unknown domain 'nothing'"),
        ("host=no.such.host.invalid", "cannot be used on host=no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_refused(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert message in refused([f"port={port}", word], capsys)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("lab7", False)]
)
def test_visitors_name_models_only_where_no_other_machine_reaches_the_page(host: str, local: bool) -> None:
    assert demo.Settings(host=host).is_open is local
    assert demo.Settings(host=host, open_models=not local).is_open is not local


def test_the_example_without_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    *_, example = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(example, "docs/demo.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"0 {'_' * 24}" and len(lines) == 5 and "_" not in lines[-1]


def test_the_space_calls_a_function_with_keys_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    app, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    served = []
    monkeypatch.setattr(demo, "run", lambda settings, config, words: served.append(settings))
    exec(compile(app, "app.py", "exec"), {})
    assert [(s.host, s.port, s.domains, s.is_open) for s in served] == [("0.0.0.0", 7860, ("protein",), False)]


def test_every_key_is_on_its_page() -> None:
    keys = set(yaml.safe_load(CONFIG.read_text())) - {"defaults"}
    assert not {key for key in keys if not re.search(rf"`{key}\b", PAGE)}
