"""Numbers and lists as a report writes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from didi_core.evaluation.intervals import Interval

MOST_PLACES = 6


def figure(value: float | None, digits: int = 3) -> str:
    """A number with about three digits; an exponent only where the plain form would be unreadable."""
    if value is None or np.isnan(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-4:
        return f"{value:.2e}"
    places = max(digits - 1 - int(np.floor(np.log10(size))), 0)
    return f"{value:,.{places}f}"


def headed(text: str) -> str:
    """The text with a capital first letter; other capitals stay."""
    return text[:1].upper() + text[1:]


def change(ratio: Interval, places: int = 1) -> str:
    """A ratio as a percentage with its interval: ``−24.0 % [−27.1, −20.3]``."""
    value, low, high = _signed(100 * (ratio.value - 1), 100 * (ratio.low - 1), 100 * (ratio.high - 1), places)
    return f"{value} % [{low}, {high}]"


def signed(difference: Interval) -> str:
    """A difference with its interval: ``+0.214 [+0.175, +0.251]``."""
    value, low, high = _signed(difference.value, difference.low, difference.high, 3)
    return f"{value} [{low}, {high}]"


def percent(ratio: float, places: int = 0) -> str:
    """A ratio as a percentage, a whole one at first: ``−24 %``."""
    return f"{with_sign(100 * (ratio - 1), places)} %"


def _signed(value: float, low: float, high: float, places: int) -> list[str]:
    """The numbers with as many more places as it takes to see that an interval excludes zero."""
    nearest = min(abs(low), abs(high))
    while low * high > 0 and float(f"{nearest:.{places}f}") == 0 and places < MOST_PLACES:
        places += 1
    return [with_sign(x, places) for x in (value, low, high)]


def with_sign(number: float, places: int) -> str:
    """``+0.5`` or ``−0.5``; what is rounded to zero has no sign."""
    text = f"{number:+.{places}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def listed(numbers: Sequence[int | str]) -> str:
    words = [str(number) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
