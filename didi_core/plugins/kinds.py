"""The kinds of offers of plugins, one record each. Everything that the core does with a kind follows from its record.

A new kind needs a hook in ``hookspecs`` and a row here.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from didi_core.catalogue import Catalogue
from didi_core.config import build
from didi_core.diffusion.grids import GRIDS, Grid
from didi_core.diffusion.laws import LAWS, Law
from didi_core.errors import InputError, one_line
from didi_core.objectives.base import ObjectiveSettings
from didi_core.objectives.registry import OBJECTIVES
from didi_core.objectives.rewards import REWARDS, RewardSettings, TextFunction
from didi_core.sampling.base import Sampler
from didi_core.sampling.catalogue import SAMPLERS
from didi_core.types import Domain, Metric


def by_name(hook: str, answer: Any) -> Mapping[str, Any]:
    """Name -> thing, as most hooks return. Raises InputError for any other answer."""
    if not isinstance(answer, Mapping) or not all(isinstance(name, str) and name for name in answer):
        raise InputError(f"{hook} returned {short(answer)}: it must return a mapping of names")
    return answer


def by_domain(hook: str, answer: Any) -> Mapping[str, Any]:
    """Domain -> name -> thing, as ``<domain>/<name>`` -> thing. Raises InputError for any other answer."""
    for domain, things in by_name(hook, answer).items():
        if not isinstance(things, Mapping):
            raise InputError(f"{hook} returned {short(things)} for domain {domain!r}: it must be a mapping of metrics")
    return {f"{domain}/{name}": thing for domain, things in answer.items() for name, thing in things.items()}


def by_folder(hook: str, answer: Any) -> Mapping[str, Path]:
    """The configurations in folders: ``objective/mine`` -> ``objective/mine.yaml``.

    Raises:
        InputError: it is no list, or a folder does not exist.
    """
    if isinstance(answer, str | Path) or not isinstance(answer, Sequence):
        raise InputError(f"{hook} returned {answer!r}: it must return a list of folders")
    missing = [str(folder) for folder in answer if not Path(folder).is_dir()]
    if missing:
        raise InputError(f"{hook} names a folder that does not exist: {missing[0]} (is it in the wheel?)")
    files = [(Path(folder), path) for folder in answer for path in sorted(Path(folder).rglob("*/*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in files}


def instance(protocol: type, thing: Any) -> str:
    """The fault of an offer that is an instance; '' if there is none."""
    return "is a class: give an instance" if isinstance(thing, type) else _lacking(protocol, thing)


def settings_class(protocol: type, thing: Any) -> str:
    """The fault of an offered class whose instances the core makes from settings; '' if there is none."""
    if not isinstance(thing, type) or not hasattr(thing, "__dataclass_fields__"):
        return "is not a dataclass: give the class itself, made with @dataclass(frozen=True)"
    return _lacking(protocol, thing) or _unmakeable(thing)


def _unmakeable(settings: type) -> str:
    """Why the core cannot make an instance: it makes one of every plugin's settings, also for runs without them."""
    if unwritten := sorted(getattr(settings, "__abstractmethods__", ())):
        return f"leaves out {', '.join(unwritten)}: write {'it' if len(unwritten) == 1 else 'them'}"
    try:
        typing.get_type_hints(settings)
    except (NameError, TypeError) as error:
        return f"has a field whose annotation cannot be read ({error}): import what it names"
    try:
        build(settings, {})
    except InputError:  # a key without a default, or values that only go together with others
        return ""
    except Exception as error:  # whatever a plugin's own check of its values raises
        raised = f"{type(error).__name__}: {error}".rstrip(": ")
        return f"cannot be made from its defaults ({raised}): refuse values with InputError of didi_core.errors"
    return ""


def reward(protocol: type, thing: Any) -> str:
    """The fault of an offered reward: a function marked with ``@reward``, or a class of settings; '' without fault."""
    return "" if isinstance(thing, TextFunction) else settings_class(protocol, thing)


def factory(protocol: type, thing: Any) -> str:
    """The fault of an offered factory; '' if there is none."""
    del protocol
    return "" if callable(thing) else "cannot be called"


def readable(protocol: type, path: Path) -> str:
    """Why a configuration cannot be read; some are read by runs that do not choose them."""
    del protocol
    try:
        yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"is not YAML ({one_line(error)})"
    return ""


def _lacking(protocol: type, thing: Any) -> str:
    missing = [name for name in members(protocol) if not hasattr(thing, name)]
    return f"lacks {', '.join(missing)}" if missing else ""


def members(protocol: type) -> list[str]:
    """Names of a protocol's members."""
    return [name for name in {**protocol.__annotations__, **vars(protocol)} if not name.startswith("_")]


@dataclass(frozen=True)
class Kind:
    """One kind of offer.

    name: the kind in tables and records. word: the word for one of them in messages.
    protocol: the members that one must have. form: function that returns the fault of an offer, '' without fault.
    catalogue: where the core looks for it. None: only the registry has it.
    read: the hook's result as name -> thing; raises InputError for a result of another shape.
    answers_to: the hook, if its name does not follow from ``name``.
    conformance: the function of ``didi_core.testing`` that checks one. scaffolds: kinds of ``new-plugin``.
    """

    name: str
    word: str
    protocol: type
    form: Callable[[type, Any], str]
    catalogue: Catalogue[Any] | None = None
    conformance: str = ""
    scaffolds: tuple[str, ...] = ()
    read: Callable[[str, Any], Mapping[str, Any]] = by_name
    answers_to: str = ""

    @property
    def hook(self) -> str:
        return self.answers_to or f"didi_register_{self.name}"

    def offers(self, answer: Any) -> Mapping[str, Any]:
        """The result of the hook as name -> thing.

        Raises:
            InputError: the result, or a thing in it, cannot be used.
        """
        found = self.read(self.hook, answer)
        for name, thing in found.items():
            fault = self.form(self.protocol, thing)
            if fault:
                raise InputError(f"{self.hook} offers {name!r}, which {fault}: {short(thing)}")
        return found


def table(kinds: Iterable[Kind]) -> Mapping[str, Kind]:
    return MappingProxyType({kind.name: kind for kind in kinds})


KINDS = table(
    (
        Kind("domains", "domain", Domain, factory, None, "faults", ("domain",)),
        Kind("laws", "unmasking law", Law, instance, LAWS, "check_law", ("law",)),
        Kind("grids", "grid", Grid, settings_class, GRIDS, "check_grid", ("grid",)),
        Kind("samplers", "sampler", Sampler, settings_class, SAMPLERS, "check_sampler", ("sampler",)),
        Kind("rewards", "reward", RewardSettings, reward, REWARDS, "check_reward", ("reward", "text_reward")),
        Kind(
            "objectives", "objective", ObjectiveSettings, settings_class, OBJECTIVES, "check_objective", ("objective",)
        ),
        Kind("metrics", "metric", Metric, factory, None, "check_metric", ("metric",), by_domain),
        Kind("configs", "configuration", Path, readable, read=by_folder, answers_to="didi_register_config_folders"),
    )
)


def short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 80 else text[:77] + "..."
