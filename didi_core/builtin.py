"""What the core itself brings, offered through the same hooks as everyone else's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from didi_core.hookspecs import hookimpl
from didi_core.unmasking import Confidence, Dilated, Iid, Law, Stratified


@hookimpl
def didi_register_laws() -> Mapping[str, Law]:
    return {law.name: law for law in (Iid(), Stratified(), Dilated(), Confidence())}


@hookimpl
def didi_register_config_folders() -> Sequence[Path]:
    return [config_folder()]


def config_folder() -> Path:
    """The project's configs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
