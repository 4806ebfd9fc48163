"""Errors that a user can fix. Each has one message: what is wrong, where, the value, and what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class DidiError(Exception):
    """A run failed for a reason that a message explains, so no traceback is shown. The command exits with 1."""

    exit_code = 1


class InputError(DidiError):
    """Input or configuration is wrong. The command exits with 2."""

    exit_code = 2


def at_least(least: float, where: str = "", **values: float) -> None:
    """Check settings, by name. Raises InputError with the key and the value of the first one that is below ``least``.

    Args:
        where: what stands before the names: ``objective.``.
    """
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{where}{name}={value} is out of range: it must be at least {least:g}.")


def positive(where: str = "", **values: float) -> None:
    """Check settings, by name. Raises InputError with the key and the value of the first one that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{where}{name}={value} is out of range: it must be positive.")


def warn(text: str) -> None:
    """Print a line of the program's own on stderr: a warning, after which it goes on, or the error that ends it."""
    print(f"didi_core: {text}", file=sys.stderr, flush=True)


def plural(noun: str, number: float) -> str:
    """``call`` of one, ``calls`` of any other number, as every message and report writes it."""
    return noun if number == 1 else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """``1 design``, ``2,000 designs``."""
    return f"{number:,} {plural(noun, number)}"


def first_line(error: BaseException, otherwise: str = "") -> str:
    """The first line of a library's message; without one ``otherwise``, or what kind of error it is."""
    return (str(error).strip().splitlines() or [otherwise or type(error).__name__])[0].strip()


def one_line(error: BaseException, most: int | None = 300) -> str:
    """A library's message on one line, cut after ``most`` characters; without one, what kind of error it is."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def with_kind(error: BaseException) -> str:
    """``ValueError: the first line of its message``."""
    return f"{type(error).__name__}: {first_line(error, 'no message')}"


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not registered; it lists the known names and the one most like it."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f" ({where})" if where else ""
    return InputError(f"unknown {kind} {name!r}{place}.{hint} Known: {', '.join(known) or 'none'}.")
