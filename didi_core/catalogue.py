"""Things by name that plugins may add to.

The built-in ones are there from the start. What plugins bring joins when it is needed: a catalogue asks for the plugins
when a name is missing or when somebody lists it. It does not know where they come from (imports point down); whoever
does puts a function into ``PLUGINS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from didi_core.errors import InputError, unknown

T = TypeVar("T")


class Loader:
    """Loads plugins on request. A request that comes while they load changes nothing, so that none waits for itself.

    load: fills the catalogues; it is called at every request and remembers what it has done.
    """

    def __init__(self, load: Callable[[], Any] | None = None) -> None:
        self.load = load
        self._loading = False

    def __call__(self) -> None:
        if self.load is None or self._loading:
            return
        with self.loading():
            self.load()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Requests from within change nothing."""
        before, self._loading = self._loading, True
        try:
            yield
        finally:
            self._loading = before


PLUGINS = Loader()  # ``didi_core/__init__.py`` says how


class Catalogue(Mapping[str, T]):
    """Named things of one kind. The error for a name that is not there lists those that are, and the plugins that
    failed to load.

    Args:
        kind: what one of them is called in messages: "sampler", "unmasking law".
        own: the built-in ones.
        plugins: called before a name counts as missing, and before names are listed; it may call ``join``.
    """

    def __init__(self, kind: str, own: Mapping[str, T], plugins: Callable[[], object] = PLUGINS) -> None:
        self.kind = kind
        self.refused: Mapping[str, str] = {}  # name -> why nobody may use it
        self.notes: tuple[str, ...] = ()  # sentences on plugins that may have brought what is missing
        self._own, self._joined, self._plugins = dict(own), dict[str, T](), plugins

    def join(self, things: Mapping[str, T], refused: Mapping[str, str], notes: Iterable[str]) -> None:
        """Take what plugins offer in place of what they offered before, and what to say of names that are not there."""
        self._joined = dict(things)
        self.refused, self.notes = dict(refused), tuple(notes)

    def find(self, name: str, where: str = "") -> T:
        """The thing of that name.

        Args:
            where: dotted key that named it, for the message.

        Raises:
            InputError: the name is not there, with the known ones, or two plugins claim it.
        """
        if name in self:
            return self[name]
        if name in self.refused:
            raise InputError(self.refused[name])
        raise InputError(" ".join([str(unknown(self.kind, name, self, where)), *self.notes]))

    def __setitem__(self, name: str, thing: T) -> None:
        """Add something of this process alone, such as a function that was given from Python."""
        self._own[name] = thing

    def __getitem__(self, name: str) -> T:
        if name not in self._own and name not in self._joined:
            self._plugins()
        return self._own[name] if name in self._own else self._joined[name]

    def __iter__(self) -> Iterator[str]:
        self._plugins()
        return iter({**self._own, **self._joined})

    def __len__(self) -> int:
        self._plugins()
        return len({**self._own, **self._joined})

    def __repr__(self) -> str:
        return f"Catalogue({self.kind!r}, {sorted({*self._own, *self._joined})})"


def on_demand(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names are imported when they are first used.

    Args:
        modules: module of the package that each name is in.
    """

    def find(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return find
