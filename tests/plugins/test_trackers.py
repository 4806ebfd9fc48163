"""The two trackers of plugins/: they fit the hooks, and pass on what they are given to the services of their names."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from didi_core.plugins.discovery import Registry, collect
from didi_core.types import Sample

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
SAMPLES = [Sample("abca", "seq_1"), Sample("bbca", "seq_2")]


class Service:
    """Stands in for a writer or a run: keeps the calls."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.calls: list[tuple[str, Any]] = [("made", (args, settings))]
        self.summary: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **settings: self.calls.append((name, (*args, *settings.values())))


def tracker(name: str) -> Registry:
    """The registry with this tracker, loaded from its folder and nothing but it."""
    spec = importlib.util.spec_from_file_location(name, PLUGINS / name / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dist = types.SimpleNamespace(name=name.replace("_", "-"), version="0.1.0")
    point: Any = types.SimpleNamespace(name=name, dist=dist, load=lambda: module)
    found = collect([point])
    assert found.plugins[-1].health == "ok"
    return found


def notify(found: Registry, run_dir: Path) -> None:
    """A short run, as the commands announce it."""
    found.notify("step", run_dir=run_dir, step=3, scalars={"loss": 0.5})
    found.notify("samples", run_dir=run_dir, samples=SAMPLES, record={"file": "samples.jsonl"})
    found.notify("run_end", run_dir=run_dir, record={"stages": {"training": {"seconds": 1}}})
    assert not found.silenced


def test_tensorboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Service] = []
    fake: Any = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = lambda folder: made.append(Service(folder)) or made[-1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    notify(tracker("didi_tensorboard"), tmp_path)
    (writer,) = made
    assert [name for name, _ in writer.calls] == ["made", "add_scalar", "add_text", "close"]
    assert writer.calls[1] == ("add_scalar", ("loss", 0.5, 3))
    assert writer.calls[0] == ("made", ((str(tmp_path / "tensorboard"),), {}))


def test_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[Service] = []
    fake: Any = types.ModuleType("wandb")
    fake.init = lambda **settings: made.append(Service(**settings)) or made[-1]
    fake.Table = lambda columns, rows: (columns, rows)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    (tmp_path / "run.json").write_text(json.dumps({"config": {"seed": 7}}))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    notify(tracker("didi_wandb"), tmp_path)
    assert not made, "nothing is sent unless WANDB_PROJECT is set"
    assert capsys.readouterr().err.count("set WANDB_PROJECT=<project>") == 1, "and only once, not at every step"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    notify(tracker("didi_wandb"), tmp_path)
    notify(tracker("didi_wandb"), tmp_path)
    first, again = made
    _, settings = first.calls[0][1]
    assert settings["config"] == {"seed": 7}
    assert settings["id"] == again.calls[0][1][1]["id"], "a resumed run directory continues in the same run"
    assert first.calls[1] == ("log", ({"loss": 0.5}, 3))
    assert first.calls[-1][0] == "finish" and first.summary["stages"]


@pytest.mark.parametrize("name", ["didi_tensorboard", "didi_wandb"])
def test_packaging_names_the_module(name: str) -> None:
    import tomllib

    project = tomllib.loads((PLUGINS / name / "pyproject.toml").read_text())["project"]
    assert name in project["entry-points"]["didi.plugins"].values()
    assert any(word.startswith("didi-core") for word in project["dependencies"])
