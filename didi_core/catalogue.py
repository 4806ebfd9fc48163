"""Named things of one kind, to which plugins add.

Built-in ones are present from the start. Plugins are loaded on demand, when a name is missing or when the names are
listed. A catalogue does not know where plugins come from, because imports point down; ``didi_core/__init__.py`` puts
the loading function into ``PLUGINS``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from didi_core.errors import InputError, unknown

T = TypeVar("T")


class Loader:
    """Loads plugins on request. A request during loading does nothing, which prevents a cycle.

    load: fills the catalogues. It is called at every request, and does its work once.
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
        """Within, requests do nothing."""
        before, self._loading = self._loading, True
        try:
            yield
        finally:
            self._loading = before


PLUGINS = Loader()  # ``didi_core/__init__.py`` sets its function


class Catalogue(Mapping[str, T]):
    """Named things of one kind. The error for an unknown name lists the known ones and the plugins that failed to load.

    Args:
        kind: the word for one of them in messages: "sampler", "unmasking law".
        own: the built-in ones.
        plugins: called before a name counts as missing, and before names are listed; it may call ``join``.
    """

    def __init__(self, kind: str, own: Mapping[str, T], plugins: Callable[[], object] = PLUGINS) -> None:
        self.kind = kind
        self.refused: Mapping[str, str] = {}  # name -> why it may not be used
        self.notes: tuple[str, ...] = ()  # sentences about plugins that failed and may own a missing name
        self._own, self._joined, self._plugins = dict(own), dict[str, T](), plugins

    def join(self, things: Mapping[str, T], refused: Mapping[str, str], notes: Iterable[str]) -> None:
        """Replace what plugins offered before, and the messages about names that are missing."""
        self._joined = dict(things)
        self.refused, self.notes = dict(refused), tuple(notes)

    def find(self, name: str, where: str = "", offered: Iterable[str] | None = None) -> T:
        """The thing of that name.

        Args:
            where: dotted key that has this name, for the message.
            offered: the names that the message lists; all by default.

        Raises:
            InputError: the name is unknown (the message lists known ones), or two plugins claim it.
        """
        if name in self:
            return self[name]
        if name in self.refused:
            raise InputError(self.refused[name])
        refusal = unknown(self.kind, name, self if offered is None else offered, where)
        raise InputError(" ".join([str(refusal), *self.notes]))

    def __setitem__(self, name: str, thing: T) -> None:
        """Add something for this process only, such as a function passed from Python."""
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
