"""Plugins: collected by entry points, told by name when they fail, refused when two offer one name."""

from __future__ import annotations

import importlib.metadata
import types
from typing import Any

import pytest

from didi_core import hookspecs, plugins
from didi_core.errors import InputError
from didi_core.hookspecs import hookimpl
from didi_core.plugins import collect


class Point:
    """An entry point of a distribution that is not installed."""

    def __init__(self, name: str, module: Any, distribution: str = "other") -> None:
        self.name, self._module = name, module
        self.dist = types.SimpleNamespace(name=distribution, version="1.0")

    def load(self) -> Any:
        if isinstance(self._module, Exception):
            raise self._module
        return self._module


def module(**functions: Any) -> types.ModuleType:
    made = types.ModuleType("made_plugin")
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def offers(name: str, value: Any = dict) -> types.ModuleType:
    return module(didi_register_domains=lambda: {name: value})


def test_own_domains_come_through_entry_points() -> None:
    points = {p.name for p in importlib.metadata.entry_points(group=plugins.GROUP)}
    assert {"protein", "toy"} <= points
    assert {"protein", "toy"} <= set(plugins.registry().names("domains"))
    assert plugins.registry().domain("toy", {"length": 5}).name == "toy"


def test_core_offers_its_laws_through_the_same_hook() -> None:
    found = collect([])
    assert found.names("laws") == ["confidence", "dilated", "iid", "stratified"]
    assert {offer.plugin for offer in found.offers["laws"].values()} == {"core"}
    assert found.config_folders


def test_two_plugins_with_one_name_are_refused_and_both_are_named() -> None:
    points = [Point("a", offers("dna"), "didi-a"), Point("b", offers("dna"), "didi-b")]
    with pytest.raises(InputError, match=r"domain 'dna': 'a' of didi-a 1.0 and 'b' of didi-b 1.0. Uninstall one"):
        collect(points)  # type: ignore[arg-type]


def test_plugin_that_fails_to_import_is_named_and_skipped() -> None:
    points = [Point("broken", ImportError("no module named x"), "didi-broken"), Point("good", offers("dna"))]
    found = collect(points)  # type: ignore[arg-type]
    assert found.names("domains") == ["dna"]
    problems = {p.name: p.problem for p in found.plugins if p.problem}
    assert problems == {"broken": "ImportError: no module named x"}
    with pytest.raises(InputError, match="unknown domain 'rna'.*Plugin skipped: 'broken' of didi-broken 1.0"):
        found.domain("rna", {})


def test_failed_plugin_that_was_asked_for_is_the_error() -> None:
    found = collect([Point("dna", ImportError("no module named x"))])  # type: ignore[list-item]
    with pytest.raises(InputError, match="domain 'dna' is not there.*cannot be loaded.*no module named x"):
        found.domain("dna", {})


def test_misspelt_hook_is_an_error_of_that_plugin() -> None:
    found = collect([Point("typo", module(didi_register_domain=lambda: {}))])  # type: ignore[list-item]
    assert "didi_register_domain" in {p.name: p.problem for p in found.plugins}["typo"]


def test_hooks_that_listen_are_called_with_what_they_ask_for() -> None:
    seen = []

    def didi_on_step(step: int, scalars: dict[str, float]) -> None:
        seen.append((step, scalars))

    found = collect([Point("tracker", module(didi_on_step=didi_on_step))])  # type: ignore[list-item]
    found.manager.hook.didi_on_step(run_dir=None, step=3, scalars={"loss": 1.0})
    assert seen == [(3, {"loss": 1.0})]


def test_every_hook_is_typed_and_documented() -> None:
    hooks = {name: value for name, value in vars(hookspecs).items() if name.startswith("didi_")}
    assert len(hooks) >= 6
    for name, hook in hooks.items():
        assert hook.__doc__, name
        assert "return" in hook.__annotations__, name


def test_law_of_a_plugin_is_known_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    from didi_core import unmasking

    law = unmasking.Iid(name="mine")
    monkeypatch.setattr(unmasking, "LAWS", dict(unmasking.LAWS))
    points = [Point("laws", module(didi_register_laws=lambda: {"mine": law}))]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    plugins.registry.cache_clear()
    try:
        plugins.registry()
        assert unmasking.law("mine") is law
    finally:
        plugins.registry.cache_clear()


