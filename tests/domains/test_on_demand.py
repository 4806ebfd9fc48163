"""A domain costs nothing until it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

DOMAINS = ("didi_language", "didi_protein", "didi_toy")


def test_plugins_are_found_without_importing_a_domain() -> None:
    script = """
import sys
from didi_core.plugins import registry
found = {name: offer.value for name, offer in registry().offers["domains"].items()}
assert {"language", "protein", "toy"} <= set(found), found
print(*sorted({"didi_language.domain", "didi_protein.domain", "didi_toy.domain"} & {*sys.modules}))
print(type(found["toy"]()).__name__)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["", "ToyDomain"]


@pytest.mark.parametrize("name", DOMAINS)
def test_names_of_a_package_are_those_it_lists(name: str) -> None:
    package = importlib.import_module(name)
    assert all(getattr(package, each) is not None for each in package.__all__)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
