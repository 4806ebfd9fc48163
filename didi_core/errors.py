"""Errors that are the user's to mend, told in one message: what, where, the value, what to do."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


class DidiError(Exception):
    """A run that failed for a reason worth a sentence rather than a traceback. The command exits with 1."""

    exit_code = 1


class InputError(DidiError):
    """Input or configuration that is wrong. The command exits with 2."""

    exit_code = 2


def warn(text: str) -> None:
    """A line on stderr for what a user should know and that stops nothing."""
    print(f"didi_core: {text}", file=sys.stderr, flush=True)


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> InputError:
    """The error for a name that is not registered: lists the known ones and names the near miss."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    place = f" ({where})" if where else ""
    return InputError(f"unknown {kind} {name!r}{place}.{hint} Known: {', '.join(known) or 'none'}.")
