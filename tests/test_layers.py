"""Imports point down: the core knows no domain, maths know no training, nothing but the commands knows Hydra."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "didi_core").rglob("*.py"))
DOMAINS = sorted(p.name for p in (ROOT / "domains").iterdir() if (p / "__init__.py").exists())
DOOR = ("cli", "compose", "commands", "__main__", "api")  # may know Hydra


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_there_are_domains() -> None:
    assert {"didi_toy", "didi_protein"} <= set(DOMAINS)


@pytest.mark.parametrize("path", CORE, ids=module)
def test_core_imports_no_domain(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in DOMAINS}


@pytest.mark.parametrize("path", CORE, ids=module)
def test_configuration_stops_at_the_door(path: Path) -> None:
    if not any(part in DOOR for part in module(path).split(".")):
        assert not {name for name in imported(path) if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("path", CORE, ids=module)
def test_nothing_below_the_commands_imports_them(path: Path) -> None:
    if not any(part in DOOR for part in module(path).split(".")):
        above = ("didi_core.commands", "didi_core.cli", "didi_core.compose")
        assert not {name for name in imported(path) if name.startswith(above)}


LAYERS = [
    {"errors", "files", "fingerprint", "frame", "parts", "random"},
    {"types", "schedules", "catalogue", "config"},
    {"process", "unmasking", "divergences", "heads", "losses", "optimiser"},
    {"samplers", "reparameterised", "guidance", "rollout", "rewards", "models", "judge", "autoregressive"},
    {"sampling"},
    {"objectives", "generate"},
    {"training"},
]


@pytest.mark.parametrize("path", CORE, ids=module)
def test_maths_import_only_their_own_layer_and_below(path: Path) -> None:
    parts = module(path).split(".")
    if len(parts) < 2:
        return
    levels = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = levels.get(parts[1])
    if own is None:
        return
    mine = {name.split(".")[1] for name in imported(path) if name.startswith("didi_core.")}
    assert not {name for name in mine if levels.get(name, len(LAYERS)) > own}


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_do_not_import_each_other(domain: str) -> None:
    others = set(DOMAINS) - {domain}
    for path in (ROOT / "domains" / domain).rglob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] in others}, path
