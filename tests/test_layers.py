"""A package imports packages of a smaller number only; the core knows no domain, and only the door knows Hydra."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "didi_core").rglob("*.py"))
DOMAINS = sorted(p.name for p in (ROOT / "domains").iterdir() if (p / "__init__.py").exists())
DOOR = ("cli", "commands", "__main__", "api")  # may know Hydra
LAYERS = {
    **dict.fromkeys(("types", "errors", "letters", "streams", "config", "catalogue"), 1),
    **dict.fromkeys(("device", "progress", "processes", "run"), 1),
    **dict.fromkeys(("storage", "diffusion", "models"), 2),
    **dict.fromkeys(("training", "checkpoints", "metrics", "domain"), 3),
    **dict.fromkeys(("sampling", "objectives", "sequences"), 4),
    "hookspecs": 5,
    "plugins": 6,
    "evaluation": 7,
    **dict.fromkeys(("report", "testing", "web"), 8),
    "commands": 9,
    **dict.fromkeys(("api", "cli"), 10),
    **dict.fromkeys(("__init__", "__main__", "huggingface"), 11),
}


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


def package(dotted: str) -> str:
    """The package or root module of the core that a dotted name is in."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


def test_there_are_domains() -> None:
    assert {"didi_toy", "didi_protein"} <= set(DOMAINS)


def test_every_package_has_a_layer_and_few_modules_lie_at_the_root() -> None:
    packages = {package(module(path)) for path in CORE if "scaffold" not in path.parts}
    assert packages == set(LAYERS)
    assert len(list((ROOT / "didi_core").glob("*.py"))) <= 16


@pytest.mark.parametrize("path", CORE, ids=module)
def test_imports_point_down(path: Path) -> None:
    own = package(module(path))
    others = {package(name) for name in imported(path) if name.startswith("didi_core.")} - {own}
    assert not {other for other in others if LAYERS[other] >= LAYERS[own] > 1}
    assert LAYERS[own] > 1 or not {other for other in others if LAYERS[other] > 1}


@pytest.mark.parametrize("path", CORE, ids=module)
def test_core_imports_no_domain(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in DOMAINS}


@pytest.mark.parametrize("path", CORE, ids=module)
def test_configuration_stops_at_the_door(path: Path) -> None:
    if package(module(path)) not in DOOR:
        assert not {name for name in imported(path) if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_do_not_import_each_other(domain: str) -> None:
    others = set(DOMAINS) - {domain}
    for path in (ROOT / "domains" / domain).rglob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] in others}, path
