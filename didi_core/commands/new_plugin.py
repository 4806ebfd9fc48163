"""``new-plugin``: write a distribution to start from, which installs, is listed, passes its tests and runs at once."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from didi_core.config import user_path
from didi_core.errors import InputError, unknown
from didi_core.evaluation.wording import headed
from didi_core.plugins import registry
from didi_core.plugins.kinds import KINDS
from didi_core.storage.files import write_atomic, write_folder

# Kinds of plugin to start from, and the kind of name that each takes; a tracker offers no name.
SCAFFOLDS = {scaffold: kind.name for kind in KINDS.values() for scaffold in kind.scaffolds} | {"tracker": ""}


@dataclass(frozen=True)
class Wish:
    """The request: ``new-plugin NAME [kind=KIND] [out=FOLDER]``."""

    name: str
    kind: str = "domain"
    out: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name) or keyword.iskeyword(self.name):
            raise InputError(f"new-plugin {self.name!r}: give a name of lower-case letters, digits and '_', as in dna.")
        if self.kind not in SCAFFOLDS:
            raise unknown("kind of plugin", self.kind, SCAFFOLDS)

    @property
    def folder(self) -> Path:
        return self.out or Path(f"didi_{self.name}")

    @property
    def a_kind(self) -> str:
        """The kind in a sentence: ``a law``, ``an objective``."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind.replace('_', ' ')}"

    @property
    def words(self) -> dict[str, str]:
        """Replacements of the placeholders in the templates."""
        package = f"didi_{self.name}"
        return {
            "name": self.name,
            "kind": self.kind,
            "a_kind": headed(self.a_kind),
            "package": package,
            "distribution": package.replace("_", "-"),
            "class_name": self.name.title().replace("_", ""),
            "version": importlib.metadata.version("didi-core"),
        }


def parse(words: Sequence[str]) -> Wish:
    """The request of a command line; ``kind=sampler`` and ``--kind sampler`` are the same.

    Raises:
        InputError: a setting is unknown, given twice or without a value, or there is no name.
    """
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, sign, value = word.removeprefix("--").partition("=")
        if not sign and not word.startswith("--"):
            key, value = "name", word
        elif not sign:
            if not rest:
                raise InputError(f"{word} needs a value.")
            value = rest.pop(0)
        if key not in ("name", "kind", "out"):
            raise unknown("setting", key, ("name", "kind", "out"), "new-plugin NAME [kind=KIND] [out=FOLDER]")
        if key in given:
            raise InputError(f"new-plugin takes one {key}: got {given[key]!r} and {value!r}.")
        given[key] = value
    if "name" not in given:
        raise InputError(f"a plugin needs a name: new-plugin NAME [kind={'|'.join(SCAFFOLDS)}].")
    out = user_path(given["out"]) if "out" in given else None
    return Wish(given["name"], given.get("kind", "domain"), out)


def run(words: Sequence[str] = ()) -> None:
    """Write the distribution, and print the next steps."""
    wish = parse(words)
    taken = SCAFFOLDS[wish.kind]
    if taken and wish.name in registry().names(taken):
        owner = registry().offers[taken][wish.name].plugin
        raise InputError(f"there is a {wish.kind} {wish.name!r} already (plugin {owner}): choose another name.")
    if wish.folder.exists() and any(wish.folder.iterdir()):
        raise InputError(f"{wish.folder} is not empty: name another folder with out=<folder>.")
    made = files(wish)

    def fill(folder: Path) -> None:
        for path, text in made.items():
            write_atomic(folder / path, text)

    write_folder(wish.folder, fill)
    for path in made:
        print(f"  {wish.folder / path}")
    print(f"\n{headed(wish.a_kind)} to start from. Next:\n")
    print(f"    cd {wish.folder} && pip install -e '.[test]' && pytest\n")
    print("README.md shows how to run it.")


def files(wish: Wish) -> dict[Path, str]:
    """The distribution's files by path within its folder."""
    made = {}
    for part in ("common", wish.kind):
        root = Path(str(resources.files("didi_core").joinpath("scaffold", part)))
        for source in sorted(root.rglob("*.txt")):
            path = str(source.relative_to(root)).removesuffix(".txt")
            path = path.replace("PACKAGE", wish.words["package"]).replace("NAME", wish.name)
            made[Path(path)] = Template(source.read_text(encoding="utf-8")).substitute(wish.words)
    return made
